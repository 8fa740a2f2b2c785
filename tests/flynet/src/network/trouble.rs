//! What a test does to a running network, besides stopping machines: faults of
//! DNS, distances between regions, and cuts.

use super::Flynet;
use crate::{
    dns::Entry,
    error::Error,
    faults::{Fault, FaultGuard, Scope},
    links::Link,
};
use std::net::{Ipv4Addr, SocketAddr};

impl Flynet {
    /// `host:port` of the private DNS, as the machines of one region ask it.
    pub fn dns_in(&self, region: &str) -> Result<String, Error> {
        self.shared.fabric.dns(region)
    }

    /// Until the guard is dropped, DNS answers the questions of `scope` wrongly.
    pub fn dns_fault(&self, scope: Scope, fault: Fault) -> FaultGuard {
        let fabric = &self.shared.fabric;
        fabric.faults.add(scope, fault, fabric.snapshot())
    }

    /// Ends every fault of DNS, those that were kept included.
    pub fn clear_dns_faults(&self) {
        self.shared.fabric.faults.clear();
    }

    /// Until the guard is dropped, the names of `app` (a name or role) also lead to
    /// `address`, which belongs to a machine of another app: 6PN addresses move.
    pub fn impersonate(&self, app: &str, address: Ipv4Addr) -> Result<FaultGuard, Error> {
        let fabric = &self.shared.fabric;
        let app = self.shared.maker().app(app)?.name.clone();
        let machines = fabric.fleet.all();
        let owner = machines.iter().find(|machine| machine.address == address);
        let owner = owner.ok_or_else(|| Error::NoSuch(address.to_string()))?;
        Ok(fabric.faults.haunt(Entry {
            app,
            // of the machine that had the address before: none of today's
            id: format!("{:014x}", fastrand::u64(..1 << 56)),
            region: owner.region.clone(),
            group: "app".to_owned(),
            address: address.to_ipv6_mapped(),
            started: true,
            metadata: vec![],
        }))
    }

    /// Puts a distance between two regions. A pair named here, not in the spec,
    /// holds for connections made after the next answer of DNS.
    pub fn link(&self, a: &str, b: &str, link: Link) -> Result<(), Error> {
        self.shared.fabric.links.set(a, b, link)
    }

    /// Lets nothing pass between machines of two regions that are a named pair:
    /// connections stay open and new ones hang. The edge is beside its users, and
    /// reaches both.
    pub fn partition(&self, a: &str, b: &str) -> Result<(), Error> {
        self.shared.fabric.links.cut(a, b, true)
    }

    /// Ends a partition; what was sent meanwhile arrives.
    pub fn heal(&self, a: &str, b: &str) -> Result<(), Error> {
        self.shared.fabric.links.cut(a, b, false)
    }

    /// The address at which machines of `from` reach `target`, which is in the region
    /// `to`: through the link of the two, or `target` itself when they are the same.
    pub fn relay(&self, from: &str, to: &str, target: SocketAddr) -> Result<SocketAddr, Error> {
        self.shared.fabric.relay(from, to, target)
    }
}
