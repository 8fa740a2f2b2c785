//! Fly's restart policies, as a pure function of how and when a machine ended.
//!
//! Invariants:
//! - `always` restarts for ever, `never` not once, `on-failure` only what failed
//!   and at most `retries` times in any one window.
//! - A machine that keeps crashing waits longer each time, one that ran long
//!   enough starts afresh.

use crate::fly_toml::Restart;
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// In which Fly counts the restarts of `on-failure`.
pub(crate) const WINDOW: Duration = Duration::from_secs(300);
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// A program that ran this long has not crashed at its start.
const SETTLED: Duration = Duration::from_secs(10);

pub(crate) struct Restarts {
    policy: Restart,
    retries: usize,
    window: Duration,
    recent: VecDeque<Instant>,
    wait: Duration,
}

impl Restarts {
    pub(crate) fn new(policy: Restart, retries: usize, window: Duration) -> Self {
        Self { policy, retries, window, recent: VecDeque::new(), wait: FIRST_WAIT }
    }

    /// How long to wait before the next start; `None`: it stays stopped.
    pub(crate) fn next(&mut self, clean: bool, ran: Duration, now: Instant) -> Option<Duration> {
        while self.recent.front().is_some_and(|at| now.duration_since(*at) >= self.window) {
            self.recent.pop_front();
        }
        let again = match self.policy {
            Restart::Always => true,
            Restart::OnFailure => !clean && self.recent.len() < self.retries,
            Restart::Never => false,
        };
        if !again {
            return None;
        }
        if self.policy == Restart::OnFailure {
            self.recent.push_back(now);
        }
        if ran >= SETTLED {
            self.wait = FIRST_WAIT;
        }
        let wait = self.wait;
        self.wait = (wait * 2).min(LONGEST_WAIT);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(1);

    #[test]
    fn on_failure_gives_up_after_its_retries_in_one_window() {
        let mut restarts = Restarts::new(Restart::OnFailure, 10, WINDOW);
        let begun = Instant::now();
        for _ in 0..10 {
            assert!(restarts.next(false, SHORT, begun).is_some());
        }
        assert_eq!(restarts.next(false, SHORT, begun), None);
        // the window has passed: another ten
        assert!(restarts.next(false, SHORT, begun + WINDOW).is_some());
        assert_eq!(restarts.next(true, SHORT, begun + WINDOW), None, "a clean exit stays");
    }

    #[test]
    fn always_and_never_do_what_they_say() {
        let now = Instant::now();
        let mut always = Restarts::new(Restart::Always, 10, WINDOW);
        assert!((0..1000).all(|_| always.next(true, SHORT, now).is_some()));
        let mut never = Restarts::new(Restart::Never, 10, WINDOW);
        assert_eq!(never.next(false, SHORT, now), None);
    }

    #[test]
    fn a_crash_loop_slows_down_and_a_long_run_starts_afresh() {
        let now = Instant::now();
        let mut restarts = Restarts::new(Restart::Always, 10, WINDOW);
        let waits: Vec<_> = (0..8).filter_map(|_| restarts.next(false, SHORT, now)).collect();
        assert!(waits.is_sorted() && waits[0] == FIRST_WAIT && waits[7] == LONGEST_WAIT);
        assert_eq!(restarts.next(false, SETTLED, now), Some(FIRST_WAIT));
    }
}
