//! The retry budget: retries are at most a fifth of recent traffic, so that
//! they never multiply the load of a peer that is already in trouble.
//!
//! Recent are the calls of the last ten to twenty seconds, however many they
//! are: a machine that dies under a thousand calls a second takes hundreds with
//! it at once, and all of them may be tried elsewhere.
//!
//! Invariant: what quiet or long past traffic has saved up is at most `FLOOR`.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

const WINDOW: Duration = Duration::from_secs(10);

/// Tokens: a call deposits one, a retry withdraws five.
#[derive(Debug)]
pub struct Budget(Mutex<State>);

#[derive(Debug)]
struct State {
    tokens: i64,
    /// When the present window began; the calls in it and in the one before.
    since: Instant,
    calls: i64,
    before: i64,
}

impl Default for Budget {
    fn default() -> Self {
        let since = Instant::now();
        Self(Mutex::new(State { tokens: Self::START, since, calls: 0, before: 0 }))
    }
}

impl Budget {
    const START: i64 = 50; // ten retries before any traffic
    const FLOOR: i64 = 500;
    const PRICE: i64 = 5;

    pub fn deposit(&self) {
        let mut state = self.state();
        state.calls += 1;
        state.tokens = (state.tokens + 1).min(state.most());
    }

    pub fn withdraw(&self) -> bool {
        let mut state = self.state();
        let enough = state.tokens >= Self::PRICE;
        if enough {
            state.tokens -= Self::PRICE;
        }
        enough
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.roll(Instant::now());
        state
    }
}

impl State {
    fn most(&self) -> i64 {
        Budget::FLOOR.max(self.calls + self.before)
    }

    /// Begins another window when the present one is over.
    fn roll(&mut self, now: Instant) {
        let age = now - self.since;
        if age >= WINDOW {
            self.before = if age < WINDOW * 2 { self.calls } else { 0 };
            (self.calls, self.since) = (0, now);
            self.tokens = self.tokens.min(self.most());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_stay_below_a_fifth_of_the_calls() {
        let budget = Budget::default();
        while budget.withdraw() {}
        let mut retries = 0;
        for _ in 0..1000 {
            budget.deposit();
            retries += usize::from(budget.withdraw());
        }
        assert_eq!(retries, 200);
    }
    #[tokio::test(start_paused = true)]
    async fn what_may_be_retried_at_once_grows_with_recent_traffic_alone() {
        let at_once = |budget: &Budget| (0..).take_while(|_| budget.withdraw()).count();
        let budget = Budget::default();
        let traffic = || (0..5000).for_each(|_| budget.deposit());
        traffic();
        assert_eq!(at_once(&budget), 1000, "a fifth of the last seconds' calls");
        traffic();
        tokio::time::advance(WINDOW).await;
        assert_eq!(at_once(&budget), 1000, "they are recent still");
        traffic();
        tokio::time::advance(WINDOW * 2).await;
        assert_eq!(at_once(&budget), 100, "long past traffic counts little");
    }
}
