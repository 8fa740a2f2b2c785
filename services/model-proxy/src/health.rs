//! Which key of a provider a call uses, and what is known of each.
//!
//! Invariant: every permit is settled, by what became of its call or by being
//! dropped.

use crate::{
    error::Error,
    provider::{Provider, Quota},
};
use std::{sync::Arc, time::Duration};

#[derive(Default)]
pub struct Health {}

/// What to do with a call now.
pub enum Choice {
    Go(Permit),
    /// Every key is known to be refused for so long.
    Wait(Duration),
}

/// The right to use key number `key` once.
pub struct Permit {
    pub key: usize,
    /// Nothing better is left: this try is not repeated.
    pub last_resort: bool,
}

impl Health {
    /// A key for a call of `model`; one that has failed this call already
    /// (`tried`) only if there is no other.
    pub fn choose(
        self: &Arc<Self>,
        provider: &dyn Provider,
        _model: &str,
        tried: &[usize],
    ) -> Choice {
        let count = provider.keys().len().max(1);
        let key = (0..count).find(|key| !tried.contains(key)).unwrap_or_default();
        Choice::Go(Permit { key, last_resort: false })
    }
}

impl Permit {
    /// The head of an answer has come.
    pub fn heard(&mut self, _quota: Quota) {}

    /// The call's answer is whole, or its caller has left without a fault of
    /// the provider.
    pub fn done(self) {}

    pub fn failed(self, _error: &Error) {}
}
