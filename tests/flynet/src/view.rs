//! What the private DNS knows, and how it looks from a region.
//!
//! Invariants:
//! - A machine beyond a named pair of regions has the address of a relay, whatever
//!   form of name is asked for.

use crate::{
    dns::{Asker, Entry, Snapshot},
    fabric::Fabric,
    machine::State,
};
use std::{net::Ipv6Addr, sync::Arc, time::Duration};

impl Fabric {
    /// What DNS knows, nobody's address changed.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let entries = self.fleet.all();
        let entries = entries.iter().map(|machine| Entry {
            app: machine.app.clone(),
            id: machine.id.clone(),
            region: machine.region.clone(),
            group: "app".to_owned(),
            address: machine.address.to_ipv6_mapped(),
            started: machine.state() == State::Started,
            metadata: machine.metadata.borrow().clone().into_iter().collect(),
        });
        let machines = entries.chain(self.faults.ghosts()).collect();
        Snapshot { apps: self.apps.clone(), machines, peers: self.peers.clone() }
    }
}

/// A region that asks.
pub(crate) struct View<'a> {
    pub(crate) region: &'a str,
    pub(crate) fabric: &'a Arc<Fabric>,
}

impl Asker for View<'_> {
    fn reach(&self, entry: &Entry) -> Option<Ipv6Addr> {
        let Some(address) = entry.address.to_ipv4_mapped() else { return Some(entry.address) };
        let reached = self.fabric.reach(self.region, &entry.region, address)?;
        Some(reached.to_ipv6_mapped())
    }

    fn flycast(&self, app: &str) -> Option<Ipv6Addr> {
        Some(self.fabric.flycast(self.region, app)?.to_ipv6_mapped())
    }

    fn rtt(&self, region: &str) -> Duration {
        self.fabric.rtt(self.region, region)
    }
}
