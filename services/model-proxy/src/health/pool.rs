//! What is known of one provider's keys, and which of them a call gets; pure,
//! with the clock handed in.
//!
//! Invariants:
//! - With any number of keys there is always a way, unless the provider itself
//!   has said to wait (a limit, an empty account) of every key that it takes at
//!   all. Failures never shut out the last one: it is used as a last resort.
//! - A refusal of a key holds for all its models, one of a model for it alone.
//! - Memory is bounded although callers choose the names of models: the model
//!   that was asked for longest ago is forgotten first.

use super::{
    breaker::{Rules, Ticket},
    cooldown::{Cooldown, Rests},
    keys::{self, Candidate},
    report::Mood,
    standing::{Cell, Key, Model, Standing},
};
use crate::{error::Failure, provider::Quota};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Models that are known apart, per provider.
const MOST_MODELS: usize = 256;
/// What nobody has asked for this long is forgotten when something new comes.
const FORGOTTEN: Duration = Duration::from_secs(3600);
/// Nobody is believed who wants to be left alone for longer.
const LONGEST_WORD: Duration = Duration::from_secs(24 * 3600);
/// A key that is refused, and a model that is refused to it.
const REFUSED: Rests =
    Rests { first: Duration::from_secs(60), longest: Duration::from_secs(600), free: 0 };
/// Too many calls, says the provider, but not when to come back; the first time
/// the pause between two tries is enough.
const UNSAID: Rests =
    Rests { first: Duration::from_secs(1), longest: Duration::from_secs(30), free: 1 };
/// Latencies that the median is taken of.
const SAMPLES: usize = 64;

pub struct Pool {
    pub rules: Rules,
    pub keys: Vec<Key>,
    pub models: BTreeMap<Arc<str>, Model>,
    /// Models whose breakers were last said not to be closed, and which are no
    /// longer known; for whoever says so.
    pub forgotten: Vec<Arc<str>>,
    /// Times from a call to the first of its answer, the last ones.
    samples: Vec<Duration>,
    next_sample: usize,
    /// Counts the calls, for telling which key was used last.
    calls: u64,
    pub last_error: Option<(Failure, Instant)>,
    /// When anything good last came back.
    pub good: Option<Instant>,
    /// When it was last asked for nothing, and how long it took or why it failed.
    pub probe: Option<(Instant, Result<Duration, Failure>)>,
}

/// A call, as what let it through knows it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pass {
    pub key: usize,
    breaker: Ticket,
    unsaid: u64,
    forbidden: u64,
    refused: u64,
    spent: u64,
}

pub enum Chosen {
    Go {
        pass: Pass,
        last_resort: bool,
    },
    /// Every key is to be left alone, the first of them for so long.
    Wait {
        left: Duration,
        failure: Failure,
    },
}

impl Pool {
    pub fn new(labels: impl IntoIterator<Item = Arc<str>>, rules: Rules) -> Self {
        let key = |label| Key {
            label,
            in_flight: 0,
            used: 0,
            refused: Cooldown::default(),
            spent: Cooldown::default(),
            good: None,
            told: None,
        };
        Self {
            rules,
            keys: labels.into_iter().map(key).collect(),
            models: BTreeMap::new(),
            forgotten: Vec::new(),
            samples: Vec::new(),
            next_sample: 0,
            calls: 0,
            last_error: None,
            good: None,
            probe: None,
        }
    }

    /// A key for a call of `model`; one of `tried`, which have failed this call
    /// already, only if there is no other.
    pub fn choose(&mut self, now: Instant, model: &str, tried: &[usize], chance: f64) -> Chosen {
        if let Some(model) = self.models.get_mut(model) {
            model.used = now;
        }
        let standings: Vec<_> =
            (0..self.keys.len()).map(|key| self.standing(now, model, key)).collect();
        let good = |fresh: bool| {
            let keys = standings.iter().enumerate();
            let keys = keys.filter(move |(key, standing)| {
                **standing == Standing::Good && tried.contains(key) != fresh
            });
            keys.map(|(key, _)| self.candidate(now, model, key)).collect::<Vec<_>>()
        };
        let picked = keys::pick(&good(true), chance).or_else(|| keys::pick(&good(false), chance));
        if let Some(key) = picked {
            return Chosen::Go { pass: self.admit(now, model, key), last_resort: false };
        }
        // The one that is asked again first, and not one of this call's own.
        let soonest = |left: fn(Standing) -> Option<Duration>| {
            let keys = standings.iter().enumerate();
            let keys = keys
                .filter_map(|(key, standing)| Some((tried.contains(&key), left(*standing)?, key)));
            keys.min().map(|(_, _, key)| key)
        };
        let failing = soonest(Standing::failing);
        let told = standings.iter().filter_map(|standing| standing.told());
        match (failing, told.min_by_key(|(left, _)| *left)) {
            (None, Some((left, failure))) => Chosen::Wait { left, failure },
            (failing, _) => {
                // Without a key that fails or waits, all of them are refused.
                let key = failing.or_else(|| soonest(Standing::refused)).unwrap_or_default();
                Chosen::Go { pass: self.admit(now, model, key), last_resort: true }
            }
        }
    }

