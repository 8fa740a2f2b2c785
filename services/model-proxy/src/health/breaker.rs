//! Whether a model answers with a key of its provider: closed while it does,
//! open while it is left alone, half-open while one call finds out.
//!
//! Invariants:
//! - At most one call at a time probes; whatever becomes of it, the next may.
//! - A call that began before the breaker last opened changes nothing: it tells
//!   of what is known already.
//! - It opens on failures alone; see [`Failure::is_outage`].

use super::cooldown::{Cooldown, Rests};
use crate::error::Failure;
use std::time::Duration;
use tokio::time::Instant;

/// When it opens, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Failures in a row.
    pub in_a_row: u32,
    pub rests: Rests,
}

/// Half of at least so many calls in the window.
const ENOUGH: u32 = 20;
const BUCKET: Duration = Duration::from_secs(5);
/// Half a minute of buckets.
const BUCKETS: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Closed,
    Open(Duration),
    HalfOpen { probing: bool },
}

/// A call, as the breaker that let it through knows it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ticket {
    turn: u64,
    probe: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Breaker {
    rest: Cooldown,
    opened: bool,
    probing: bool,
    in_a_row: u32,
    window: Window,
    /// What it opened on: so many failures, the last of them this one.
    cause: Option<(u32, Failure)>,
}

impl Breaker {
    pub fn state(&self, now: Instant) -> State {
        match (self.opened, self.rest.left(now)) {
            (false, _) => State::Closed,
            (true, Some(left)) => State::Open(left),
            (true, None) => State::HalfOpen { probing: self.probing },
        }
    }

    /// Why it is not closed.
    pub fn cause(&self) -> Option<(u32, Failure)> {
        self.cause.filter(|_| self.opened)
    }

    /// Lets a call through, whoever decided so.
    pub fn admit(&mut self, now: Instant) -> Ticket {
        let probe = self.state(now) == State::HalfOpen { probing: false };
        self.probing |= probe;
        Ticket { turn: self.rest.turn(), probe }
    }

    /// The first of an answer is there.
    pub fn began(&mut self, ticket: Ticket) {
        if self.is_fresh(ticket) {
            self.close();
        }
    }

    /// The answer is whole.
    pub fn succeeded(&mut self, ticket: Ticket, now: Instant) {
        if self.is_fresh(ticket) {
            self.close();
            self.in_a_row = 0;
            self.rest.forgive();
            self.window.add(now, false);
        }
    }

    pub fn failed(&mut self, ticket: Ticket, failure: Failure, now: Instant, rules: Rules) {
        if !self.is_fresh(ticket) {
            return;
        }
        if ticket.probe {
            self.probing = false;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.window.add(now, true);
        let (calls, failures) = self.window.sum(now);
        let too_many = calls >= ENOUGH && failures * 2 >= calls;
        if self.opened && !ticket.probe {
            // Let through because nothing better was left.
            self.rest.extend(now, rules.rests);
        } else if self.opened || self.in_a_row >= rules.in_a_row || too_many {
            self.opened = true;
            self.probing = false;
            self.cause = Some((self.in_a_row.max(failures), failure));
            self.rest.strike(now, rules.rests);
        }
    }

    /// The call has ended without saying anything of the provider.
    pub fn left(&mut self, ticket: Ticket) {
        if self.is_fresh(ticket) && ticket.probe {
            self.probing = false;
        }
    }

    const fn is_fresh(&self, ticket: Ticket) -> bool {
        ticket.turn == self.rest.turn()
    }

    fn close(&mut self) {
        if self.opened {
            self.opened = false;
            self.probing = false;
            self.in_a_row = 0;
            self.window = Window::default();
        }
    }
}

/// Calls and failures of the last half minute.
#[derive(Clone, Debug, Default)]
struct Window {
    buckets: [(u32, u32); BUCKETS],
    /// When the first of them began.
    begun: Option<Instant>,
}

impl Window {
    fn add(&mut self, now: Instant, failed: bool) {
        self.turn(now);
        let (calls, failures) = &mut self.buckets[0];
        *calls = calls.saturating_add(1);
        *failures = failures.saturating_add(u32::from(failed));
    }

    fn sum(&mut self, now: Instant) -> (u32, u32) {
        self.turn(now);
        let add = |sum: (u32, u32), one: &(u32, u32)| {
            (sum.0.saturating_add(one.0), sum.1.saturating_add(one.1))
        };
        self.buckets.iter().fold((0, 0), add)
    }

    fn turn(&mut self, now: Instant) {
        let begun = *self.begun.get_or_insert(now);
        let passed = now.saturating_duration_since(begun).as_secs() / BUCKET.as_secs();
        for _ in 0..passed.min(BUCKETS as u64) {
            self.buckets.rotate_right(1);
            self.buckets[0] = (0, 0);
        }
        self.begun = Some(begun + BUCKET * u32::try_from(passed).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
