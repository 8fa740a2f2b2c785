//! How often and how many at a time: the limits of a key.
//!
//! A minute is any sixty seconds, not one of the clock's: [`window`] logs when
//! calls were let in, so that nobody gets twice the limit around a full minute.
//! Several gateways share a key's limits through one row of the store
//! ([`ledger`]), which no call has to ask: each gateway takes calls and slots
//! ahead of need ([`local`]), at most an eighth of what is left, divided by the
//! live gateways. Near the limit that is none, and a call waits for the store
//! itself. What is not used within a second goes back.
//!
//! Slack, over what a single counter would do:
//! - calls: those taken ahead count when taken, up to a second before they are
//!   made, and never more than an eighth of the limit; keys above 64 calls a
//!   minute log them by the second;
//! - slots: idle ones at another gateway come back within a second, and those of
//!   a gateway that died after [`ledger::HOLD`];
//! - store away: each gateway counts alone, up to limit / live gateways (at
//!   least one). In the minute in which it goes, what was let in before counts
//!   only where it was let in. Calls of that time are reported when it is back.
//!
//! Invariants:
//! - One gateway: never more than the limit in any sixty seconds, whatever the
//!   concurrency.
//! - A call refused for one limit spends nothing of the other.
//! - A slot comes back on every way out: it is a guard that lives in the
//!   response's body.

pub mod ledger;
pub mod local;
pub mod store;
pub mod told;
pub mod window;

use crate::keys::Key;
use local::{Admitted, KeyLimit, SWEEP};
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};
use store::LimitStore;
use told::{Limited, Told};

/// What a key may do; 0: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    pub per_minute: u64,
    pub concurrency: u64,
}

impl Allowance {
    pub const fn is_limited(self) -> bool {
        self.per_minute > 0 || self.concurrency > 0
    }
}

/// Every limited key in use here.
#[derive(Clone)]
pub struct Limits {
    store: Arc<LimitStore>,
    keys: Arc<RwLock<HashMap<String, Arc<KeyLimit>>>>,
}

impl Limits {
    pub fn new(store: LimitStore) -> Self {
        Self { store: Arc::new(store), keys: Arc::default() }
    }

    /// Lets a call of `key` in, with the guard it holds to its end, or says why
    /// not. `None`: the key has no limits.
    pub async fn enter(&self, key: &Key) -> Result<Option<(Admitted, Told)>, Limited> {
        if !key.allowance.is_limited() {
            return Ok(None);
        }
        self.of(key).enter().await.map(Some)
    }

    fn of(&self, key: &Key) -> Arc<KeyLimit> {
        let known = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(&key.id).filter(|found| found.allowance == key.allowance) {
            return Arc::clone(found);
        }
        drop(known);
        let fresh = KeyLimit::new(&key.id, key.allowance, Arc::clone(&self.store));
        let mut known = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let entry = known.entry(key.id.clone()).or_insert_with(|| Arc::clone(&fresh));
        if entry.allowance != key.allowance {
            *entry = fresh;
        }
        Arc::clone(entry)
    }

    /// Gives back what nobody uses and renews what is held, for ever.
    pub async fn sweep(self) {
        let mut ticks = tokio::time::interval(SWEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let keys: Vec<_> = self.all();
            for key in keys.iter().filter(|key| key.sweep()) {
                let mut known = self.keys.write().unwrap_or_else(PoisonError::into_inner);
                known.remove(&key.id);
            }
        }
    }

    /// Counts the live gateways, for ever.
    pub async fn beat(self) {
        self.store.beat().await;
    }

    /// Gives everything back before the process ends.
    pub async fn leave(&self) {
        for key in self.all() {
            key.give_back().await;
        }
        self.store.leave().await;
    }

    fn all(&self) -> Vec<Arc<KeyLimit>> {
        let known = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        known.values().map(Arc::clone).collect()
    }
}
