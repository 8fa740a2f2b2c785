//! When things happened in the last sixty seconds.
//!
//! Invariants:
//! - Up to `EXACT` entries keep their time; beyond that those of one second
//!   are one entry, dated to its first: it leaves up to a second early.
//! - An entry of a clock that runs ahead counts as now, so a wrong clock cannot
//!   hold a limit for longer than a minute.

use serde::{Deserialize, Serialize};

/// In microseconds, like all times here.
pub const MINUTE: i64 = 60_000_000;
const SECOND: i64 = 1_000_000;
const EXACT: usize = 64;

/// Entries of time and number, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window(Vec<(i64, u64)>);

impl Window {
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, number)| number).sum()
    }

    /// Forgets what is older than a minute.
    pub fn expire(&mut self, now: i64) {
        let old = self.0.iter().take_while(|(at, _)| at.saturating_add(MINUTE) <= now).count();
        self.0.drain(..old);
        for (at, _) in self.0.iter_mut().rev().take_while(|(at, _)| *at > now) {
            *at = now;
        }
    }

    pub fn add(&mut self, at: i64, number: u64) {
        if number == 0 {
            return;
        }
        let full = self.0.len() >= EXACT;
        match self.0.last_mut() {
            Some((last, count)) if *last >= at || (full && at - *last < SECOND) => *count += number,
            _ => self.0.push((at, number)),
        }
    }

    pub fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
        self.0.sort_unstable();
    }

    /// Takes `number` of the newest out again.
    pub fn take_back(&mut self, mut number: u64) {
        while let Some((_, count)) = self.0.last_mut().filter(|_| number > 0) {
            let taken = number.min(*count);
            *count -= taken;
            number -= taken;
            if *count == 0 {
                self.0.pop();
            }
        }
    }

    /// When the next entry leaves.
    pub fn next_free(&self) -> Option<i64> {
        self.0.first().map(|(at, _)| at + MINUTE)
    }

    /// When nothing is left.
    pub fn empty_at(&self) -> Option<i64> {
        self.0.last().map(|(at, _)| at + MINUTE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_counts_for_sixty_seconds_exactly() {
        let mut window = Window::default();
        window.add(5, 2);
        window.add(7, 1);
        window.expire(MINUTE + 4);
        assert_eq!((window.total(), window.next_free()), (3, Some(MINUTE + 5)));
        window.expire(MINUTE + 5);
        assert_eq!((window.total(), window.empty_at()), (1, Some(MINUTE + 7)));
        window.expire(MINUTE + 7);
        assert_eq!((window.total(), window.next_free()), (0, None));
    }

    #[test]
    fn the_newest_are_taken_back() {
        let mut window = Window::default();
        window.add(1, 3);
        window.add(2, 3);
        window.take_back(4);
        assert_eq!(window, Window(vec![(1, 2)]));
        window.take_back(9);
        assert_eq!(window.total(), 0);
    }

    #[test]
    fn a_clock_that_runs_ahead_holds_nothing_up() {
        let mut window = Window::default();
        window.add(900 * SECOND, 1);
        window.expire(SECOND);
        window.expire(MINUTE + SECOND);
        assert_eq!(window.total(), 0);
    }

    #[test]
    fn its_size_is_bounded_and_its_total_right() {
        let mut window = Window::default();
        for millis in 0..200_000 {
            window.expire(millis * 1000);
            window.add(millis * 1000, 1);
        }
        assert!(window.0.len() <= EXACT + 61, "{}", window.0.len());
        assert!((59_000..=60_000).contains(&window.total()), "{}", window.total());
    }
}
