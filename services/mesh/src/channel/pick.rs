//! Which machine gets a call: the nearest region that has a usable one, and in
//! it the cheaper of two random machines.
//!
//! Two choices instead of the cheapest of all: callers that share the same view
//! would otherwise all run to the same machine.
//!
//! Invariants:
//! - Our own region comes before every other, others by measured round trip.
//! - Ejection never takes the last one: when no machine is usable, all are.
//! - Machines of nearly the same cost share the calls evenly.
//! - The machine that has just failed is chosen only when there is no other.

use super::Machine;
use tokio::time::Instant;

/// How many times dearer the first choice must be for the second to be taken.
/// One call more in flight is enough, a little latency is not.
const WORTH: f64 = 1.4;

/// What the choice needs to know of a machine.
pub(super) struct Candidate<'a> {
    pub(super) region: &'a str,
    /// Round trip in seconds.
    pub(super) rtt: f64,
    pub(super) usable: bool,
    /// It has just failed this very call.
    pub(super) failed: bool,
    pub(super) cost: f64,
}

/// `method` is the index of the method to be called; `not` has just failed it.
pub(super) fn pick(
    set: &[Machine],
    region: &str,
    method: usize,
    not: Option<&Machine>,
) -> Option<Machine> {
    if let [only] = set {
        return only.is_connected().then(|| only.clone());
    }
    let set: Vec<_> = set.iter().filter(|machine| machine.is_connected()).collect();
    let now = Instant::now();
    // A machine without history is taken to be as slow as the slowest known.
    let known = set.iter().filter_map(|machine| machine.load().latency(method, now));
    let typical = known.fold(0.001, f64::max);
    let candidates: Vec<_> = set
        .iter()
        .map(|machine| Candidate {
            region: machine.region(),
            rtt: machine.rtt().as_secs_f64(),
            usable: machine.load().is_usable(now),
            failed: not.is_some_and(|not| not.addr() == machine.addr()),
            cost: machine.load().cost(method, typical, now),
        })
        .collect();
    set.get(choose(&candidates, region)?).map(|machine| Machine::clone(machine))
}

/// The index of the one to call.
fn choose(candidates: &[Candidate<'_>], region: &str) -> Option<usize> {
    let all = 0..candidates.len();
    let tier = [
        |candidate: &Candidate<'_>| candidate.usable && !candidate.failed,
        |candidate: &Candidate<'_>| !candidate.failed,
        |_: &Candidate<'_>| true,
    ]
    .iter()
    .map(|fits| all.clone().filter(|at| fits(&candidates[*at])).collect::<Vec<_>>())
    .find(|tier| !tier.is_empty())?;
    let nearest = nearest(candidates, &tier, region)?;
    let choice: Vec<_> = tier.into_iter().filter(|at| candidates[*at].region == nearest).collect();
    let a = fastrand::usize(..choice.len());
    let b = (a + 1 + fastrand::usize(..choice.len().max(2) - 1)) % choice.len();
    let (a, b) = (choice[a], choice[b]);
    let dearer = candidates[a].cost > candidates[b].cost * WORTH;
    Some(if dearer { b } else { a })
}

fn nearest<'a>(candidates: &[Candidate<'a>], tier: &[usize], region: &str) -> Option<&'a str> {
    let of = |at: &usize| &candidates[*at];
    if let Some(own) = tier.iter().map(of).find(|candidate| candidate.region == region) {
        return Some(own.region);
    }
    let nearest = tier.iter().map(of).min_by(|a, b| a.rtt.total_cmp(&b.rtt))?;
    Some(nearest.region)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(region: &str, rtt: f64, cost: f64) -> Candidate<'_> {
        Candidate { region, rtt, usable: true, failed: false, cost }
    }

    /// Which ones are chosen in many tries.
    fn chosen(candidates: &[Candidate<'_>]) -> Vec<usize> {
        let mut seen: Vec<_> = (0..200).filter_map(|_| choose(candidates, "iad")).collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    #[test]
    fn own_region_first_then_the_nearest() {
        let mut set = [at("nrt", 0.1, 1.0), at("iad", 0.9, 9.0), at("ewr", 0.01, 5.0)];
        assert_eq!(chosen(&set), [1], "however expensive or far it seems");
        set[1].usable = false;
        assert_eq!(chosen(&set), [2]);
        set[2].failed = true;
        assert_eq!(chosen(&set), [0]);
    }

    #[test]
    fn the_cheaper_of_two_and_never_the_dearest_of_many() {
        let set = [at("iad", 0.0, 1.0), at("iad", 0.0, 2.0)];
        assert_eq!(chosen(&set), [0]);
        let set = [at("iad", 0.0, 1.0), at("iad", 0.0, 2.0), at("iad", 0.0, 4.0)];
        assert_eq!(chosen(&set), [0, 1]);
        let set = [at("iad", 0.0, 1.0), at("iad", 0.0, 1.3)];
        assert_eq!(chosen(&set), [0, 1], "a little dearer is as good");
    }

    #[test]
    fn nobody_usable_means_everybody_and_the_failed_one_only_alone() {
        let mut set = [at("iad", 0.0, 1.0), at("iad", 0.0, 1.0)];
        (set[0].usable, set[1].usable) = (false, false);
        assert_eq!(chosen(&set), [0, 1]);
        set[0].failed = true;
        assert_eq!(chosen(&set), [1]);
        assert_eq!(chosen(&set[..1]), [0]);
        assert_eq!(choose(&[], "iad"), None);
    }
}
