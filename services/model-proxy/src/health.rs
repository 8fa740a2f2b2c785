//! Which key of a provider a call uses, and what is known of each.
//!
//! Read `pool` for the rules; it is made of `breaker`, `cooldown` and `keys`.
//! Here are the lock, the permits, the log and the metrics; `probe` asks
//! providers that nobody else asks, `report` says how they are.
//!
//! Invariants:
//! - Every permit is settled, by what became of its call or by being dropped.
//! - Every change of a state is logged once, and nothing between two changes.
//! - No key is in a log, a metric or a report: keys have labels.

pub mod breaker;
pub mod cooldown;
pub mod keys;
pub mod pool;
pub mod probe;
pub mod report;
pub mod standing;

use crate::{
    error::{Error, Failure},
    provider::{Provider, Quota},
};
use breaker::Rules;
use metrics::gauge;
use pool::{Chosen, Pass, Pool};
use report::Mood;
use skein_proto::{mesh::v1::ProviderStatus, model::v1::ModelHealth};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// Models of a provider that have metrics of their own; callers choose names.
const MOST_MEASURED: usize = 64;

pub struct Health {
    providers: BTreeMap<Arc<str>, Watched>,
    /// Something about [`Health::missing`] is new.
    pub changed: Notify,
}

struct Watched {
    pool: Mutex<Pool>,
    /// The models whose breakers are in the metrics.
    measured: Mutex<Vec<Arc<str>>>,
}

/// What to do with a call now.
pub enum Choice {
    Go(Permit),
    /// Every key is known to be refused for so long, and why.
    Wait {
        left: Duration,
        failure: Failure,
    },
}

/// The right to use key number `key` once.
pub struct Permit {
    pub key: usize,
    /// Nothing better is left: this try is not repeated.
    pub last_resort: bool,
    begun: Instant,
    /// Absent once it is settled.
    call: Option<Passed>,
}

struct Passed {
    health: Arc<Health>,
    provider: Arc<str>,
    model: String,
    pass: Pass,
}

impl Health {
    pub fn new(providers: &[Arc<dyn Provider>], rules: Rules) -> Self {
        let watched = |provider: &Arc<dyn Provider>| {
            let labels = provider.keys().iter().map(|key| Arc::clone(&key.label));
            let pool = Mutex::new(Pool::new(labels, rules));
            (Arc::clone(provider.name()), Watched { pool, measured: Mutex::default() })
        };
        Self { providers: providers.iter().map(watched).collect(), changed: Notify::new() }
    }

    /// A key for a call of `model`; one that has failed this call already
    /// (`tried`) only if there is no other.
    pub fn choose(
        self: &Arc<Self>,
        provider: &dyn Provider,
        model: &str,
        tried: &[usize],
    ) -> Choice {
        let begun = Instant::now();
        let chosen = self.with(provider.name(), model, |pool, now| {
            pool.choose(now, model, tried, fastrand::f64())
        });
        match chosen {
            Some(Chosen::Wait { left, failure }) => Choice::Wait { left, failure },
            Some(Chosen::Go { pass, last_resort }) => {
                let (health, provider) = (Arc::clone(self), Arc::clone(provider.name()));
                let call = Some(Passed { health, provider, model: model.to_owned(), pass });
                Choice::Go(Permit { key: pass.key, last_resort, begun, call })
            }
            // Of no registered provider, of which nothing is known.
            None => Choice::Go(Permit { key: 0, last_resort: false, begun, call: None }),
        }
    }

    /// A model's health, and why it is not up.
    pub fn of_model(&self, provider: &str, model: &str) -> (ModelHealth, String) {
        let Some(watched) = self.providers.get(provider) else {
            return (ModelHealth::Unspecified, String::new());
        };
        report::of_model(&watched.pool(), Instant::now(), model)
    }

    /// Each provider by its name, with its health and why it is not up.
    pub fn each(&self) -> Vec<(Arc<str>, ModelHealth, String)> {
        let now = Instant::now();
        let one = |(name, watched): (&Arc<str>, &Watched)| {
            let (health, reason) = report::of_provider(&watched.pool(), now);
            (Arc::clone(name), health, reason)
        };
        self.providers.iter().map(one).collect()
    }

    pub fn status(&self) -> Vec<ProviderStatus> {
        let now = Instant::now();
        let status =
            |(name, watched): (&Arc<str>, &Watched)| report::status(name, &watched.pool(), now);
        self.providers.iter().map(status).collect()
    }

    /// What became of a free question asked with a key, and after how long.
    pub fn probed(&self, provider: &str, key: usize, took: Duration, failure: Option<Failure>) {
        self.with(provider, "", |pool, now| pool.probed(now, key, took, failure));
    }

    /// Whether a key has worked within `age`, and nothing was said against it
    /// since.
    pub fn is_good(&self, provider: &str, key: usize, age: Duration) -> bool {
        let Some(watched) = self.providers.get(provider) else { return false };
        let (pool, now) = (watched.pool(), Instant::now());
        let young = |at: Instant| now.saturating_duration_since(at) < age;
        let key = pool.keys.get(key);
        key.is_some_and(|key| key.useless(now).is_none() && key.good.is_some_and(young))
    }

    /// Whether a model has answered within `age`.
    pub fn has_answered(&self, provider: &str, model: &str, age: Duration) -> bool {
        let Some(watched) = self.providers.get(provider) else { return false };
        let (pool, now) = (watched.pool(), Instant::now());
        let good = pool.models.get(model).and_then(|model| model.good);
        good.is_some_and(|at| now.saturating_duration_since(at) < age)
    }

