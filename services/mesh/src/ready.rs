//! Readiness: the process is ready when nobody holds a reason why not.
//!
//! Invariants:
//! - Ready means *I* can serve. A missing downstream is a degradation, shown
//!   with its reason; it never unreadies a process that has been ready once,
//!   or one lost model-proxy would take every gateway out of Fly's edge.
//! - The reasons are data: the health endpoint prints them.

use std::sync::Arc;
use tokio::sync::watch;

/// Why the process is not ready, and what it does without.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub waiting: Vec<String>,
    pub degraded: Vec<String>,
    /// Told to leave: not ready whatever else is true.
    pub draining: bool,
}

impl State {
    pub fn is_ready(&self) -> bool {
        self.waiting.is_empty() && !self.draining
    }
}

#[derive(Clone)]
pub struct Readiness(Arc<watch::Sender<State>>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(State::default())))
    }
}

/// Holds a reason until dropped.
#[must_use = "the reason is gone when this is dropped"]
pub struct Reason {
    of: Readiness,
    text: String,
    list: fn(&mut State) -> &mut Vec<String>,
}

impl Readiness {
    /// Not ready until the answer is dropped.
    pub fn wait_for(&self, reason: impl Into<String>) -> Reason {
        self.hold(reason.into(), |state| &mut state.waiting)
    }

    /// Ready, but without something, until the answer is dropped.
    pub fn degraded(&self, reason: impl Into<String>) -> Reason {
        self.hold(reason.into(), |state| &mut state.degraded)
    }

    pub fn drain(&self) {
        self.0.send_modify(|state| state.draining = true);
    }

    pub fn state(&self) -> State {
        self.0.borrow().clone()
    }

    pub fn watch(&self) -> watch::Receiver<State> {
        self.0.subscribe()
    }

    fn hold(&self, text: String, list: fn(&mut State) -> &mut Vec<String>) -> Reason {
        self.0.send_modify(|state| list(state).push(text.clone()));
        Reason { of: self.clone(), text, list }
    }
}

impl Drop for Reason {
    fn drop(&mut self) {
        self.of.0.send_modify(|state| {
            let reasons = (self.list)(state);
            if let Some(at) = reasons.iter().position(|reason| *reason == self.text) {
                reasons.swap_remove(at);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_last_reason_is_gone_and_a_degradation_is_none() {
        let readiness = Readiness::default();
        let (store, peers) = (readiness.wait_for("store"), readiness.wait_for("listener"));
        let _without = readiness.degraded("no model-proxy");
        assert!(!readiness.state().is_ready());
        drop(store);
        assert_eq!(readiness.state().waiting, ["listener"]);
        drop(peers);
        assert!(readiness.state().is_ready());
        readiness.drain();
        assert!(!readiness.state().is_ready());
    }
}
