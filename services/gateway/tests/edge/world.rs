//! A gateway with its peers, each on a free port of this machine.

use crate::fakes::{self, Seen};
use gateway::Config;
use mesh::{
    World,
    config::Sources,
    keys::{self, Generated},
    load::Load,
};
use std::{net::SocketAddr, sync::Arc};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A key with every scope.
pub(crate) const ROOT: &str = "sk-test-0123456789abcdefghij";

pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    pub(crate) stop: CancellationToken,
    pub(crate) served: JoinHandle<Result<(), gateway::Error>>,
    pub(crate) load: Load,
    data: TempDir,
    _leave: DropGuard,
}

/// With `settings` beside those that every test needs.
pub(crate) async fn start(settings: &[(&str, &str)]) -> Running {
    let keys = keys::generate(&["gateway", "router", "retrieval"]).unwrap();
    let (seen, peers_stop) = (Arc::new(Seen::default()), CancellationToken::new());
    let router = fakes::router(&keys, &seen, peers_stop.clone()).await;
    start_with(settings, &keys, seen, &[("router", router)], peers_stop).await
}

pub(crate) async fn start_with(
    settings: &[(&str, &str)],
    keys: &Generated,
    seen: Arc<Seen>,
    peers: &[(&'static str, SocketAddr)],
    peers_stop: CancellationToken,
) -> Running {
    let data = tempfile::tempdir().unwrap();
    let mut environment = vec![
        ("SKEIN_MESH_KEY", keys.secrets["gateway"].expose()),
        ("SKEIN_MESH_PEERS", keys.peers.as_str()),
        ("SKEIN_BOOTSTRAP_KEY", ROOT),
        ("SKEIN_BOOTSTRAP__TENANT", "acme"),
        ("SKEIN_DATA__DIR", data.path().to_str().unwrap()),
    ];
    environment.extend_from_slice(settings);
    let (config, _) = Config::read(&Sources::of(&environment)).unwrap();
    let world = World::local("gateway", keys, peers).await.unwrap();
    let (addr, stop) = (world.addr().unwrap(), world.stop.clone());
    let load = world.load.clone();
    let leave = stop.clone().drop_guard();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            stop.cancelled().await;
            peers_stop.cancel();
        }
    });
    let served = tokio::spawn(gateway::run(config, world));
    Running { addr, seen, stop, served, load, data, _leave: leave }
}

impl Running {
    /// Where the gateway keeps its state.
    pub(crate) fn data(&self) -> &std::path::Path {
        self.data.path()
    }
}
