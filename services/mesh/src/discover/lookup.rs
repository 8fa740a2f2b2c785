//! Questions to the private DNS and what its answers mean.
//!
//! Invariants:
//! - Names are absolute, so that search domains and `ndots` never apply.
//! - "No such name" and "no records" are answers; everything else that is not
//!   one is a failure.
//! - The pieces of a TXT record are glued without a separator.

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig},
    lookup::Lookup,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::RData,
};
use std::{net::SocketAddr, time::Duration};

/// One try of one lookup. Nobody's call waits for it.
const QUICK: Duration = Duration::from_secs(1);
/// The same while nothing is known yet: a slow answer is then better than none.
const PATIENT: Duration = Duration::from_secs(8);

/// Cheap to clone.
#[derive(Clone)]
pub struct Resolver {
    quick: TokioResolver,
    patient: TokioResolver,
}

impl Resolver {
    /// A resolver for a private IPv6 network, without a cache of its own.
    /// `server` is the DNS server; `None` takes the system's.
    pub fn new(server: Option<SocketAddr>) -> Result<Self, NetError> {
        Ok(Self { quick: build(server, QUICK)?, patient: build(server, PATIENT)? })
    }

    fn of(&self, patient: bool) -> &TokioResolver {
        if patient { &self.patient } else { &self.quick }
    }

    /// The regions in the TXT record of `name`, sorted; `name` without the
    /// final dot.
    pub(super) async fn regions(&self, name: &str, patient: bool) -> Result<Vec<String>, NetError> {
        let found = answer(self.of(patient).txt_lookup(format!("{name}.")).await)?;
        Ok(parse_list(&texts(found.as_ref())))
    }

    pub(super) async fn addresses(
        &self,
        name: &str,
        port: u16,
        patient: bool,
    ) -> Result<Vec<SocketAddr>, NetError> {
        let found = answer(self.of(patient).ipv6_lookup(format!("{name}.")).await)?;
        let mut addrs = addresses(found.as_ref(), port);
        addrs.sort_unstable();
        Ok(addrs)
    }

    /// The ids of the started machines of an app, by `vms.<app>.internal`; `None`
    /// when DNS cannot say.
    pub async fn started(&self, app: &str) -> Option<Vec<String>> {
        let machines = self.list(&format!("vms.{app}.internal")).await?;
        let id = |machine: &String| machine.split(' ').next().unwrap_or_default().to_owned();
        Some(machines.iter().map(id).collect())
    }

    /// The regions that have machines of an app, started or not.
    pub async fn deployed_in(&self, app: &str) -> Option<Vec<String>> {
        self.list(&format!("all.regions.{app}.internal")).await
    }

    /// Where Fly's proxy listens for an app, if it was given such an address.
    pub async fn flycast(&self, app: &str, port: u16) -> Vec<SocketAddr> {
        self.addresses(&format!("{app}.flycast"), port, false).await.unwrap_or_default()
    }

    async fn list(&self, name: &str) -> Option<Vec<String>> {
        let found = answer(self.quick.txt_lookup(format!("{name}.")).await).ok()?;
        Some(parse_list(&texts(found.as_ref())))
    }
}

fn build(server: Option<SocketAddr>, timeout: Duration) -> Result<TokioResolver, NetError> {
    let mut builder = match server {
        None => TokioResolver::builder_tokio()?,
        Some(server) => {
            let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
            (udp.port, tcp.port) = (server.port(), server.port());
            let server = NameServerConfig::new(server.ip(), true, vec![udp, tcp]);
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv6Only;
    options.cache_size = 0;
    options.timeout = timeout;
    options.attempts = 2;
    options.edns0 = true; // long TXT answers
    builder.build()
}

fn answer(lookup: Result<Lookup, NetError>) -> Result<Option<Lookup>, NetError> {
    match lookup {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_no_records_found() || error.is_nx_domain() => Ok(None),
        Err(error) => Err(error),
    }
}

/// `::ffff:127.5.6.7` is dialled as IPv4: the emulated machines of a loopback
/// network listen there.
fn addresses(lookup: Option<&Lookup>, port: u16) -> Vec<SocketAddr> {
    let address = |data: &RData| match data {
        RData::AAAA(found) => Some(SocketAddr::new(found.0.to_canonical(), port)),
        _ => None,
    };
    let answers = lookup.map_or(&[][..], Lookup::answers);
    answers.iter().filter_map(|record| address(&record.data)).collect()
}

/// A long list is cut into pieces of 255 bytes wherever that falls.
fn texts(lookup: Option<&Lookup>) -> String {
    let text = |data: &RData| match data {
        RData::TXT(found) => {
            let bytes: Vec<u8> =
                found.txt_data.iter().flat_map(|piece| piece.iter().copied()).collect();
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        _ => None,
    };
    let answers = lookup.map_or(&[][..], Lookup::answers);
    answers.iter().filter_map(|record| text(&record.data)).collect::<Vec<_>>().join(",")
}

/// `ams,iad,nrt`; an empty list arrives as an empty string.
fn parse_list(text: &str) -> Vec<String> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let mut items: Vec<_> = items.map(str::to_owned).collect();
    items.sort_unstable();
    items.dedup();
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_fly_writes_them() {
        assert_eq!(parse_list("ams,iad,nrt"), ["ams", "iad", "nrt"]);
        assert_eq!(parse_list(""), Vec::<String>::new());
        assert_eq!(parse_list(" iad, iad"), ["iad"]);
        assert_eq!(parse_list("148e21dad76789 sea,4d89699c030518 ams").len(), 2);
    }
}
