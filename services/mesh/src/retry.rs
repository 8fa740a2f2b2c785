//! The retry budget: retries are at most a fifth of recent traffic, so that
//! they never multiply the load of a peer that is already in trouble.

use std::sync::atomic::{AtomicI64, Ordering};

/// Tokens: a call deposits one, a retry withdraws five.
#[derive(Debug)]
pub struct Budget(AtomicI64);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicI64::new(Self::START))
    }
}

impl Budget {
    const START: i64 = 50; // ten retries before any traffic
    const CAP: i64 = 500;
    const PRICE: i64 = 5;

    pub fn deposit(&self) {
        let add = |tokens: i64| (tokens < Self::CAP).then_some(tokens + 1);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    pub fn withdraw(&self) -> bool {
        let take = |tokens: i64| (tokens >= Self::PRICE).then_some(tokens - Self::PRICE);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
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
}
