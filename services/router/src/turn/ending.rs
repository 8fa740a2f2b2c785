//! What can end a run from outside: cancel, shutdown, timeout.
//!
//! Invariant: only waiting for others is cut short, never a commit, so that the
//! log has no event whose writer does not know of it.

use super::{Stop, failure};
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

#[derive(Clone)]
pub struct Ending {
    /// Somebody asked for it.
    pub cancel: CancellationToken,
    /// The process goes.
    pub shutdown: CancellationToken,
    pub deadline: Instant,
    pub timeout: Duration,
}

impl Ending {
    /// The outcome of `waiting`, unless the run is to end first.
    pub async fn unless<F: Future>(&self, waiting: F) -> Result<F::Output, Stop> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Stop::Cancelled),
            () = self.shutdown.cancelled() => {
                Err(Stop::Failed(failure("INTERRUPTED", "the machine was stopped")))
            }
            () = tokio::time::sleep_until(self.deadline) => {
                let text = format!("the run took longer than its {:?}", self.timeout);
                Err(Stop::Failed(failure("DEADLINE_EXCEEDED", &text)))
            }
            outcome = waiting => Ok(outcome),
        }
    }
}
