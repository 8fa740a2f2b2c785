//! What a network is made of.

use crate::links::Link;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

/// The apps of Skein, in the order in which they are shown.
pub const ROLES: [&str; 4] = ["gateway", "router", "model-proxy", "retrieval"];

#[derive(Clone, Debug)]
pub struct Spec {
    pub apps: Vec<App>,
    /// Everything that is written lies below this directory.
    pub root: PathBuf,
    /// Where `fly deploy` would run: `[[files]]` paths start here.
    pub workdir: PathBuf,
    /// App names become `<prefix>-<role>` instead of those of the files.
    pub prefix: Option<String>,
    /// Port of the public edge on 127.0.0.1; 0: any free one.
    pub edge_port: u16,
    pub intervals: Intervals,
    /// Pairs of regions with a distance between them; only these can be cut apart.
    pub links: Vec<(String, String, Link)>,
    /// Names of the organisation's WireGuard peers.
    pub peers: Vec<String>,
    /// Variables of every machine, above `[env]`.
    pub env: BTreeMap<String, String>,
    /// An external Postgres, if apps share one.
    pub postgres: Option<Postgres>,
}

/// A server as Fly's Managed Postgres: of no app, in one region, its data below
/// the root.
#[derive(Clone, Debug)]
pub struct Postgres {
    pub region: String,
    /// Roles that get its URL as the secret `DATABASE_URL`, as by `fly mpg attach`.
    pub attached: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct App {
    pub role: String,
    /// Its `fly.toml`.
    pub config: PathBuf,
    pub program: PathBuf,
    /// Region and number of machines; listed twice, a region gets the sum.
    pub placement: Vec<(String, usize)>,
    /// Machines that exist besides and are stopped until somebody starts them.
    pub stopped: Vec<(String, usize)>,
    /// Variables of this app, above those of the whole network.
    pub env: BTreeMap<String, String>,
    /// As `fly secrets`: above everything, and never shown.
    pub secrets: BTreeMap<String, String>,
}

/// Intervals that a test scales down; `None` leaves the service's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Intervals {
    pub poll: Option<Duration>,
    pub notice: Option<Duration>,
    pub grace: Option<Duration>,
    pub kill_timeout: Option<Duration>,
    /// How many times as fast as Fly its own clocks run: health checks, the wait
    /// for a deployed machine, the window of the restart policy.
    pub speed: Option<u32>,
    /// How long Fly Proxy looks for a machine before it refuses; not divided.
    pub proxy_queue: Option<Duration>,
    /// The longest life of a connection through Fly Proxy: ten minutes on Fly, when a
    /// proxy is restarted; not divided.
    pub proxy_cut: Option<Duration>,
    /// Between two passes of the autostop loop.
    pub autostop: Option<Duration>,
    /// Between a machine's `started`, when DNS lists it, and its program.
    pub boot: Option<Duration>,
}

impl Spec {
    /// The four apps of `<workdir>/fly`, one machine each in `iad`, with the
    /// programs of `programs` (such as `target/debug`).
    pub fn skein(workdir: &Path, programs: &Path, root: &Path) -> Self {
        let app = |role: &str| App {
            role: role.to_owned(),
            config: workdir.join("fly").join(format!("{role}.toml")),
            program: programs.join(role),
            placement: vec![("iad".to_owned(), 1)],
            stopped: Vec::new(),
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
        };
        Self {
            apps: ROLES.into_iter().map(app).collect(),
            root: root.to_owned(),
            workdir: workdir.to_owned(),
            prefix: None,
            edge_port: 0,
            intervals: Intervals::default(),
            links: Vec::new(),
            peers: Vec::new(),
            env: BTreeMap::new(),
            postgres: None,
        }
    }

    /// A gateway, a router and a model-proxy in each of `regions`; retrieval with
    /// its volume, and Postgres for keys and runs, in the first.
    pub fn across(&mut self, regions: &[String]) {
        let Some(first) = regions.first() else { return };
        for app in &mut self.apps {
            let here = if app.role == "retrieval" { &regions[..1] } else { regions };
            app.placement = here.iter().map(|region| (region.clone(), 1)).collect();
        }
        let attached = ["gateway", "router"].map(str::to_owned).to_vec();
        self.postgres = Some(Postgres { region: first.clone(), attached });
    }

    pub fn app_mut(&mut self, role: &str) -> Option<&mut App> {
        self.apps.iter_mut().find(|app| app.role == role)
    }
}

impl Intervals {
    /// The variables that carry them to the services.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (String, String)> {
        [("POLL", self.poll), ("NOTICE", self.notice), ("GRACE", self.grace)]
            .into_iter()
            .filter_map(|(name, span)| Some((name, span?)))
            .map(|(name, span)| (format!("SKEIN_MESH__{name}"), format!("{}ms", span.as_millis())))
    }
}
