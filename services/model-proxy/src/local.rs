//! The embedded models: no key, no account, no network.
//!
//! Invariants:
//! - Computing happens on threads of its own; a runtime thread never waits.
//! - A model whose files are not here is not listed; calling it says what to run.
//! - Nothing is cut silently: an input over a model's limit is an error.

#[cfg(feature = "local")]
mod engine;
pub mod extractive;
#[cfg(feature = "local")]
mod minilm;
#[cfg(feature = "local")]
mod queue;
mod sentences;
#[cfg(feature = "local")]
mod smollm2;
mod terms;

#[cfg(feature = "local")]
pub use engine::Engine;
