//! Endpoint discovery: snapshots of the machines behind an app's name.
//!
//! `regions.<app>.internal` (TXT) names the regions, one AAAA query for each
//! region gives its addresses: that is address *and* region.
//!
//! Invariants:
//! - A snapshot is the whole truth, never a difference; a slow reader may skip
//!   snapshots but can never miss a removal.
//! - A failed lookup keeps what the last good one said: connections decide who
//!   is alive, DNS only decides who may be tried.
//! - Our own region is looked up every `poll`, another one when it first
//!   appears, every `remote_poll`, and when somebody asks for a look because a
//!   machine was lost or woken. Rounds are at least an eighth of `poll` apart.

mod lookup;

pub use lookup::Resolver;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    time::{self, Instant},
};

/// One started machine of an app.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub addr: SocketAddr,
    pub region: String,
}

pub type Endpoints = watch::Receiver<Arc<[Endpoint]>>;

/// The machines of an app as they come and go. Clones share one follower.
#[derive(Clone)]
pub struct Discovery {
    endpoints: Endpoints,
    look: Arc<Notify>,
}

impl Discovery {
    /// A fixed set, for tests and for `host:port` literals.
    pub fn fixed(addrs: &[SocketAddr], region: &str) -> Self {
        let endpoint = |addr: &SocketAddr| Endpoint { addr: *addr, region: region.to_owned() };
        Self::following(watch::channel(addrs.iter().map(endpoint).collect()).1)
    }

    /// What somebody else finds out.
    pub fn following(endpoints: Endpoints) -> Self {
        Self { endpoints, look: Arc::default() }
    }

    /// Follows the machines of `target` until the last reader is gone.
    pub fn dns(resolver: Resolver, target: Target) -> Self {
        let (publish, endpoints) = watch::channel(Arc::from([]));
        let look = Arc::new(Notify::new());
        tokio::spawn(follow(resolver, target, publish, Arc::clone(&look)));
        Self { endpoints, look }
    }

    pub fn endpoints(&self) -> Endpoints {
        self.endpoints.clone()
    }

    /// Asks for a round now, all regions included: a machine was lost or woken.
    pub fn look_now(&self) {
        self.look.notify_one();
    }
}

/// Where and how often to look.
#[derive(Clone, Debug)]
pub struct Target {
    pub app: String,
    pub port: u16,
    pub own_region: String,
    pub poll: Duration,
    pub remote_poll: Duration,
}

async fn follow(
    resolver: Resolver,
    target: Target,
    publish: watch::Sender<Arc<[Endpoint]>>,
    asked: Arc<Notify>,
) {
    let mut known = Known::default();
    let mut everything = true;
    loop {
        let began = Instant::now();
        tokio::select! {
            () = known.look(&resolver, &target, everything) => {}
            () = publish.closed() => return,
        }
        let found = known.snapshot();
        publish.send_if_modified(|current| {
            let changed = **current != *found;
            if changed {
                tracing::debug!(app = target.app, endpoints = found.len(), "endpoints changed");
                *current = found;
            }
            changed
        });
        let jitter = 0.8 + 0.4 * fastrand::f64();
        let soon = async {
            asked.notified().await;
            time::sleep_until(began + target.poll / 8).await;
        };
        everything = tokio::select! {
            () = time::sleep(target.poll.mul_f64(jitter)) => false,
            () = soon => true,
            () = publish.closed() => return,
        };
    }
}

/// The last good answers.
#[derive(Default)]
struct Known {
    regions: BTreeMap<String, Region>,
    failing: bool,
}

#[derive(Default)]
struct Region {
    addrs: Vec<SocketAddr>,
    looked: Option<Instant>,
}

impl Known {
    async fn look(&mut self, resolver: &Resolver, target: &Target, everything: bool) {
        let patient = self.regions.is_empty();
        let mut failure = None;
        let name = format!("regions.{}.internal", target.app);
        match resolver.regions(&name, patient).await {
            Ok(found) => {
                self.regions.retain(|region, _| found.contains(region));
                for region in found {
                    self.regions.entry(region).or_default();
                }
            }
            Err(error) => failure = Some((name, error)),
        }
        let due = |(region, known): &(&String, &Region)| {
            everything
                || **region == target.own_region
                || known.looked.is_none_or(|looked| looked.elapsed() >= target.remote_poll)
        };
        let due: Vec<_> =
            self.regions.iter().filter(due).map(|(region, _)| region.clone()).collect();
        let lookups = due.into_iter().map(async |region| {
            let name = format!("{region}.{}.internal", target.app);
            let found = resolver.addresses(&name, target.port, patient).await;
            (region, name, found)
        });
        for (region, name, found) in futures_util::future::join_all(lookups).await {
            match found {
                Ok(addrs) => {
                    let looked = Some(Instant::now());
                    self.regions.insert(region, Region { addrs, looked });
                }
                Err(error) => failure = Some((name, error)),
            }
        }
        // Once per outage, not once per poll.
        if let (Some((name, error)), false) = (&failure, self.failing) {
            tracing::warn!(name, %error, "lookups fail; keeping the last endpoints");
        }
        self.failing = failure.is_some();
    }

    fn snapshot(&self) -> Arc<[Endpoint]> {
        let of = |(region, known): (&String, &Region)| {
            let endpoint = |addr: &SocketAddr| Endpoint { addr: *addr, region: region.clone() };
            known.addrs.iter().map(endpoint).collect::<Vec<_>>()
        };
        self.regions.iter().flat_map(of).collect()
    }
}
