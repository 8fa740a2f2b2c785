//! One machine: what it is, and what it is doing.

use crate::fly_toml::FlyToml;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Mutex, watch};

/// What never changes while the network lives.
pub(crate) struct Machine {
    /// 14 hex digits, the same after every restart.
    pub(crate) id: String,
    pub(crate) app: String,
    pub(crate) region: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) program: PathBuf,
    pub(crate) config: Arc<FlyToml>,
    /// Wiped at every start.
    pub(crate) directory: PathBuf,
    /// Mount destination and the directory that stands for it.
    pub(crate) volumes: Vec<(String, PathBuf)>,
    /// Guest path and the file that is copied there.
    pub(crate) files: Vec<(String, PathBuf)>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) log: PathBuf,
    pub(crate) kill_timeout: Duration,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) order: watch::Sender<Order>,
    /// One verb at a time.
    pub(crate) verb: Mutex<()>,
    /// Requests that the edge has with it.
    pub(crate) load: Arc<AtomicUsize>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    pub(crate) state: State,
    pub(crate) pid: Option<u32>,
    pub(crate) starts: u32,
    /// How the last process ended.
    pub(crate) exit: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Stopped,
    /// The process exists; it may still be booting, and DNS lists it.
    Started,
    /// Told to go; DNS no longer lists it.
    Stopping,
}

/// What the machine's supervisor shall bring about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Run,
    Stop,
    Kill,
}

/// A machine as `flynet ps` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listed {
    pub id: String,
    pub app: String,
    pub region: String,
    pub state: State,
    pub address: Ipv4Addr,
    pub pid: Option<u32>,
    pub starts: u32,
    pub last_exit: Option<String>,
}

impl Machine {
    pub(crate) fn state(&self) -> State {
        self.status.borrow().state
    }

    pub(crate) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Where its readiness is asked for.
    pub(crate) fn ready_check(&self) -> Option<(SocketAddr, &str)> {
        let (port, path) = self.config.ready.as_ref()?;
        Some((SocketAddr::from((self.address, *port)), path))
    }

    pub(crate) fn listed(&self) -> Listed {
        let status = self.status.borrow();
        Listed {
            id: self.id.clone(),
            app: self.app.clone(),
            region: self.region.clone(),
            state: status.state,
            address: self.address,
            pid: status.pid,
            starts: status.starts,
            last_exit: status.exit.clone(),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stopped => "stopped",
            Self::Started => "started",
            Self::Stopping => "stopping",
        })
    }
}
