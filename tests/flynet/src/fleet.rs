//! The machines of a network, as they are now: `scale` adds and destroys them.
//!
//! Invariants:
//! - A reader sees one whole set, never one that is being changed.
//! - An id names one machine for as long as the network lives.

use crate::{error::Error, machine::Machine};
use std::sync::Arc;
use tokio::sync::watch;

pub(crate) type Machines = Arc<[Arc<Machine>]>;

#[derive(Default)]
pub(crate) struct Fleet {
    machines: watch::Sender<Machines>,
}

impl Fleet {
    pub(crate) fn all(&self) -> Machines {
        Arc::clone(&self.machines.borrow())
    }

    /// Those of one app, by its full name.
    pub(crate) fn of(&self, app: &str) -> Vec<Arc<Machine>> {
        self.all().iter().filter(|machine| machine.app == app).cloned().collect()
    }

    /// By id, app name, or role (the app's suffix).
    pub(crate) fn find(&self, target: &str) -> Result<Vec<Arc<Machine>>, Error> {
        let named = |m: &&Arc<Machine>| m.id == target || is_app(&m.app, target);
        let found: Vec<_> = self.all().iter().filter(named).cloned().collect();
        if found.is_empty() { Err(Error::NoSuch(target.to_owned())) } else { Ok(found) }
    }

    pub(crate) fn add(&self, machine: Arc<Machine>) {
        self.machines.send_modify(|all| {
            *all = all.iter().cloned().chain([machine]).collect();
        });
    }

    pub(crate) fn remove(&self, id: &str) {
        self.machines.send_modify(|all| {
            *all = all.iter().filter(|machine| machine.id != id).cloned().collect();
        });
    }
}

/// Whether a user's word means this app: its name or its role.
pub(crate) fn is_app(name: &str, target: &str) -> bool {
    name == target || name.strip_suffix(target).is_some_and(|prefix| prefix.ends_with('-'))
}
