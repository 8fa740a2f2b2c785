//! What is known of one key, of one model with it, and whether a call may use
//! them now.

use super::{
    breaker::{Breaker, State},
    cooldown::Cooldown,
    report::Mood,
};
use crate::{error::Failure, provider::Quota};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// How long what is left is known to be so, where nobody says when it is full
/// again; and at least how long it is, because to count in milliseconds is idle.
const QUOTA_AGE: Duration = Duration::from_secs(60);
const LEAST_AGE: Duration = Duration::from_secs(1);

pub struct Key {
    pub label: Arc<str>,
    pub in_flight: u32,
    /// Greater for a key that was used later.
    pub used: u64,
    /// It is none of the provider's.
    pub refused: Cooldown,
    /// Nothing is left to spend on it.
    pub spent: Cooldown,
    pub good: Option<Instant>,
    /// What was last said of it in the log.
    pub told: Option<Failure>,
}

/// A model with each key.
pub struct Model {
    pub cells: Vec<Cell>,
    /// When its last whole answer came.
    pub good: Option<Instant>,
    pub used: Instant,
}

#[derive(Clone, Default)]
pub struct Cell {
    pub breaker: Breaker,
    /// Too many calls.
    pub limited: Cooldown,
    /// Too many calls, and no word on when to come back.
    pub unsaid: Cooldown,
    /// The key may not use this model.
    pub forbidden: Cooldown,
    pub quota: Quota,
    pub heard: Option<Instant>,
    /// What was last said of the breaker, for telling every change once.
    pub told: Mood,
}

/// Whether a key may be used for a model now; if not, for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Good,
    /// Calls have failed.
    Failing(Duration),
    /// The provider wants to be left alone.
    Told(Duration, Failure),
    /// The provider wants nothing to do with it.
    Refused(Duration, Failure),
}

impl Key {
    /// For how long and why it is used for no model.
    pub fn useless(&self, now: Instant) -> Option<(Duration, Failure)> {
        let refused = self.refused.left(now).map(|left| (left, Failure::Unauthenticated));
        refused.or_else(|| self.spent.left(now).map(|left| (left, Failure::Quota)))
    }
}

impl Standing {
    pub fn of(now: Instant, key: &Key, cell: Option<&Cell>) -> Self {
        let spent = key.spent.left(now).map(|left| (left, Failure::Quota));
        let limited = cell.and_then(|cell| cell.limited.left(now));
        let limited = limited.map(|left| (left, Failure::RateLimited { retry_after: Some(left) }));
        if let Some((left, failure)) = spent.into_iter().chain(limited).max_by_key(|one| one.0) {
            return Self::Told(left, failure);
        }
        let refused = key.refused.left(now).map(|left| (left, Failure::Unauthenticated));
        let forbidden = cell.and_then(|cell| cell.forbidden.left(now));
        let forbidden = forbidden.map(|left| (left, Failure::Forbidden));
        let open = cell.and_then(|cell| match cell.breaker.state(now) {
            State::Open(left) => Some(left),
            State::HalfOpen { probing: true } => Some(Duration::ZERO),
            State::HalfOpen { probing: false } | State::Closed => None,
        });
        match (refused.or(forbidden), open) {
            (Some((left, failure)), _) => Self::Refused(left, failure),
            (None, Some(left)) => Self::Failing(left),
            (None, None) => Self::Good,
        }
    }

    pub const fn failing(self) -> Option<Duration> {
        match self {
            Self::Failing(left) => Some(left),
            Self::Good | Self::Told(..) | Self::Refused(..) => None,
        }
    }

    pub const fn told(self) -> Option<(Duration, Failure)> {
        match self {
            Self::Told(left, failure) => Some((left, failure)),
            Self::Good | Self::Failing(_) | Self::Refused(..) => None,
        }
    }

    pub const fn refused(self) -> Option<Duration> {
        match self {
            Self::Refused(left, _) => Some(left),
            Self::Good | Self::Failing(_) | Self::Told(..) => None,
        }
    }
}

impl Cell {
    /// What is left of the allowance, until it is full again.
    pub fn quota(&self, now: Instant) -> Option<Quota> {
        let age = now.saturating_duration_since(self.heard?);
        (age < self.quota.resets.unwrap_or(QUOTA_AGE).max(LEAST_AGE)).then_some(self.quota)
    }
}
