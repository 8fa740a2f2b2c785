//! Which endpoints a channel is connected to.
//!
//! Invariants:
//! - Of our own region every endpoint; of another at most two, and only while
//!   somebody needs another region: connections across oceans to machines that
//!   nobody calls are a cost for both sides.
//! - An endpoint that DNS no longer names stays while its connection is alive
//!   and healthy, and is forgotten when that ends: DNS may blink.
//! - Which two of another region differs from caller to caller, and those that
//!   cannot be reached come last.
//! - After a sleep of this machine every connection is made anew: the old ones
//!   may be dead without knowing.

use super::member::Members;
use crate::{
    clock::Awake,
    discover::{Discovery, Endpoint},
};
use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::{self, Instant},
};
use tokio_util::task::AbortOnDropHandle;

/// Endpoints of one other region.
const FAR: usize = 2;
/// How long other regions stay connected after the last call that went there.
const FAR_IDLE: Duration = Duration::from_secs(300);

/// Between two looks at the clocks and at how long ago another region was needed.
const NAP: Duration = Duration::from_secs(2);

/// One endpoint's task and whether it cannot be reached.
struct Kept {
    task: AbortOnDropHandle<()>,
    failing: Arc<AtomicBool>,
}

/// Runs for as long as the channel. `far` is the moment at which somebody last
/// needed another region than `own`.
pub(super) async fn manage(
    members: Arc<Members>,
    discovery: Discovery,
    own: String,
    mut far: watch::Receiver<Option<Instant>>,
) {
    let mut endpoints = discovery.endpoints();
    let mut awake = Awake::default();
    let lost = Arc::new(Notify::new());
    let mut manager = Manager {
        members,
        discovery,
        own,
        kept: HashMap::new(),
        seed: RandomState::new(),
        lost: Arc::clone(&lost),
    };
    loop {
        if awake.has_slept() {
            tracing::info!(
                app = manager.members.greeter.app,
                "this machine slept; connecting anew"
            );
            manager.kept.clear();
            manager.discovery.look_now();
        }
        let listed = Arc::clone(&endpoints.borrow_and_update());
        let needed = *far.borrow_and_update();
        manager.settle(&listed, needed.is_some_and(|at| at.elapsed() < FAR_IDLE));
        let changed = async {
            if endpoints.changed().await.is_err() {
                std::future::pending::<()>().await; // a fixed set never changes again
            }
        };
        tokio::select! {
            () = changed => {}
            changed = far.changed() => {
                if changed.is_err() {
                    return; // the channel has gone
                }
            }
            () = lost.notified() => {}
            () = time::sleep(NAP) => {}
        }
    }
}

struct Manager {
    members: Arc<Members>,
    discovery: Discovery,
    own: String,
    kept: HashMap<SocketAddr, Kept>,
    seed: RandomState,
    lost: Arc<Notify>,
}

impl Manager {
    /// Connects what is wanted among `listed` and lets go of what is not.
    fn settle(&mut self, listed: &[Endpoint], far_too: bool) {
        self.kept.retain(|_, kept| !kept.task.is_finished());
        let failing = |addr: &SocketAddr| {
            self.kept.get(addr).is_some_and(|kept| kept.failing.load(Ordering::Relaxed))
        };
        let wanted = choose(listed, &self.own, far_too, |endpoint| {
            (failing(&endpoint.addr), self.seed.hash_one(endpoint.addr))
        });
        let addrs: HashSet<_> = wanted.iter().map(|endpoint| endpoint.addr).collect();
        let named: HashSet<_> = listed.iter().map(|endpoint| endpoint.addr).collect();
        self.kept.retain(|addr, _| addrs.contains(addr) || !named.contains(addr));
        for endpoint in wanted {
            if !self.kept.contains_key(&endpoint.addr) {
                self.kept.insert(endpoint.addr, self.start(endpoint));
            }
        }
    }

    fn start(&self, endpoint: Endpoint) -> Kept {
        let failing = Arc::default();
        let endpoints = self.discovery.endpoints();
        let listed = move |endpoint: &Endpoint| endpoints.borrow().contains(endpoint);
        let (lost, discovery) = (Arc::clone(&self.lost), self.discovery.clone());
        let told = move || {
            lost.notify_one();
            discovery.look_now();
        };
        let task = Arc::clone(&self.members).keep(endpoint, listed, Arc::clone(&failing), told);
        Kept { task: AbortOnDropHandle::new(tokio::spawn(task)), failing }
    }
}

/// The endpoints worth a connection; `order` tells which of another region.
fn choose<K: Ord>(
    listed: &[Endpoint],
    own: &str,
    far_too: bool,
    order: impl Fn(&Endpoint) -> K,
) -> Vec<Endpoint> {
    let (mut wanted, mut far): (Vec<_>, Vec<_>) =
        listed.iter().cloned().partition(|endpoint| endpoint.region == own);
    if far_too {
        far.sort_by_cached_key(&order);
        let mut taken: HashMap<String, usize> = HashMap::new();
        far.retain(|endpoint| {
            let taken = taken.entry(endpoint.region.clone()).or_default();
            *taken += 1;
            *taken <= FAR
        });
        wanted.append(&mut far);
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(region: &str, host: u8) -> Endpoint {
        Endpoint { addr: SocketAddr::from(([127, 0, 0, host], 1)), region: region.to_owned() }
    }

    #[test]
    fn all_of_our_own_region_and_two_of_others_when_needed() {
        let listed: Vec<_> = [("iad", 1), ("iad", 2), ("iad", 3), ("nrt", 4), ("nrt", 5)]
            .into_iter()
            .chain([("nrt", 6), ("ams", 7)])
            .map(|(region, host)| endpoint(region, host))
            .collect();
        let hosts = |far, bad: u8| {
            let order = |endpoint: &Endpoint| match endpoint.addr {
                SocketAddr::V4(addr) => (addr.ip().octets()[3] == bad, addr.ip().octets()[3]),
                SocketAddr::V6(_) => (true, 0),
            };
            let chosen = choose(&listed, "iad", far, order);
            let mut hosts: Vec<_> =
                chosen.iter().map(|endpoint| endpoint.addr.to_string()).collect();
            hosts.sort();
            hosts.iter().map(|host| host.as_bytes()[8] - b'0').collect::<Vec<_>>()
        };
        assert_eq!(hosts(false, 0), [1, 2, 3]);
        assert_eq!(hosts(true, 0), [1, 2, 3, 4, 5, 7]);
        assert_eq!(hosts(true, 4), [1, 2, 3, 5, 6, 7], "the one that fails is replaced");
    }
}