    /// The providers that do not answer, and why.
    pub fn missing(&self) -> impl Iterator<Item = String> {
        self.providers.iter().filter_map(|(name, watched)| {
            let failure = watched.pool().silent()?;
            Some(format!("provider {name} does not answer ({})", failure.reason()))
        })
    }

    /// Does something with what is known of a provider, and tells what changed.
    fn with<T>(
        &self,
        provider: &str,
        model: &str,
        change: impl FnOnce(&mut Pool, Instant) -> T,
    ) -> Option<T> {
        let watched = self.providers.get(provider)?;
        let (mut pool, now) = (watched.pool(), Instant::now());
        let before = pool.silent();
        let out = change(&mut pool, now);
        match (before, pool.silent()) {
            (None, Some(failure)) => {
                tracing::warn!(provider, reason = failure.reason(), "a provider does not answer");
                self.changed.notify_one();
            }
            (Some(_), None) => {
                tracing::info!(provider, "a provider answers again");
                self.changed.notify_one();
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
        tell_keys(&mut pool, now, provider);
        watched.tell_breakers(&mut pool, now, provider, model);
        Some(out)
    }
}

fn tell_keys(pool: &mut Pool, now: Instant, provider: &str) {
    for key in &mut pool.keys {
        let useless = key.useless(now).map(|(_, failure)| failure);
        if useless == key.told {
            continue;
        }
        let label = &*key.label;
        match useless.map(Failure::reason) {
            Some(reason) => tracing::warn!(provider, key = label, reason, "a key is not used"),
            None => tracing::info!(provider, key = label, "a key is used again"),
        }
        key.told = useless;
        let (provider, label) = (provider.to_owned(), label.to_owned());
        gauge!("skein_model_key_unused", "provider" => provider, "key" => label)
            .set(if useless.is_some() { 1.0 } else { 0.0 });
    }
}

fn log(mood: Mood, provider: &str, model: &str, key: &str, reason: &str) {
    match mood {
        Mood::Open => tracing::warn!(provider, model, key, reason, "breaker open"),
        Mood::HalfOpen => tracing::info!(provider, model, key, reason, "breaker half-open"),
        Mood::Closed => tracing::info!(provider, model, key, "breaker closed"),
    }
}

impl Watched {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_breakers(&self, pool: &mut Pool, now: Instant, provider: &str, name: &str) {
        for name in std::mem::take(&mut pool.forgotten) {
            for key in &pool.keys {
                self.show(Mood::Closed, provider, &name, &key.label);
            }
        }
        let Some(model) = pool.models.get_mut(name) else { return };
        for (key, cell) in pool.keys.iter().zip(&mut model.cells) {
            let mood = Mood::of(cell, now);
            if mood == cell.told {
                continue;
            }
            let key = &*key.label;
            let reason = cell.breaker.cause().map_or("", |(_, failure)| failure.reason());
            log(mood, provider, name, key, reason);
            cell.told = mood;
            self.show(mood, provider, name, key);
        }
    }

    fn show(&self, mood: Mood, provider: &str, model: &str, key: &str) {
        let Some(model) = self.label(model) else { return };
        let (provider, key) = (provider.to_owned(), key.to_owned());
        gauge!("skein_model_breaker_state", "provider" => provider, "model" => model, "key" => key)
            .set(match mood {
                Mood::Closed => 0.0,
                Mood::HalfOpen => 1.0,
                Mood::Open => 2.0,
            });
    }

    /// The model as a label of metrics, unless there are too many already.
    fn label(&self, model: &str) -> Option<Arc<str>> {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = measured.iter().find(|known| &***known == model) {
            return Some(Arc::clone(known));
        }
        let room = measured.len() < MOST_MEASURED;
        room.then(|| {
            let name: Arc<str> = model.into();
            measured.push(Arc::clone(&name));
            name
        })
    }
}

impl Permit {
    /// The head of an answer has come.
    pub fn heard(&mut self, quota: Quota) {
        let Some(call) = &self.call else { return };
        call.with(|pool, now, model, pass| {
            pool.heard(now, model, pass, quota);
            for (kind, left) in [("requests", quota.requests), ("tokens", quota.tokens)] {
                if let (Some(left), Some(key)) = (left, pool.keys.get(pass.key)) {
                    let (provider, key) = (Arc::clone(&call.provider), Arc::clone(&key.label));
                    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
                    gauge!("skein_model_key_remaining", "provider" => provider, "key" => key, "kind" => kind)
                        .set(left as f64);
                }
            }
        });
    }

    /// The first of the answer is here.
    pub fn began(&mut self) {
        let after = self.begun.elapsed();
        if let Some(call) = &self.call {
            call.with(|pool, now, model, pass| pool.began(now, model, pass, after));
        }
    }

    /// The call's answer is whole.
    pub fn done(mut self) {
        if let Some(call) = self.call.take() {
            call.with(Pool::done);
        }
    }

    pub fn failed(mut self, error: &Error) {
        // What no provider did settles it like a caller's leaving.
        let Some(failure) = error.failure() else { return };
        if let Some(call) = self.call.take() {
            call.with(|pool, now, model, pass| pool.failed(now, model, pass, failure));
        }
    }
}

impl Drop for Permit {
    /// Its caller has left without a fault of the provider.
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            call.with(|pool, _, model, pass| pool.left(model, pass));
        }
    }
}

impl Passed {
    fn with(&self, change: impl FnOnce(&mut Pool, Instant, &str, Pass)) {
        let Self { health, provider, model, pass } = self;
        health.with(provider, model, |pool, now| change(pool, now, model, *pass));
    }
}