    pub fn standing(&self, now: Instant, model: &str, key: usize) -> Standing {
        let cell = self.models.get(model).and_then(|model| model.cells.get(key));
        self.keys.get(key).map_or(Standing::Good, |key| Standing::of(now, key, cell))
    }

    fn candidate(&self, now: Instant, model: &str, key: usize) -> Candidate {
        let mut candidate = Candidate { key, ..Candidate::default() };
        if let Some(of_key) = self.keys.get(key) {
            (candidate.in_flight, candidate.used) = (of_key.in_flight, of_key.used);
        }
        let cell = self.models.get(model).and_then(|model| model.cells.get(key));
        if let Some(Quota { requests, tokens, .. }) = cell.and_then(|cell| cell.quota(now)) {
            (candidate.requests, candidate.tokens) = (requests, tokens);
        }
        candidate
    }

    fn admit(&mut self, now: Instant, model: &str, key: usize) -> Pass {
        self.calls += 1;
        let mut pass = Pass { key, ..Pass::default() };
        if let Some(of_key) = self.keys.get_mut(key) {
            of_key.in_flight += 1;
            of_key.used = self.calls;
            (pass.refused, pass.spent) = (of_key.refused.turn(), of_key.spent.turn());
        }
        let model = self.models.get_mut(model);
        if let Some(cell) = model.and_then(|model| model.cells.get_mut(key)) {
            pass.breaker = cell.breaker.admit(now);
            (pass.unsaid, pass.forbidden) = (cell.unsaid.turn(), cell.forbidden.turn());
        }
        pass
    }

    /// The head of a good answer.
    pub fn heard(&mut self, now: Instant, model: &str, pass: Pass, quota: Quota) {
        if quota.requests.is_some() || quota.tokens.is_some() {
            let cell = self.cell(now, model, pass.key);
            (cell.quota, cell.heard) = (quota, Some(now));
        }
    }

    /// The first of an answer, so long after its call.
    pub fn began(&mut self, now: Instant, model: &str, pass: Pass, after: Duration) {
        self.good = Some(now);
        self.cell(now, model, pass.key).breaker.began(pass.breaker);
        if self.samples.len() < SAMPLES {
            self.samples.push(after);
        } else {
            self.samples[self.next_sample] = after;
        }
        self.next_sample = (self.next_sample + 1) % SAMPLES;
    }

    pub fn done(&mut self, now: Instant, model: &str, pass: Pass) {
        self.release(pass.key);
        self.good = Some(now);
        if let Some(key) = self.keys.get_mut(pass.key) {
            key.refused.clear();
            key.spent.forgive();
            key.good = Some(now);
        }
        let cell = self.cell(now, model, pass.key);
        cell.breaker.succeeded(pass.breaker, now);
        cell.unsaid.forgive();
        cell.forbidden.clear();
        if let Some(model) = self.models.get_mut(model) {
            model.good = Some(now);
        }
    }

    /// The call has ended without saying anything of the provider.
    pub fn left(&mut self, model: &str, pass: Pass) {
        self.release(pass.key);
        let model = self.models.get_mut(model);
        if let Some(cell) = model.and_then(|model| model.cells.get_mut(pass.key)) {
            cell.breaker.left(pass.breaker);
        }
    }

