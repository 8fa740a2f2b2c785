//! Fly Proxy's choices, as pure rules: which machine gets the next request or
//! connection, which stopped one is woken, and which running one is too many.
//!
//! Invariants:
//! - A region is left only when none of its machines is up and below its hard limit.
//! - The soft limit steers inside a region and decides about waking, nothing else.

use std::time::Duration;

/// A region's place in somebody's preference: named ones first, then by distance.
pub(crate) type Rank = (usize, Duration);

/// A machine, as the proxy sees it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) region: String,
    pub(crate) rank: Rank,
    /// Started, healthy, not cordoned, and to be reached.
    pub(crate) up: bool,
    /// To be started by the proxy.
    pub(crate) asleep: bool,
    pub(crate) load: usize,
    pub(crate) soft: usize,
    pub(crate) hard: Option<usize>,
}

/// The machine for one more; `taken` says which are out of the question.
pub(crate) fn pick(seen: &[Seen], taken: &dyn Fn(usize) -> bool) -> Option<usize> {
    let free = |machine: &Seen| machine.up && machine.hard.is_none_or(|hard| machine.load < hard);
    let fit = seen.iter().enumerate().filter(|(at, machine)| free(machine) && !taken(*at));
    let best = fit.min_by_key(|(_, machine)| {
        let steered = machine.load >= machine.soft;
        (machine.rank, &machine.region, steered, machine.load, fastrand::u32(..))
    });
    best.map(|(at, _)| at)
}

/// The machine to wake: in the first region that has any, when none is up there or
/// all that are up are above their soft limit.
pub(crate) fn wake(seen: &[Seen]) -> Option<usize> {
    let any = seen.iter().filter(|machine| machine.up || machine.asleep);
    let first = any.min_by_key(|machine| (machine.rank, &machine.region))?;
    let mut here = seen.iter().filter(|machine| machine.region == first.region);
    if here.any(|machine| machine.up && machine.load <= machine.soft) {
        return None;
    }
    seen.iter().position(|machine| machine.region == first.region && machine.asleep)
}

/// Of one region: the machine that one pass of the autostop loop stops.
pub(crate) fn surplus(here: &[Seen], least: usize) -> Option<usize> {
    let up = here.iter().filter(|machine| machine.up).count();
    let over = here.iter().filter(|machine| machine.up && machine.load > machine.soft).count();
    let idle = here.iter().all(|machine| machine.load == 0);
    let one_too_many = match up {
        0 => false,
        1 => idle,
        _ => up > over + 1,
    };
    if up <= least || !one_too_many {
        return None;
    }
    let up = here.iter().enumerate().filter(|(_, machine)| machine.up);
    up.min_by_key(|(_, machine)| machine.load).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Soft limit 2, hard limit 4.
    fn up(region: &str, place: usize, load: usize) -> Seen {
        Seen {
            region: region.to_owned(),
            rank: (place, Duration::ZERO),
            up: true,
            asleep: false,
            load,
            soft: 2,
            hard: Some(4),
        }
    }

    fn down(machine: Seen, asleep: bool) -> Seen {
        Seen { up: false, asleep, ..machine }
    }

    const ANY: &dyn Fn(usize) -> bool = &|_| false;

    #[test]
    fn a_region_is_left_only_when_full_or_down() {
        assert_eq!(pick(&[up("iad", 0, 3), up("nrt", 1, 0)], ANY), Some(0), "above soft");
        assert_eq!(pick(&[up("iad", 0, 4), up("nrt", 1, 0)], ANY), Some(1), "at hard");
        assert_eq!(pick(&[down(up("iad", 0, 0), false), up("nrt", 1, 3)], ANY), Some(1));
        assert_eq!(pick(&[up("iad", 0, 4), up("nrt", 1, 4)], ANY), None);
        assert_eq!(pick(&[up("iad", 0, 1), up("iad", 0, 0)], ANY), Some(1), "least loaded");
        assert_eq!(pick(&[up("iad", 0, 1), up("iad", 0, 0)], &|at| at == 1), Some(0));
        let unlimited = Seen { hard: None, ..up("iad", 0, 1000) };
        assert_eq!(pick(&[unlimited, up("nrt", 1, 0)], ANY), Some(0));
    }

    #[test]
    fn one_is_woken_when_none_is_up_or_all_are_above_soft() {
        let asleep = |region, place| down(up(region, place, 0), true);
        assert_eq!(wake(&[asleep("iad", 0)]), Some(0));
        assert_eq!(wake(&[up("iad", 0, 2), asleep("iad", 0)]), None, "at soft is not above it");
        assert_eq!(wake(&[up("iad", 0, 3), asleep("iad", 0)]), Some(1));
        assert_eq!(wake(&[up("iad", 0, 3), up("iad", 0, 1), asleep("iad", 0)]), None);
        assert_eq!(wake(&[up("nrt", 1, 0), asleep("iad", 0)]), Some(1), "the nearer region");
        assert_eq!(wake(&[up("iad", 0, 0), asleep("nrt", 1)]), None);
        assert_eq!(wake(&[down(up("iad", 0, 0), false)]), None);
    }

    #[test]
    fn a_pass_stops_one_of_those_that_are_too_many() {
        assert_eq!(surplus(&[up("iad", 0, 0)], 0), Some(0));
        assert_eq!(surplus(&[up("iad", 0, 0)], 1), None, "min_machines_running");
        assert_eq!(surplus(&[up("iad", 0, 1)], 0), None, "busy");
        assert_eq!(surplus(&[up("iad", 0, 1), up("iad", 0, 0)], 0), Some(1));
        assert_eq!(surplus(&[up("iad", 0, 3), up("iad", 0, 0)], 0), None, "3 - (1 over + 1) = 0");
        assert_eq!(surplus(&[up("iad", 0, 3), up("iad", 0, 0), up("iad", 0, 1)], 0), Some(1));
        assert_eq!(surplus(&[down(up("iad", 0, 0), true)], 0), None);
    }
}
