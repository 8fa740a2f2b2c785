//! How providers are reached: proxies, certificates, names, connections.
//!
//! Invariants:
//! - The proxy variables that every other program reads are read, in either
//!   spelling, and what cannot be used as a proxy is a complaint.
//! - Their values may hold a password, so they are secrets.

use mesh::config::{Key, Reader, Secret, Time, key};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

#[derive(Clone, Debug)]
pub struct Network {
    /// How many streams a connection is taken to hold where the provider allows
    /// more or has not said.
    pub streams_per_connection: usize,
    /// A connection older than this gets no new calls.
    pub connection_age: Duration,
    /// Certificates to trust beside the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// Who is asked for addresses; the system's servers otherwise.
    pub dns: Option<SocketAddr>,
    pub proxies: Proxies,
}

#[derive(Clone, Debug, Default)]
pub struct Proxies {
    pub https: Option<Secret>,
    pub http: Option<Secret>,
    /// Hosts that are reached without one; loopback always is.
    pub none: String,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            streams_per_connection: 100,
            connection_age: Duration::from_secs(300),
            ca_file: None,
            dns: None,
            proxies: Proxies::default(),
        }
    }
}

pub(super) fn read(reader: &mut Reader<'_>) -> Network {
    let default = Network::default();
    let age = Time(default.connection_age);
    let streams = key("provider.streams_per_connection");
    let network = Network {
        streams_per_connection: reader.or(streams, default.streams_per_connection),
        connection_age: reader.or(key("provider.connection_age"), age).0,
        ca_file: reader.optional::<String>(key("provider.ca_file")).map(PathBuf::from),
        dns: reader.optional(key("provider.dns")),
        proxies: proxies(reader),
    };
    if network.streams_per_connection == 0 {
        reader.complain(streams, "must be at least 1");
    }
    network
}

fn proxies(reader: &mut Reader<'_>) -> Proxies {
    let all = reader.platform("ALL_PROXY").or_else(|| reader.platform("all_proxy"));
    let mut one = |key: Key, small: &str| {
        let set = reader.secret(key).map(|secret| secret.expose().to_owned());
        let found = set.or_else(|| reader.platform(small)).or_else(|| all.clone())?;
        if found.contains("://") && !["http://", "https://"].iter().any(|s| found.starts_with(s)) {
            reader.complain(key, "must be an http:// or https:// proxy");
        }
        Some(Secret::new(found))
    };
    let https = one(key("provider.https_proxy").env("HTTPS_PROXY"), "https_proxy");
    let http = one(key("provider.http_proxy").env("HTTP_PROXY"), "http_proxy");
    let none: Option<String> = reader.optional(key("provider.no_proxy").env("NO_PROXY"));
    let none = none.or_else(|| reader.platform("no_proxy")).unwrap_or_default();
    Proxies { https, http, none }
}
