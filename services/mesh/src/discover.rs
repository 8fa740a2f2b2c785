//! Endpoint discovery: snapshots of the machines behind an app's name.
//!
//! `regions.<app>.internal` (TXT) names the regions, one AAAA query for each
//! region gives its addresses: that is address *and* region, own region first.
//!
//! Invariants:
//! - A snapshot is the whole truth, never a difference; a slow reader may skip
//!   snapshots but can never miss a removal.
//! - A failed lookup keeps what the last good one said: connections decide who
//!   is alive, DNS only decides who may be tried. An answer without records is
//!   not a failure.
//! - Lookups are at least `poll` apart, with jitter.

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig},
    lookup::Lookup,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::RData,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// One started machine of an app.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub addr: SocketAddr,
    pub region: String,
}

pub type Endpoints = watch::Receiver<Arc<[Endpoint]>>;

/// A fixed set, for tests and for `host:port` literals.
pub fn fixed(addrs: &[SocketAddr], region: &str) -> Endpoints {
    let endpoint = |addr: &SocketAddr| Endpoint { addr: *addr, region: region.to_owned() };
    watch::channel(addrs.iter().map(endpoint).collect()).1
}

/// A resolver for a private IPv6 network: no cache of its own, short waits.
/// `server` is the DNS server; `None` takes the system's.
pub fn resolver(server: Option<SocketAddr>) -> Result<TokioResolver, NetError> {
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
    options.timeout = Duration::from_secs(1);
    options.attempts = 2;
    options.edns0 = true; // long TXT answers
    builder.build()
}

/// Where and how often to look.
#[derive(Clone, Debug)]
pub struct Target {
    pub app: String,
    pub port: u16,
    pub own_region: String,
    pub poll: Duration,
}

/// Follows the machines of `target` until the last reader is gone.
pub fn dns(resolver: TokioResolver, target: Target) -> Endpoints {
    let (publish, endpoints) = watch::channel(Arc::from([]));
    tokio::spawn(async move {
        let mut regions = Vec::new();
        let mut known = BTreeMap::new();
        loop {
            let round = look(&resolver, &target, &mut regions, &mut known);
            tokio::select! {
                () = round => {}
                () = publish.closed() => return,
            }
            let found = snapshot(&known);
            publish.send_if_modified(|current| {
                let changed = **current != *found;
                if changed {
                    tracing::debug!(app = target.app, endpoints = found.len(), "endpoints changed");
                    *current = found;
                }
                changed
            });
            tokio::select! {
                () = tokio::time::sleep(target.poll.mul_f64(0.8 + 0.4 * fastrand::f64())) => {}
                () = publish.closed() => return,
            }
        }
    });
    endpoints
}

fn snapshot(known: &BTreeMap<String, Vec<SocketAddr>>) -> Arc<[Endpoint]> {
    let of = |(region, addrs): (&String, &Vec<SocketAddr>)| {
        let endpoint = |addr: &SocketAddr| Endpoint { addr: *addr, region: region.clone() };
        addrs.iter().map(endpoint).collect::<Vec<_>>()
    };
    known.iter().flat_map(of).collect()
}

async fn look(
    resolver: &TokioResolver,
    target: &Target,
    regions: &mut Vec<String>,
    known: &mut BTreeMap<String, Vec<SocketAddr>>,
) {
    // Absolute names, so that search domains and ndots never apply.
    let name = format!("regions.{}.internal.", target.app);
    match answer(resolver.txt_lookup(name.as_str()).await) {
        Ok(found) => {
            *regions = parse_regions(&texts(found.as_ref()));
            regions.sort_by_key(|region| *region != target.own_region);
            known.retain(|region, _| regions.contains(region));
        }
        Err(error) => {
            tracing::warn!(name, %error, "lookup failed; keeping the last regions");
        }
    }
    for region in regions.iter() {
        let name = format!("{region}.{}.internal.", target.app);
        match answer(resolver.ipv6_lookup(name.as_str()).await) {
            Ok(found) => {
                let mut addrs = addresses(found.as_ref(), target.port);
                addrs.sort_unstable();
                known.insert(region.clone(), addrs);
            }
            Err(error) => {
                tracing::warn!(name, %error, "lookup failed; keeping the last endpoints");
            }
        }
    }
}

/// An answer without records is an answer; everything else that is not one is
/// a failure.
fn answer(lookup: Result<Lookup, NetError>) -> Result<Option<Lookup>, NetError> {
    match lookup {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_no_records_found() || error.is_nx_domain() => Ok(None),
        Err(error) => Err(error),
    }
}

fn addresses(lookup: Option<&Lookup>, port: u16) -> Vec<SocketAddr> {
    let address = |data: &RData| match data {
        RData::AAAA(found) => Some(SocketAddr::new(canonical(found.0.into()), port)),
        _ => None,
    };
    let answers = lookup.map_or(&[][..], Lookup::answers);
    answers.iter().filter_map(|record| address(&record.data)).collect()
}

/// `::ffff:127.5.6.7` is dialled as IPv4: the emulated machines of a loopback
/// network listen there.
fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// The strings of each TXT record, glued without a separator: a long list is
/// cut into pieces of 255 bytes wherever that falls.
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
fn parse_regions(text: &str) -> Vec<String> {
    let mut regions: Vec<_> =
        text.split(',').map(str::trim).filter(|r| !r.is_empty()).map(str::to_owned).collect();
    regions.sort_unstable();
    regions.dedup();
    regions
}

/// How many machines of an app are started, by `vms.<app>.internal`; `None`
/// when DNS cannot say.
pub async fn count_machines(resolver: &TokioResolver, app: &str) -> Option<usize> {
    let found = answer(resolver.txt_lookup(format!("vms.{app}.internal.")).await).ok()?;
    let text = texts(found.as_ref());
    Some(text.split(',').filter(|entry| !entry.trim().is_empty()).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_lists_are_read_as_fly_writes_them() {
        assert_eq!(parse_regions("ams,iad,nrt"), ["ams", "iad", "nrt"]);
        assert_eq!(parse_regions(""), Vec::<String>::new());
        assert_eq!(parse_regions(" iad, iad"), ["iad"]);
    }
}
