//! Which of several good keys a call uses.
//!
//! Invariants:
//! - Calls are spread in proportion to what is left of each key's allowance, so
//!   that all of them run out together and not one after the other.
//! - A key that is known to have nothing left is used only if all are.
//! - Of keys that nothing is known of, the one with the least to do is used,
//!   and among equals the one that was used longest ago.

/// A key that may be used, and what is known of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Candidate {
    pub key: usize,
    pub in_flight: u32,
    /// Calls and tokens left; absent while unknown.
    pub requests: Option<u64>,
    pub tokens: Option<u64>,
    /// Greater for a key that was used later.
    pub used: u64,
}

/// `chance` is from 0 to 1.
pub fn pick(candidates: &[Candidate], chance: f64) -> Option<usize> {
    let known = candidates.iter().any(|one| one.requests.is_some() || one.tokens.is_some());
    let weights: Vec<f64> = candidates.iter().map(|one| weight(one, candidates)).collect();
    let sum: f64 = weights.iter().sum();
    if !known || sum <= 0.0 {
        let least = candidates.iter().min_by_key(|one| (one.in_flight, one.used));
        return least.map(|one| one.key);
    }
    let mut at = chance.clamp(0.0, 1.0) * sum;
    for (candidate, weight) in candidates.iter().zip(&weights) {
        at -= weight;
        if at < 0.0 {
            return Some(candidate.key);
        }
    }
    let usable = candidates.iter().zip(&weights).rev().find(|(_, weight)| **weight > 0.0);
    usable.map(|(candidate, _)| candidate.key)
}

/// What is left of the scarcer of both allowances, as a share of the best
/// candidate's; calls in flight are not yet in what the provider told.
fn weight(one: &Candidate, all: &[Candidate]) -> f64 {
    let left = |one: &Candidate| one.requests.map(|left| left.saturating_sub(one.in_flight.into()));
    let requests = share(left(one), all.iter().filter_map(left).max());
    let tokens = share(one.tokens, all.iter().filter_map(|other| other.tokens).max());
    requests.min(tokens) / (1.0 + f64::from(one.in_flight))
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
fn share(left: Option<u64>, most: Option<u64>) -> f64 {
    match (left, most) {
        // Nothing is known against it, and using it is how to know.
        (None, _) | (_, None) => 1.0,
        (Some(left), Some(most)) => left as f64 / most.max(1) as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(key: usize, requests: Option<u64>) -> Candidate {
        Candidate { key, requests, ..Candidate::default() }
    }

    fn counts(candidates: &[Candidate]) -> [usize; 3] {
        let mut counts = [0; 3];
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..3000 {
            counts[pick(candidates, random.f64()).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn calls_follow_what_is_left() {
        let spread = counts(&[with(0, Some(100)), with(1, Some(200)), with(2, Some(0))]);
        assert!((900..1100).contains(&spread[0]) && spread[2] == 0, "{spread:?}");
        let all_out = counts(&[with(0, Some(0)), with(1, Some(0)), with(2, Some(0))]);
        assert_eq!(all_out[0], 3000, "somebody has to find out whether it still is so");
    }

    #[test]
    fn the_scarcer_allowance_counts_and_the_unknown_is_tried() {
        let poor = Candidate { tokens: Some(0), ..with(0, Some(1000)) };
        let rich = Candidate { tokens: Some(1000), ..with(1, Some(1000)) };
        assert_eq!(counts(&[poor, rich])[0], 0);
        let spread = counts(&[with(0, Some(50)), with(1, None)]);
        assert!((1300..1700).contains(&spread[1]), "{spread:?}");
    }

    #[test]
    fn without_knowledge_the_least_busy_one_then_the_one_that_waited_longest() {
        let one = |key, in_flight, used| Candidate { key, in_flight, used, ..with(key, None) };
        assert_eq!(pick(&[one(0, 1, 1), one(1, 0, 9)], 0.5), Some(1));
        assert_eq!(pick(&[one(0, 1, 8), one(1, 1, 9)], 0.5), Some(0));
        assert_eq!(pick(&[], 0.5), None);
    }

    #[test]
    fn what_is_in_flight_is_spent_already() {
        let busy = Candidate { in_flight: 9, ..with(0, Some(10)) };
        assert!(weight(&busy, &[busy, with(1, Some(10))]) < 0.02);
    }
}
