//! One machine: what it is, and what it is doing.

use crate::{
    checks::{Checked, Verdict},
    events::{Event, Events, What},
    fly_toml::FlyToml,
    maker::Place,
    pace::Pace,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    ops::Deref,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// One machine of the network.
pub(crate) struct Machine {
    place: Place,
    /// What its next start runs; a deploy replaces it.
    pub(crate) release: watch::Sender<Arc<Release>>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) order: watch::Sender<Order>,
    /// Key and value, seen in DNS and by the Machines API.
    pub(crate) metadata: watch::Sender<BTreeMap<String, String>>,
    /// What the checks of its release said last.
    pub(crate) checks: watch::Sender<Vec<Checked>>,
    pub(crate) pace: Pace,
    events: Arc<Events>,
    /// Destroyed.
    pub(crate) gone: CancellationToken,
    /// One verb at a time.
    pub(crate) verb: Mutex<()>,
    /// Requests that the edge has with it.
    pub(crate) load: Arc<AtomicUsize>,
}

/// What a deploy changes.
pub(crate) struct Release {
    /// `FLY_MACHINE_VERSION`, the instance id of the Machines API.
    pub(crate) version: String,
    pub(crate) program: PathBuf,
    pub(crate) config: Arc<FlyToml>,
    /// Guest path and the file that is copied there.
    pub(crate) files: Vec<(String, PathBuf)>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) kill_timeout: Duration,
}

impl Deref for Machine {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    pub(crate) state: State,
    pub(crate) pid: Option<u32>,
    /// Held by SIGSTOP, which Fly knows nothing of.
    pub(crate) frozen: bool,
    /// Taken out of the proxy's choice by hand.
    pub(crate) cordoned: bool,
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
    /// Held with its memory; DNS does not list it.
    Suspended,
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
    /// Changes with each deploy.
    pub version: String,
    /// Held by `freeze`; Fly would still call it started.
    pub frozen: bool,
    pub checks: Vec<Checked>,
}

impl Machine {
    /// Stopped, with nothing of it running.
    pub(crate) fn new(place: Place, release: Release, pace: Pace, events: Arc<Events>) -> Self {
        let own = [("fly_process_group", "app"), ("fly_platform_version", "v2")];
        let own = own.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let machine = Self {
            place,
            release: watch::Sender::new(Arc::new(release)),
            status: watch::Sender::new(Status::default()),
            order: watch::Sender::new(Order::Run),
            metadata: watch::Sender::new(BTreeMap::from(own)),
            checks: watch::Sender::default(),
            pace,
            events,
            gone: CancellationToken::new(),
            verb: Mutex::new(()),
            load: Arc::default(),
        };
        machine.note(What::Created);
        machine
    }

    pub(crate) fn note(&self, what: What) {
        let (machine, app) = (self.id.clone(), self.app.clone());
        let region = self.region.clone();
        self.events.add(Event { at: Instant::now(), machine, app, region, what });
    }

    pub(crate) fn release(&self) -> Arc<Release> {
        Arc::clone(&self.release.borrow())
    }

    pub(crate) fn state(&self) -> State {
        self.status.borrow().state
    }

    pub(crate) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Whether the proxy may send it anything: started, not cordoned, and no check
    /// of a service fails. One that was not asked yet does not count against it.
    pub(crate) fn routable(&self) -> bool {
        let (state, cordoned) = {
            let status = self.status.borrow();
            (status.state, status.cordoned)
        };
        let failing = |c: &Checked| c.service && c.status == Verdict::Critical;
        state == State::Started && !cordoned && !self.checks.borrow().iter().any(failing)
    }

    /// Where its readiness is asked for.
    pub(crate) fn ready_check(&self) -> Option<(SocketAddr, String)> {
        let (port, path) = self.release().config.ready.clone()?;
        Some((SocketAddr::from((self.address, port)), path))
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
            version: self.release().version.clone(),
            frozen: status.frozen,
            checks: self.checks.borrow().clone(),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stopped => "stopped",
            Self::Started => "started",
            Self::Stopping => "stopping",
            Self::Suspended => "suspended",
        })
    }
}
