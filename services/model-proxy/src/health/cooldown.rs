//! How long something that has failed is left alone.
//!
//! Invariants:
//! - A later failure never shortens a rest, and only a success ends the doubling.
//! - Calls that fail together count once: a rest doubles only when something
//!   that began after it had been set has failed too.

use std::time::Duration;
use tokio::time::Instant;

/// The rests of one kind of failure: `first`, twice that, … `longest`.
#[derive(Clone, Copy, Debug)]
pub struct Rests {
    pub first: Duration,
    pub longest: Duration,
    /// Failures that cost no rest yet.
    pub free: u32,
}

#[derive(Clone, Debug, Default)]
pub struct Cooldown {
    /// Failures since the last success, those that fell together counted once.
    strikes: u32,
    until: Option<Instant>,
    /// Changes with every strike.
    turn: u64,
}

impl Cooldown {
    /// What a call notes when it begins, and hands back when it fails.
    pub const fn turn(&self) -> u64 {
        self.turn
    }

    pub fn left(&self, now: Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// A call that began at `turn` has failed.
    pub fn failed(&mut self, turn: u64, now: Instant, rests: Rests) {
        if turn == self.turn {
            self.strike(now, rests);
        }
    }

    pub fn strike(&mut self, now: Instant, rests: Rests) {
        self.turn += 1;
        self.strikes = self.strikes.saturating_add(1);
        self.extend(now, rests);
    }

    /// At least the present rest again, from `now`.
    pub fn extend(&mut self, now: Instant, rests: Rests) {
        let Some(doublings) = self.strikes.saturating_sub(rests.free).checked_sub(1) else {
            return;
        };
        let rest = rests.first.saturating_mul(1 << doublings.min(20)).min(rests.longest);
        self.at_least(now + rest);
    }

    /// Somebody who must know has named the time.
    pub fn at_least(&mut self, until: Instant) {
        self.until = self.until.max(Some(until));
    }

    /// The next rest is the first one again; the present one stays.
    pub const fn forgive(&mut self) {
        self.strikes = 0;
    }

    pub const fn clear(&mut self) {
        self.strikes = 0;
        self.until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESTS: Rests =
        Rests { first: Duration::from_secs(5), longest: Duration::from_secs(60), free: 0 };

    fn strike(cooldown: &mut Cooldown, now: Instant) -> u64 {
        cooldown.failed(cooldown.turn(), now, RESTS);
        cooldown.left(now).unwrap_or_default().as_secs()
    }

    #[test]
    fn rests_double_to_the_longest_and_a_success_begins_anew() {
        let (mut cooldown, now) = (Cooldown::default(), Instant::now());
        let later = |step: u64| now + Duration::from_secs(step * 100);
        let rests: Vec<_> = (0..6).map(|step| strike(&mut cooldown, later(step))).collect();
        assert_eq!(rests, [5, 10, 20, 40, 60, 60]);
        cooldown.forgive();
        assert_eq!(strike(&mut cooldown, later(6)), 5);
    }

    #[test]
    fn what_fails_together_counts_once() {
        let (mut cooldown, now) = (Cooldown::default(), Instant::now());
        let turn = cooldown.turn();
        for _ in 0..100 {
            cooldown.failed(turn, now, RESTS);
        }
        assert_eq!(cooldown.left(now), Some(RESTS.first));
    }

    #[test]
    fn the_first_ones_may_be_free() {
        let (mut cooldown, now) = (Cooldown::default(), Instant::now());
        let rests = Rests { free: 1, ..RESTS };
        cooldown.failed(cooldown.turn(), now, rests);
        assert_eq!(cooldown.left(now), None);
        cooldown.failed(cooldown.turn(), now, rests);
        assert_eq!(cooldown.left(now), Some(RESTS.first));
    }

    #[test]
    fn a_new_failure_never_shortens_a_rest() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut cooldown, mut now) = (Cooldown::default(), Instant::now());
            let mut end = now;
            for _ in 0..200 {
                now += Duration::from_millis(random.u64(0..20_000));
                let turn = cooldown.turn().saturating_sub(random.u64(0..2));
                match random.u8(0..5) {
                    0 => cooldown.at_least(now + Duration::from_secs(random.u64(0..100))),
                    1 => cooldown.extend(now, RESTS),
                    2 => cooldown.forgive(),
                    _ => cooldown.failed(turn, now, RESTS),
                }
                let ends = now + cooldown.left(now).unwrap_or_default();
                assert!(ends >= end, "seed {seed}");
                end = ends;
            }
        }
    }
}
