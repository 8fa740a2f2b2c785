//! What the private DNS may do instead of answering well, on demand.
//!
//! Invariants:
//! - A fault touches only the questions of its scope, and ends with its guard.
//! - Of several that fit, delays add up and the newest decides the answer.

use crate::dns::{Entry, Snapshot, Subject};
use serde::{Deserialize, Serialize};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// What happens to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    ServFail,
    /// The answer comes, this much later.
    Slow(Duration),
    /// What was true when the fault began is answered.
    Stale,
    /// No records, and no error; TXT lists are empty strings.
    Empty,
    /// Nothing is answered.
    Dropped,
}

/// The questions a fault is for; each narrowing makes them fewer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Names of one app, given by name or role.
    pub app: Option<String>,
    /// Names of one region, such as `nrt.skein-router.internal`.
    pub region: Option<String>,
    /// Questions of the machines of one region.
    pub asked_in: Option<String>,
}

impl Scope {
    /// Every question.
    pub fn everything() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn app(mut self, app: &str) -> Self {
        self.app = Some(app.to_owned());
        self
    }

    #[must_use]
    pub fn region(mut self, region: &str) -> Self {
        self.region = Some(region.to_owned());
        self
    }

    #[must_use]
    pub fn asked_in(mut self, region: &str) -> Self {
        self.asked_in = Some(region.to_owned());
        self
    }

    fn covers(&self, subject: &Subject<'_>, asker: &str) -> bool {
        let is = |wanted: &Option<String>, there: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| there == Some(wanted))
        };
        let app = self
            .app
            .as_deref()
            .is_none_or(|wanted| subject.app.is_some_and(|app| crate::fleet::is_app(app, wanted)));
        app && is(&self.region, subject.region) && is(&self.asked_in, Some(asker))
    }
}

/// What is to be done with one question.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) delay: Duration,
    pub(crate) effect: Option<Effect>,
}

#[derive(Clone, Debug)]
pub(crate) enum Effect {
    ServFail,
    Stale(Arc<Snapshot>),
    Empty,
    Dropped,
}

#[derive(Default)]
pub(crate) struct Faults(Mutex<Active>);

#[derive(Default)]
struct Active {
    next: u64,
    faults: Vec<(u64, Scope, Fault, Arc<Snapshot>)>,
    ghosts: Vec<(u64, Entry)>,
}

impl Faults {
    /// `now`: what a stale answer goes on to say.
    pub(crate) fn add(self: &Arc<Self>, scope: Scope, fault: Fault, now: Snapshot) -> FaultGuard {
        self.guard(|active, id| active.faults.push((id, scope, fault, Arc::new(now))))
    }

    /// An app's name that leads to another app's machine.
    pub(crate) fn haunt(self: &Arc<Self>, ghost: Entry) -> FaultGuard {
        self.guard(|active, id| active.ghosts.push((id, ghost)))
    }

    pub(crate) fn ghosts(&self) -> Vec<Entry> {
        self.active().ghosts.iter().map(|(_, entry)| entry.clone()).collect()
    }

    pub(crate) fn clear(&self) {
        let mut active = self.active();
        active.faults.clear();
        active.ghosts.clear();
    }

    pub(crate) fn verdict(&self, subject: &Subject<'_>, asker: &str) -> Verdict {
        let mut verdict = Verdict::default();
        for (_, scope, fault, then) in &self.active().faults {
            if !scope.covers(subject, asker) {
                continue;
            }
            verdict.effect = Some(match fault {
                Fault::Slow(delay) => {
                    verdict.delay += *delay;
                    continue;
                }
                Fault::ServFail => Effect::ServFail,
                Fault::Stale => Effect::Stale(Arc::clone(then)),
                Fault::Empty => Effect::Empty,
                Fault::Dropped => Effect::Dropped,
            });
        }
        verdict
    }

    fn guard(self: &Arc<Self>, add: impl FnOnce(&mut Active, u64)) -> FaultGuard {
        let mut active = self.active();
        active.next += 1;
        let id = active.next;
        add(&mut active, id);
        FaultGuard { faults: Arc::clone(self), id }
    }

    fn active(&self) -> MutexGuard<'_, Active> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fault lasts until this is dropped, or until all faults are cleared.
#[must_use = "the fault ends when this is dropped"]
pub struct FaultGuard {
    faults: Arc<Faults>,
    id: u64,
}

impl FaultGuard {
    /// Lets the fault last until [`crate::Flynet::clear_dns_faults`].
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for FaultGuard {
    fn drop(&mut self) {
        let mut active = self.faults.active();
        active.faults.retain(|(id, ..)| *id != self.id);
        active.ghosts.retain(|(id, _)| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_touches_its_scope_alone_and_ends_with_its_guard() {
        let faults = Arc::new(Faults::default());
        let router = Subject { app: Some("a-router"), region: Some("nrt") };
        let other = Subject { app: Some("a-gateway"), region: Some("nrt") };
        let scope = Scope::everything().app("router").region("nrt").asked_in("iad");
        let guard = faults.add(scope, Fault::ServFail, Snapshot::default());
        assert!(faults.verdict(&router, "iad").effect.is_some());
        assert!(faults.verdict(&other, "iad").effect.is_none());
        assert!(faults.verdict(&router, "nrt").effect.is_none());
        assert!(faults.verdict(&Subject { region: None, ..router }, "iad").effect.is_none());
        drop(guard);
        assert!(faults.verdict(&router, "iad").effect.is_none());
    }

    #[test]
    fn delays_add_up_and_the_newest_answer_wins() {
        let faults = Arc::new(Faults::default());
        let second = Duration::from_secs(1);
        let add = |fault| faults.add(Scope::everything(), fault, Snapshot::default()).keep();
        for fault in [Fault::Slow(second), Fault::Empty, Fault::Slow(second), Fault::Dropped] {
            add(fault);
        }
        let subject = Subject { app: None, region: None };
        let verdict = faults.verdict(&subject, "iad");
        assert_eq!(verdict.delay, 2 * second);
        assert!(matches!(verdict.effect, Some(Effect::Dropped)));
        faults.clear();
        assert_eq!(faults.verdict(&subject, "iad").delay, Duration::ZERO);
    }
}
