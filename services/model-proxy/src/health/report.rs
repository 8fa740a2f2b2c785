//! What is known of a provider, for people: lists of models, `skein status`,
//! logs. Pure.
//!
//! Invariant: a key appears as its label, and never as itself.

use super::{
    breaker::State,
    pool::Pool,
    standing::{Cell, Model, Standing},
};
use crate::error::Failure;
use skein_proto::{
    mesh::v1::{Breaker, BreakerState, ProviderKey, ProviderStatus},
    model::v1::ModelHealth,
};
use std::time::Duration;
use tokio::time::Instant;

/// A breaker's state, as far as a change of it is worth a line in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Closed,
    HalfOpen,
    Open,
}

impl Mood {
    pub fn of(cell: &Cell, now: Instant) -> Self {
        match cell.breaker.state(now) {
            State::Closed => Self::Closed,
            State::HalfOpen { .. } => Self::HalfOpen,
            State::Open(_) => Self::Open,
        }
    }
}

/// A model's health, and why it is not up.
pub fn of_model(pool: &Pool, now: Instant, model: &str) -> (ModelHealth, String) {
    let standings: Vec<_> =
        (0..pool.keys.len()).map(|key| pool.standing(now, model, key)).collect();
    let bad = standings.iter().filter(|standing| **standing != Standing::Good).count();
    if bad == 0 {
        let tried = pool.models.contains_key(model) || pool.good.is_some();
        return match pool.silent() {
            Some(failure) => (ModelHealth::Down, silence(failure)),
            None if tried => (ModelHealth::Up, String::new()),
            None => (ModelHealth::Unspecified, String::new()),
        };
    }
    let health = if bad == standings.len() { ModelHealth::Down } else { ModelHealth::Degraded };
    let mut reasons: Vec<_> =
        key_states(pool, now).iter().filter_map(|(label, key)| key_text(label, key)).collect();
    let known = pool.models.get_key_value(model);
    let breakers = known.into_iter().flat_map(|(name, known)| breakers_of(pool, now, name, known));
    reasons.extend(breakers.map(|one| breaker_text(&one)));
    (health, reasons.join("; "))
}

/// The whole provider's health, and why it is not up.
pub fn of_provider(pool: &Pool, now: Instant) -> (ModelHealth, String) {
    if let Some(failure) = pool.silent() {
        return (ModelHealth::Down, silence(failure));
    }
    let keys = key_states(pool, now);
    let refused = keys.iter().filter(|(_, key)| key.is_some()).count();
    let breakers = breakers(pool, now);
    let mut reasons: Vec<_> = keys.iter().filter_map(|(label, key)| key_text(label, key)).collect();
    let of_model = |one: &Breaker| format!("{} {}", one.model, breaker_text(one));
    reasons.extend(breakers.iter().map(of_model));
    let health = if refused == keys.len() {
        ModelHealth::Down
    } else if !reasons.is_empty() {
        ModelHealth::Degraded
    } else if pool.good.is_some() {
        ModelHealth::Up
    } else {
        ModelHealth::Unspecified
    };
    (health, reasons.join("; "))
}

fn silence(failure: Failure) -> String {
    format!("does not answer ({})", failure.reason())
}

pub fn status(name: &str, pool: &Pool, now: Instant) -> ProviderStatus {
    let (health, reason) = of_provider(pool, now);
    let states = key_states(pool, now);
    let key = |(at, (label, refused)): (usize, (String, Option<(Duration, Failure)>))| {
        let quotas = || pool.models.values().filter_map(|model| model.cells.get(at)?.quota(now));
        ProviderKey {
            label,
            in_flight: pool.keys.get(at).map_or(0, |key| key.in_flight),
            remaining_requests: quotas().filter_map(|quota| quota.requests).min(),
            remaining_tokens: quotas().filter_map(|quota| quota.tokens).min(),
            refused: refused.map_or("", |(_, failure)| failure.reason()).to_owned(),
            refused_ms: refused.map_or(0, |(left, _)| millis(left)),
        }
    };
    ProviderStatus {
        name: name.to_owned(),
        health: health.into(),
        reason,
        p50_us: pool.median().map_or(0, micros),
        probe_us: pool.probe.and_then(|(_, took)| took.ok()).map_or(0, micros),
        keys: states.into_iter().enumerate().map(key).collect(),
        breakers: breakers(pool, now),
        last_error: pool.last_error.map_or("", |(failure, _)| failure.reason()).to_owned(),
        last_error_ms: pool
            .last_error
            .map_or(0, |(_, at)| millis(now.saturating_duration_since(at))),
    }
}

/// Every key's label, and for how long and why none of its models is called.
fn key_states(pool: &Pool, now: Instant) -> Vec<(String, Option<(Duration, Failure)>)> {
    pool.keys.iter().map(|key| (key.label.to_string(), key.useless(now))).collect()
}

/// What holds calls back, by model and key.
fn breakers(pool: &Pool, now: Instant) -> Vec<Breaker> {
    pool.models.iter().flat_map(|(name, model)| breakers_of(pool, now, name, model)).collect()
}

fn breakers_of<'a>(
    pool: &'a Pool,
    now: Instant,
    name: &'a str,
    model: &'a Model,
) -> impl Iterator<Item = Breaker> {
    pool.keys.iter().zip(&model.cells).filter_map(move |(key, cell)| {
        let (state, left, (failures, failure)) = held_back(cell, now)?;
        Some(Breaker {
            model: name.to_owned(),
            key: key.label.to_string(),
            state: state.into(),
            left_ms: millis(left),
            failures,
            reason: failure.reason().to_owned(),
        })
    })
}

/// How, for how long, and after how many failures of which kind.
fn held_back(cell: &Cell, now: Instant) -> Option<(BreakerState, Duration, (u32, Failure))> {
    if let Some(left) = cell.limited.left(now) {
        let failure = Failure::RateLimited { retry_after: Some(left) };
        return Some((BreakerState::Limited, left, (0, failure)));
    }
    if let Some(left) = cell.forbidden.left(now) {
        return Some((BreakerState::Refused, left, (0, Failure::Forbidden)));
    }
    let cause = cell.breaker.cause()?;
    match cell.breaker.state(now) {
        State::Closed => None,
        State::Open(left) => Some((BreakerState::Open, left, cause)),
        State::HalfOpen { .. } => Some((BreakerState::HalfOpen, Duration::ZERO, cause)),
    }
}

fn key_text(label: &str, refused: &Option<(Duration, Failure)>) -> Option<String> {
    let (left, failure) = (*refused)?;
    let what = if failure == Failure::Quota { "has nothing left to spend" } else { "is refused" };
    Some(format!("key {label}: {what}, asked again in {} ({})", seconds(left), failure.reason()))
}

/// `key 2: open for 12 s after 5 failures (PROVIDER_UNAVAILABLE)`
pub fn breaker_text(breaker: &Breaker) -> String {
    let left = seconds(Duration::from_millis(breaker.left_ms));
    let failures = breaker.failures;
    let what = match breaker.state() {
        BreakerState::Open => format!("open for {left} after {failures} failures"),
        BreakerState::HalfOpen => format!("tried again after {failures} failures"),
        BreakerState::Limited => format!("at its limit for {left}"),
        BreakerState::Refused => format!("refused, asked again in {left}"),
        BreakerState::Unspecified => "closed".to_owned(),
    };
    format!("key {}: {what} ({})", breaker.key, breaker.reason)
}

/// Never `0 s`: it is not over yet.
fn seconds(left: Duration) -> String {
    format!("{} s", left.as_millis().div_ceil(1000))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
