//! Everything a service needs from outside, handed in: listeners, peers, keys,
//! the wish to stop. Only `main` opens the real one; tests make their own.

use crate::{
    channel::{self, Channel},
    config::{Common, Life, Setting},
    discover::{Discovery, Resolver, Target},
    door::Door,
    identity::Identity,
    keys::{Generated, KeyError, Keys},
    load::{Limits, Load},
    machines::Machines,
    peer, wake,
};
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

pub struct World {
    pub identity: Identity,
    pub keys: Arc<Keys>,
    /// gRPC; the gateway's public port.
    pub grpc: Door,
    pub health: Option<TcpListener>,
    pub metrics: Option<TcpListener>,
    pub network: Network,
    /// Cancelled when the process is told to leave.
    pub stop: CancellationToken,
    /// Cancelled after the notice period: long subscriptions end now.
    pub drain: CancellationToken,
    pub settings: Vec<Setting>,
    pub notice: Duration,
    pub grace: Duration,
    pub max_deadline: Duration,
    pub life: Life,
    /// Counts what this process does; a service adds what no caller waits for.
    pub load: Load,
    /// The platform's API for our own app; `None` off the platform.
    pub machines: Option<Machines>,
    /// What a service adds to what this machine says about itself.
    pub about: Option<peer::About>,
}

/// Why the process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error("cannot listen on {address}: {error}")]
    Listen { address: String, error: io::Error },
    #[error("cannot read the DNS configuration: {0}")]
    Dns(String),
    #[error("cannot watch for signals: {0}")]
    Signals(io::Error),
}

impl World {
    /// Binds every listener (callers are let in by [`crate::serve`]) and listens for SIGTERM and SIGINT.
    pub async fn open(common: &Common, settings: Vec<Setting>) -> Result<Self, WorldError> {
        let role = common.identity.role;
        let keys = Arc::new(Keys::parse(role, &common.mesh_key, &common.mesh_peers)?);
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone()).map_err(WorldError::Signals)?;
        let resolver = Resolver::new(common.dns);
        let resolver = resolver.map_err(|error| WorldError::Dns(error.to_string()))?;
        let find = Find::Dns {
            resolver: Box::new(resolver),
            apps: common.peer_apps.clone(),
            port: common.peer_port,
            poll: common.poll,
            remote_poll: common.remote_poll,
        };
        let network = Network::new(common.identity.clone(), &keys, find, common.patience);
        Ok(Self {
            grpc: shut(common.address(common.grpc_port))?,
            health: Some(bind(common.address(common.health_port)).await?),
            metrics: Some(bind(common.address(common.metrics_port)).await?),
            identity: common.identity.clone(),
            keys,
            network,
            stop,
            drain: CancellationToken::new(),
            settings,
            notice: common.notice,
            grace: common.grace,
            max_deadline: common.max_deadline,
            load: Load::new(common.life.limits),
            machines: common
                .on_fly
                .then(|| Machines::new(&common.life.fly_api, common.identity.clone())),
            life: common.life.clone(),
            about: None,
        })
    }

    /// A world of one process: free ports, peers at fixed addresses, no signals.
    pub async fn local(
        role: &'static str,
        keys: &Generated,
        peers: &[(&'static str, SocketAddr)],
    ) -> Result<Self, WorldError> {
        let keys = Arc::new(keys.keys(role)?);
        let identity = Identity::local(role);
        let find = Find::Fixed(peers.iter().copied().collect());
        let network = Network::new(identity.clone(), &keys, find, Duration::from_secs(3));
        Ok(Self {
            identity,
            keys,
            grpc: Door::Open(bind("127.0.0.1:0".to_owned()).await?),
            health: None,
            metrics: None,
            network,
            stop: CancellationToken::new(),
            drain: CancellationToken::new(),
            settings: Vec::new(),
            notice: Duration::ZERO,
            grace: Duration::from_secs(2),
            max_deadline: Duration::from_secs(600),
            life: Life::default(),
            machines: None,
            load: Load::new(Limits::default()),
            about: None,
        })
    }

    /// Where the gRPC listener is.
    pub fn addr(&self) -> io::Result<SocketAddr> {
        self.grpc.local_addr()
    }
}

async fn bind(address: String) -> Result<TcpListener, WorldError> {
    TcpListener::bind(&address).await.map_err(|error| WorldError::Listen { address, error })
}

fn shut(address: String) -> Result<Door, WorldError> {
    Door::shut(&address).map_err(|error| WorldError::Listen { address, error })
}

/// Fly sends SIGINT unless told otherwise, people press Ctrl-C, schedulers send
/// SIGTERM: all mean the same.
fn stop_on_signals(stop: CancellationToken) -> io::Result<()> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
        stop.cancel();
    });
    Ok(())
}

