//! What each key may still ask.
//!
//! Invariants:
//! - Keys do not share: one used up leaves the others as they are.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Requests of a key that nobody limited.
const USUAL: u64 = 10_000;
/// How long until all is there again, as the headers say it.
const WINDOW: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Limits {
    keys: Mutex<HashMap<String, (u64, u64)>>,
}

/// A key's requests, this one taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    pub(crate) limit: u64,
    pub(crate) remaining: u64,
    /// There was one left to take.
    pub(crate) granted: bool,
}

impl Left {
    pub(crate) fn resets_in(self) -> Duration {
        if self.remaining == 0 { WINDOW } else { Duration::from_millis(6) }
    }
}

impl Limits {
    pub(crate) fn set(&self, key: &str, requests: u64) {
        self.with(|keys| keys.insert(key.to_owned(), (requests, requests)));
    }

    pub(crate) fn take(&self, key: &str) -> Left {
        self.with(|keys| {
            let (limit, remaining) = keys.entry(key.to_owned()).or_insert((USUAL, USUAL));
            let granted = *remaining > 0;
            *remaining = remaining.saturating_sub(1);
            Left { limit: *limit, remaining: *remaining, granted }
        })
    }

    fn with<R>(&self, use_it: impl FnOnce(&mut HashMap<String, (u64, u64)>) -> R) -> R {
        use_it(&mut self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
