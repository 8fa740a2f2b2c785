//! The memory that request bodies may take, so that many large ones at once are
//! refused and not the end of the process. How many requests there may be is
//! counted by [`mesh::load`].
//!
//! Invariants:
//! - At most `most` bytes of bodies are in memory; each counts until its call
//!   has been passed on.
//! - What is refused is refused at once: a queue of bodies would be memory too.

use mesh::{error::DOMAIN, load::OVERLOADED};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Long enough for a machine to be woken, short enough for somebody to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A JSON body is in memory up to three times until it is passed on: text, tree
/// and message. So an eighth is three eighths at the worst.
const PART: u64 = 8;

/// What bodies may take of `memory` bytes; one of `max_body` always fits.
pub fn part_of(memory: u64, max_body: u64) -> u64 {
    (memory / PART).max(max_body)
}

/// Cheap to clone; clones count together.
#[derive(Clone)]
pub struct Bodies(Arc<Gauge>);

struct Gauge {
    most: u64,
    taken: AtomicU64,
}

/// Room that is taken until this is dropped.
pub struct Room {
    gauge: Arc<Gauge>,
    taken: AtomicU64,
}

impl Bodies {
    pub fn new(most: u64) -> Self {
        Self(Arc::new(Gauge { most, taken: AtomicU64::new(0) }))
    }

    /// Room for a body, of which nothing is known yet.
    pub fn room(&self) -> Room {
        Room { gauge: Arc::clone(&self.0), taken: AtomicU64::new(0) }
    }
}

impl Room {
    /// Whether there is room for so much more, without taking it.
    pub fn fits(&self, more: u64) -> Result<(), Status> {
        let taken = self.gauge.taken.load(Ordering::Relaxed);
        let fits = taken.checked_add(more).is_some_and(|sum| sum <= self.gauge.most);
        if fits { Ok(()) } else { Err(overloaded()) }
    }

    pub fn grow(&self, more: u64) -> Result<(), Status> {
        let Gauge { most, taken } = &*self.gauge;
        let fits = |taken: u64| taken.checked_add(more).filter(|sum| sum <= most);
        if taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return Err(overloaded());
        }
        self.taken.fetch_add(more, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.gauge.taken.fetch_sub(*self.taken.get_mut(), Ordering::Relaxed);
    }
}

fn overloaded() -> Status {
    metrics::counter!("skein_gateway_no_room_total").increment(1);
    let message = "this gateway has no room for more request bytes now: try again soon";
    let mut details = ErrorDetails::with_error_info(OVERLOADED, DOMAIN, []);
    details.set_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// The memory this process may use: its control group's, or the machine's.
pub fn memory() -> u64 {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.max");
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kibibytes.checked_mul(1024)
    });
    let known = [group, machine].into_iter().flatten().min();
    // Where neither can be read: the smallest machine Fly rents.
    known.unwrap_or(256 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_and_comes_back() {
        let bodies = Bodies::new(100);
        let (one, other) = (bodies.room(), bodies.room());
        one.grow(60).unwrap();
        let refused = other.grow(41).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(mesh::error::retry_after(&refused), Some(RETRY_AFTER));
        assert!(other.fits(40).is_ok() && other.fits(41).is_err());
        assert!(other.grow(40).is_ok() && other.grow(1).is_err());
        drop(one);
        assert!(other.grow(60).is_ok() && other.grow(u64::MAX).is_err());
    }

    #[test]
    fn a_small_machine_has_room_for_one_whole_body() {
        assert_eq!(part_of(256 << 20, 32 << 20), 32 << 20);
        assert_eq!(part_of(2 << 30, 32 << 20), 256 << 20);
        assert!(memory() >= 64 << 20);
    }
}