    pub fn failed(&mut self, now: Instant, model: &str, pass: Pass, failure: Failure) {
        let rules = self.rules;
        if !failure.is_of_the_request() {
            self.last_error = Some((failure, now));
        }
        match failure {
            Failure::Unauthenticated => {
                self.refuse(now, pass, |key| (&mut key.refused, pass.refused));
            }
            Failure::Quota => self.refuse(now, pass, |key| (&mut key.spent, pass.spent)),
            Failure::Forbidden => {
                self.cell(now, model, pass.key).forbidden.failed(pass.forbidden, now, REFUSED);
            }
            Failure::RateLimited { retry_after: Some(wait) } => {
                let until = now + wait.min(LONGEST_WORD);
                self.cell(now, model, pass.key).limited.at_least(until);
            }
            Failure::RateLimited { retry_after: None } => {
                let cell = self.cell(now, model, pass.key);
                cell.unsaid.failed(pass.unsaid, now, UNSAID);
                if let Some(left) = cell.unsaid.left(now) {
                    cell.limited.at_least(now + left);
                }
            }
            failure if failure.is_outage() => {
                let cell = self.cell(now, model, pass.key);
                cell.breaker.failed(pass.breaker, failure, now, rules);
            }
            _ => {}
        }
        // Frees a probe whose failure was none of the breaker's.
        self.left(model, pass);
    }

    /// A key was tried with a question that costs nothing, for so long.
    pub fn probed(&mut self, now: Instant, key: usize, took: Duration, failure: Option<Failure>) {
        // To a question as small as this one no caller's patience was too short.
        let late = |failure| matches!(failure, Failure::TotalTimeout);
        let down = failure.filter(|failure| failure.is_outage() || late(*failure));
        self.probe = Some((now, down.map_or(Ok(took), Err)));
        if let Some(failure) = failure.filter(|failure| !failure.is_of_the_request()) {
            self.last_error = Some((failure, now));
        }
        let Some(of_key) = self.keys.get_mut(key) else { return };
        match failure {
            Some(Failure::Unauthenticated) if of_key.refused.left(now).is_some() => {
                of_key.refused.extend(now, REFUSED);
            }
            Some(Failure::Unauthenticated) => of_key.refused.strike(now, REFUSED),
            // Some providers have no list.
            None | Some(Failure::NotFound) => {
                of_key.refused.clear();
                (of_key.good, self.good) = (Some(now), Some(now));
            }
            Some(_) => {}
        }
    }

    /// Why it does not answer, if that is the last that was heard of it.
    pub fn silent(&self) -> Option<Failure> {
        let (at, outcome) = self.probe?;
        outcome.err().filter(|_| self.good.is_none_or(|good| good < at))
    }

    pub fn median(&self) -> Option<Duration> {
        let mut sorted = self.samples.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }

    fn refuse(
        &mut self,
        now: Instant,
        pass: Pass,
        mark: impl FnOnce(&mut Key) -> (&mut Cooldown, u64),
    ) {
        if let Some(key) = self.keys.get_mut(pass.key) {
            let (cooldown, turn) = mark(key);
            cooldown.failed(turn, now, REFUSED);
        }
    }

    fn release(&mut self, key: usize) {
        if let Some(key) = self.keys.get_mut(key) {
            key.in_flight = key.in_flight.saturating_sub(1);
        }
    }

    fn cell(&mut self, now: Instant, model: &str, key: usize) -> &mut Cell {
        if !self.models.contains_key(model) {
            self.make_room(now);
        }
        let count = self.keys.len().max(key + 1);
        let new = || Model { cells: vec![Cell::default(); count], good: None, used: now };
        let model = self.models.entry(model.into()).or_insert_with(new);
        model.used = now;
        &mut model.cells[key]
    }

    fn make_room(&mut self, now: Instant) {
        let young = |model: &Model| now.saturating_duration_since(model.used) < FORGOTTEN;
        let old: Vec<_> = self.models.extract_if(.., |_, model| !young(model)).collect();
        for (name, model) in old {
            self.forget(name, &model);
        }
        while self.models.len() >= MOST_MODELS {
            let oldest = self.models.iter().min_by_key(|(_, model)| model.used);
            let Some(oldest) = oldest.map(|(name, _)| Arc::clone(name)) else { return };
            if let Some((name, model)) = self.models.remove_entry(&oldest) {
                self.forget(name, &model);
            }
        }
    }

    fn forget(&mut self, name: Arc<str>, model: &Model) {
        if model.cells.iter().any(|cell| cell.told != Mood::Closed) {
            self.forgotten.push(name);
        }
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