enum Find {
    Dns {
        resolver: Box<Resolver>,
        apps: BTreeMap<&'static str, String>,
        port: u16,
        poll: Duration,
        remote_poll: Duration,
    },
    Fixed(BTreeMap<&'static str, SocketAddr>),
}

/// The channels of a process, opened on first use and shared.
#[derive(Clone)]
pub struct Network(Arc<Shared>);

struct Shared {
    own: Identity,
    keys: Arc<Keys>,
    find: Find,
    patience: Duration,
    opened: Mutex<BTreeMap<&'static str, Channel>>,
}

impl Network {
    fn new(own: Identity, keys: &Arc<Keys>, find: Find, patience: Duration) -> Self {
        let keys = Arc::clone(keys);
        Self(Arc::new(Shared { own, keys, find, patience, opened: Mutex::default() }))
    }

    /// The channel to the app that plays `role`.
    pub fn channel(&self, role: &'static str) -> Channel {
        let mut opened = self.0.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.entry(role).or_insert_with(|| self.open(role)).clone()
    }

    /// Every channel opened so far.
    pub fn opened(&self) -> Vec<Channel> {
        let opened = self.0.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.values().cloned().collect()
    }

    /// How many machines of our own app are started; `None` when nobody can say.
    pub async fn own_machines(&self) -> Option<usize> {
        match &self.0.find {
            Find::Dns { .. } => self.own_machines_started().await.map(|started| started.len()),
            Find::Fixed(_) => Some(1),
        }
    }

    /// The ids of the started machines of our own app; `None` when nobody can
    /// say.
    pub async fn own_machines_started(&self) -> Option<Vec<String>> {
        match &self.0.find {
            Find::Dns { resolver, .. } => resolver.started(&self.0.own.app).await,
            Find::Fixed(_) => None,
        }
    }

    /// Whether Fly's proxy would start a machine of our own app for a caller.
    pub async fn has_flycast(&self) -> bool {
        match &self.0.find {
            Find::Dns { resolver, port, .. } => {
                !resolver.flycast(&self.0.own.app, *port).await.is_empty()
            }
            Find::Fixed(_) => false,
        }
    }

    fn open(&self, role: &'static str) -> Channel {
        let (app, discovery, wake) = match &self.0.find {
            Find::Dns { resolver, apps, port, poll, remote_poll } => {
                let app = apps.get(role).cloned().unwrap_or_else(|| format!("skein-{role}"));
                let target = Target {
                    app: app.clone(),
                    port: *port,
                    own_region: self.0.own.region.clone(),
                    poll: *poll,
                    remote_poll: *remote_poll,
                };
                let wake = wake::Means { resolver: Resolver::clone(resolver), port: *port };
                (app, Discovery::dns(Resolver::clone(resolver), target), Some(wake))
            }
            Find::Fixed(peers) => {
                let addrs: Vec<_> = peers.get(role).copied().into_iter().collect();
                let fixed = Discovery::fixed(&addrs, &self.0.own.region);
                (format!("skein-{role}"), fixed, None)
            }
        };
        let target = channel::Target {
            role,
            app,
            own: self.0.own.clone(),
            keys: Arc::clone(&self.0.keys),
            patience: self.0.patience,
            wake,
        };
        Channel::new(target, discovery)
    }
}
