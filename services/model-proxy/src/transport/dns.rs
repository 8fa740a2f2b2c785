//! Providers' addresses, asked of the one resolver that the mesh uses too.
//!
//! Invariants:
//! - An answer is kept as long as it says of itself and never longer than
//!   [`LONGEST`], so that new connections follow a provider that moves.
//! - Nothing blocks a thread.

use super::SetUp;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};
use hyper_util::client::legacy::connect::dns::Name;
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
    vec,
};
use tower_service::Service;

const LONGEST: Duration = Duration::from_secs(300);
/// One question; a call has its own limit on the whole connection.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(super) struct Resolver(TokioResolver);

impl Resolver {
    /// `server` is the DNS server; `None` takes the system's.
    pub(super) fn new(server: Option<SocketAddr>) -> Result<Self, SetUp> {
        let mut builder = match server.map(|server| (server.ip(), server.port())) {
            Some((address, port)) => {
                let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
                (udp.port, tcp.port) = (port, port);
                let server = NameServerConfig::new(address, true, vec![udp, tcp]);
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
            None => TokioResolver::builder_tokio().unwrap_or_else(|error| {
                tracing::warn!(%error, "no DNS servers are configured: only /etc/hosts is known");
                let none = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
                TokioResolver::builder_with_config(none, TokioRuntimeProvider::default())
            }),
        };
        let options = builder.options_mut();
        // Both at once; who connects tries them side by side.
        options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        options.positive_max_ttl = Some(LONGEST);
        options.timeout = PATIENCE;
        Ok(Self(builder.build().map_err(|error| SetUp::Resolver(error.to_string()))?))
    }
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.0.clone();
        Box::pin(async move {
            let found = resolver.lookup_ip(name.as_str()).await.map_err(io::Error::other)?;
            // The port is put in by who asks.
            let found: Vec<_> = found.iter().map(|ip| SocketAddr::new(ip, 0)).collect();
            Ok(found.into_iter())
        })
    }
}
