//! The rate limit of the Machines API: so many a second, so many at once.
//!
//! Invariants:
//! - Each action on each machine has a budget of its own, whoever asks.

use std::{collections::HashMap, sync::Mutex, sync::PoisonError};
use tokio::time::Instant;

/// A second, and at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    pub(crate) burst: f64,
}

#[derive(Default)]
pub(crate) struct Limits {
    /// By action and machine.
    left: Mutex<HashMap<(&'static str, String), Left>>,
}

/// What is left of a budget, and when that was so.
type Left = (f64, Instant);

impl Limits {
    pub(crate) fn allow(&self, action: &'static str, of: &str, rate: Rate, now: Instant) -> bool {
        let mut all = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, at) = all.entry((action, of.to_owned())).or_insert_with(|| (rate.burst, now));
        let refilled = *left + rate.per_second * now.duration_since(*at).as_secs_f64();
        (*left, *at) = (refilled.min(rate.burst), now);
        let allowed = *left >= 1.0;
        if allowed {
            *left -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_then_one_a_second_for_each_action_of_each_machine() {
        let (limits, now) = (Limits::default(), Instant::now());
        let rate = Rate { per_second: 1.0, burst: 3.0 };
        let start =
            |of: &str, seconds| limits.allow("start", of, rate, now + Duration::from_secs(seconds));
        assert!((0..3).all(|_| start("a", 0)) && !start("a", 0));
        assert!(start("b", 0) && limits.allow("stop", "a", rate, now));
        assert!(start("a", 1) && !start("a", 1));
        assert!((0..3).all(|_| start("a", 60)) && !start("a", 60), "no more than the burst");
    }
}
