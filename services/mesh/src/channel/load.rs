//! How loaded a machine is, as its callers see it: calls in flight, latency,
//! and whether it should be left alone for a while.
//!
//! The cost of one more call is *peak-EWMA latency x (in flight + 1)*, after
//! Finagle and linkerd: a slow answer is believed at once, a fast one only over
//! time. Latency is kept per method: otherwise one long completion would make a
//! machine look slow for every small call.
//!
//! Invariants:
//! - In-flight calls are counted to the end of the response body.
//! - A machine that is new or comes back starts expensive and becomes cheap
//!   within two seconds: that is slow start.
//! - One slow answer makes a machine at most four times as expensive, and what
//!   is below a millisecond is noise: it would starve a machine for its cold
//!   first answer.

use crate::methods;
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Time in which an old latency loses most of its weight.
const DECAY: Duration = Duration::from_secs(5);
/// Seconds of latency below which no difference matters.
const NOISE: f64 = 0.001;
/// What a machine that has just joined costs, as a multiple.
const NEW: f64 = 16.0;
/// Time in which what is left of that halves: 1.06 after two seconds.
const RAMP: Duration = Duration::from_millis(250);
/// A slow answer counts at most this many times the latency known before.
const PEAK: f64 = 4.0;
/// Failures in a row that make an outlier.
const OUTLIER: u32 = 5;
const FIRST_EJECTION: Duration = Duration::from_secs(1);
const LONGEST_EJECTION: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Load {
    in_flight: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// By [`methods::Method::index`].
    latency: Box<[Ewma]>,
    joined: Instant,
    /// It did not answer when asked whether it lives.
    suspect: bool,
    failures: u32,
    ejections: u32,
    avoid_until: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Ewma {
    seconds: f64,
    at: Instant,
}

impl Load {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let state = State {
            latency: vec![Ewma { seconds: 0.0, at: now }; methods::count()].into(),
            joined: now,
            suspect: false,
            failures: 0,
            ejections: 0,
            avoid_until: now,
        };
        Self { in_flight: AtomicUsize::new(0), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether it should be called while there are others.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        let state = self.state();
        !state.suspect && state.avoid_until <= now
    }

    /// Expected latency of a method in seconds, if it has been called lately.
    pub(super) fn latency(&self, method: usize, now: Instant) -> Option<f64> {
        let state = self.state();
        let known = state.latency.get(method).filter(|known| known.seconds > 0.0)?;
        Some(known.seconds * weight(now - known.at))
    }

    /// What one more call costs; `typical` stands in for a latency not known.
    pub(super) fn cost(&self, method: usize, typical: f64, now: Instant) -> f64 {
        let latency = self.latency(method, now).unwrap_or(typical).max(NOISE);
        let since = (now - self.state().joined).as_secs_f64();
        let slow_start = 1.0 + (NEW - 1.0) * 0.5_f64.powf(since / RAMP.as_secs_f64());
        latency * slow_start * (self.in_flight() + 1) as f64
    }

    pub(super) fn answered(&self, method: usize, took: Duration, now: Instant) {
        let mut state = self.state();
        state.failures = 0;
        if now > state.avoid_until + LONGEST_EJECTION {
            state.ejections = 0;
        }
        let Some(known) = state.latency.get_mut(method) else { return };
        let took = took.as_secs_f64();
        let weight = weight(now - known.at);
        known.seconds = if known.seconds == 0.0 {
            took
        } else if took > known.seconds {
            took.min(known.seconds * PEAK)
        } else {
            known.seconds * weight + took * (1.0 - weight)
        };
        known.at = now;
    }

    /// An answer that says the machine is broken. Says whether it is now ejected.
    pub(super) fn failed(&self, now: Instant) -> bool {
        let mut state = self.state();
        state.failures += 1;
        let ejected = state.failures >= OUTLIER;
        if ejected {
            let span = FIRST_EJECTION * (1 << state.ejections.min(5));
            state.failures = 0;
            state.ejections += 1;
            state.avoid(now + span.min(LONGEST_EJECTION));
        }
        ejected
    }

    /// It has asked to be left alone.
    pub(super) fn busy(&self, span: Duration, now: Instant) {
        let until = now + span.min(LONGEST_EJECTION);
        self.state().avoid_until = until;
    }

    /// Whether it shows signs of life. Says whether that is news.
    pub(super) fn set_suspect(&self, suspect: bool, now: Instant) -> bool {
        let mut state = self.state();
        let news = state.suspect != suspect;
        state.suspect = suspect;
        if news && !suspect {
            state.joined = now;
        }
        news
    }
}

impl State {
    /// Leaves the machine alone until then, and starts slowly after that.
    fn avoid(&mut self, until: Instant) {
        self.avoid_until = until;
        self.joined = until;
    }
}

fn weight(age: Duration) -> f64 {
    (-age.as_secs_f64() / DECAY.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHOD: usize = 0;
    const TYPICAL: f64 = NOISE;
    const MS: Duration = Duration::from_millis(1);

    /// A machine that joined long ago.
    fn settled() -> (Load, Instant) {
        let now = Instant::now();
        (Load::new(), now + 10 * Duration::from_secs(1))
    }

    #[test]
    fn busy_and_slow_machines_cost_more() {
        let (load, now) = settled();
        load.answered(METHOD, 2 * MS, now);
        let idle = load.cost(METHOD, TYPICAL, now);
        load.begin();
        assert!((load.cost(METHOD, TYPICAL, now) / idle - 2.0).abs() < 1e-9);
        load.end();
        load.answered(METHOD, 6 * MS, now);
        assert!((load.cost(METHOD, TYPICAL, now) / idle - 3.0).abs() < 1e-9);
        assert!(load.cost(METHOD + 1, TYPICAL, now) < idle, "other methods are not slower");
    }

    #[test]
    fn one_slow_answer_is_believed_in_part_and_forgotten_in_time() {
        let (load, now) = settled();
        load.answered(METHOD, MS, now);
        load.answered(METHOD, 60_000 * MS, now);
        let after = load.latency(METHOD, now).unwrap();
        assert!((after - 0.004).abs() < 1e-9, "{after}");
        let later = now + 3 * DECAY;
        assert!(load.latency(METHOD, later).unwrap() < 0.0004);
        load.answered(METHOD, MS, later);
        assert!(load.latency(METHOD, later).unwrap() < 0.0012);
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_joins_starts_slowly() {
        let load = Load::new();
        let cost = |after: Duration| load.cost(METHOD, TYPICAL, Instant::now() + after) / TYPICAL;
        let ramp = [0, 250, 500, 1000, 2000].map(|ms| cost(ms * MS));
        assert!((ramp[0] - 16.0).abs() < 1e-9 && (ramp[1] - 8.5).abs() < 1e-9, "{ramp:?}");
        assert!(ramp.is_sorted_by(|a, b| a > b) && ramp[4] < 1.1, "{ramp:?}");
    }

    #[test]
    fn an_outlier_is_left_alone_for_longer_each_time_and_then_starts_slowly() {
        let (load, now) = settled();
        for _ in 0..4 {
            assert!(!load.failed(now));
        }
        load.answered(METHOD, MS, now);
        for _ in 0..4 {
            assert!(!load.failed(now), "an answer in between starts the count anew");
        }
        assert!(load.failed(now) && !load.is_usable(now));
        let back = now + FIRST_EJECTION;
        assert!(load.is_usable(back));
        assert!(load.cost(METHOD, TYPICAL, back) > 10.0 * TYPICAL.max(0.001));
        for _ in 0..OUTLIER {
            load.failed(back);
        }
        assert!(
            !load.is_usable(back + FIRST_EJECTION) && load.is_usable(back + 2 * FIRST_EJECTION)
        );
    }

    #[test]
    fn a_suspect_is_not_used_until_it_lives_again() {
        let (load, now) = settled();
        assert!(load.set_suspect(true, now) && !load.set_suspect(true, now));
        assert!(!load.is_usable(now + LONGEST_EJECTION));
        assert!(load.set_suspect(false, now) && load.is_usable(now));
    }
}
