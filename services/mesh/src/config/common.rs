//! The settings every service has: who it is, where it listens, whom it calls.

use super::{Life, Reader, Secret, Time, key};
use crate::{identity::Identity, runtime};
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

/// Numbers that the `fly/*.toml` files repeat; a test compares them.
pub mod defaults {
    use std::time::Duration;

    pub const PUBLIC_PORT: u16 = 8080;
    pub const GRPC_PORT: u16 = 50051;
    pub const HEALTH_PORT: u16 = 8081;
    pub const METRICS_PORT: u16 = 9091;
    pub const NOTICE: Duration = Duration::from_secs(2);
    pub const GRACE: Duration = Duration::from_secs(25);
}

/// The roles of the mesh; an app's name ends with one.
pub const ROLES: [&str; 4] = ["gateway", "router", "model-proxy", "retrieval"];

#[derive(Clone, Debug)]
pub struct Common {
    pub identity: Identity,
    /// Host part of every listener: `[::]` on Fly.
    pub host: String,
    pub grpc_port: u16,
    /// Port on which every private app serves gRPC.
    pub peer_port: u16,
    pub health_port: u16,
    pub metrics_port: u16,
    pub mesh_key: Secret,
    pub mesh_peers: String,
    /// DNS server of the private network; `None`: the system's.
    pub dns: Option<SocketAddr>,
    /// Shortest time between two lookups of one name.
    pub poll: Duration,
    /// The same for machines of other regions.
    pub remote_poll: Duration,
    /// How long after the last machine of an app was lost calls wait for one.
    pub patience: Duration,
    /// Longest time a call may take, streams included.
    pub max_deadline: Duration,
    pub notice: Duration,
    pub grace: Duration,
    pub life: Life,
    pub log: String,
    pub otlp_endpoint: Option<String>,
    /// Share of the traces that begin here which are exported, 0 to 1.
    pub trace_sample: f64,
    /// Threads that serve.
    pub threads: usize,
    /// Directory for everything the process writes, and whether it was chosen.
    pub data_dir: PathBuf,
    pub data_dir_set: bool,
    pub peer_apps: BTreeMap<&'static str, String>,
    /// On a Fly machine (or its emulation), not on somebody's desk.
    pub on_fly: bool,
}

impl Common {
    /// `role` is one of [`ROLES`].
    pub fn read(reader: &mut Reader<'_>, role: &'static str) -> Option<Self> {
        let identity = Identity::read(reader, role);
        let time = |reader: &mut Reader<'_>, path, default: Duration| {
            reader.or(key(path), Time(default)).0
        };
        let data_dir: Option<PathBuf> = reader.optional(key("data.dir"));
        let mut peer_apps = BTreeMap::new();
        for (peer, variable) in [
            ("gateway", "SKEIN_GATEWAY_APP"),
            ("router", "SKEIN_ROUTER_APP"),
            ("model-proxy", "SKEIN_MODEL_PROXY_APP"),
            ("retrieval", "SKEIN_RETRIEVAL_APP"),
        ] {
            let path = match peer {
                "gateway" => "apps.gateway",
                "router" => "apps.router",
                "model-proxy" => "apps.model-proxy",
                _ => "apps.retrieval",
            };
            let default = sibling(&identity.app, role, peer);
            peer_apps.insert(peer, reader.or(key(path).env(variable), default));
        }
        let grpc = if role == "gateway" {
            reader.or(key("listen.port").env("PORT"), defaults::PUBLIC_PORT)
        } else {
            reader.or(key("listen.grpc"), defaults::GRPC_PORT)
        };
        let on_fly = reader.platform("FLY_MACHINE_ID").is_some();
        let mesh_key = reader.required_secret(key("mesh.key").env("SKEIN_MESH_KEY"));
        let mesh_peers = reader.required(key("mesh.peers").env("SKEIN_MESH_PEERS"));
        let poll = time(reader, "mesh.poll", Duration::from_secs(2));
        if poll < Duration::from_millis(10) {
            reader.complain(key("mesh.poll"), "below 10ms the DNS server would drown");
        }
        Some(Self {
            host: reader.or(key("listen.host"), "[::]".to_owned()),
            grpc_port: grpc,
            peer_port: reader.or(key("mesh.port"), defaults::GRPC_PORT),
            health_port: reader.or(key("listen.health"), defaults::HEALTH_PORT),
            metrics_port: reader.or(key("listen.metrics"), defaults::METRICS_PORT),
            dns: reader.optional(key("mesh.dns")),
            poll,
            remote_poll: time(reader, "mesh.remote-poll", Duration::from_secs(30)),
            patience: time(reader, "mesh.patience", Duration::from_secs(30)),
            max_deadline: time(reader, "mesh.max-deadline", Duration::from_secs(600)),
            notice: time(reader, "mesh.notice", defaults::NOTICE),
            grace: time(reader, "mesh.grace", defaults::GRACE),
            life: Life::read(reader),
            log: reader.or(key("log.filter").env("SKEIN_LOG"), "info".to_owned()),
            otlp_endpoint: reader
                .optional(key("telemetry.otlp").env("OTEL_EXPORTER_OTLP_ENDPOINT")),
            trace_sample: trace_sample(reader),
            threads: threads(reader),
            data_dir_set: data_dir.is_some(),
            data_dir: data_dir.unwrap_or_else(|| PathBuf::from("data")),
            peer_apps,
            on_fly,
            identity,
            mesh_key: mesh_key?,
            mesh_peers: mesh_peers?,
        })
    }

    /// The address of a listener on `port`.
    pub fn address(&self, port: u16) -> String {
        format!("{}:{port}", self.host)
    }

    /// Where a service that owns state keeps it: `url`, or a SQLite file named
    /// after `role` in the data directory. On Fly the root file system is wiped
    /// at every deploy, so there a directory must have been chosen and be there.
    pub fn state_url(&self, url: Option<String>, variable: &str) -> Result<String, String> {
        if let Some(url) = url {
            return Ok(url);
        }
        if self.on_fly && !(self.data_dir_set && self.data_dir.is_dir()) {
            return Err(format!(
                "this app owns state, and everything outside a volume is lost at the next \
                 deploy: set {variable}, or mount a volume and name it in SKEIN_DATA__DIR \
                 (now {:?}, which {})",
                self.data_dir,
                if self.data_dir.is_dir() { "was not chosen" } else { "does not exist" }
            ));
        }
        Ok(format!("sqlite:{}", self.data_dir.join(format!("{}.db", self.identity.role)).display()))
    }
}

fn threads(reader: &mut Reader<'_>) -> usize {
    let threads = reader.or(key("runtime.threads"), runtime::cores());
    if !(1..=runtime::MOST).contains(&threads) {
        let message = format!("must lie between 1 and {}", runtime::MOST);
        reader.complain(key("runtime.threads"), message);
    }
    threads
}

/// All of them unless told otherwise.
fn trace_sample(reader: &mut Reader<'_>) -> f64 {
    let share = reader.or(key("telemetry.sample"), 1.0);
    if !(0.0..=1.0).contains(&share) {
        reader.complain(key("telemetry.sample"), "must lie between 0 and 1");
    }
    share
}

/// `acme-staging-router` seen from itself: its model-proxy is
/// `acme-staging-model-proxy`. Without our suffix, the role's own name.
fn sibling(app: &str, role: &str, peer: &str) -> String {
    match app.strip_suffix(role) {
        Some(prefix) if prefix.is_empty() || prefix.ends_with('-') => format!("{prefix}{peer}"),
        _ => format!("skein-{peer}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn common(environment: &[(&str, &str)]) -> Common {
        let mut all = vec![("SKEIN_MESH_KEY", "k"), ("SKEIN_MESH_PEERS", "p")];
        all.extend_from_slice(environment);
        let sources = Sources::of(&all);
        let mut reader = sources.reader();
        let common = Common::read(&mut reader, "router");
        reader.finish(|| common).unwrap().0
    }

    #[test]
    fn peers_are_named_after_our_own_app() {
        let common = common(&[
            ("FLY_APP_NAME", "acme-staging-router"),
            ("SKEIN_RETRIEVAL_APP", "elsewhere"),
        ]);
        assert_eq!(common.peer_apps["model-proxy"], "acme-staging-model-proxy");
        assert_eq!(common.peer_apps["retrieval"], "elsewhere");
    }

    #[test]
    fn on_fly_state_needs_a_database_or_a_volume() {
        let desk = common(&[]);
        assert_eq!(desk.state_url(None, "DATABASE_URL").unwrap(), "sqlite:data/router.db");
        let bare = common(&[("FLY_MACHINE_ID", "148e")]);
        let refused = bare.state_url(None, "DATABASE_URL").unwrap_err();
        assert!(
            refused.contains("DATABASE_URL") && refused.contains("SKEIN_DATA__DIR"),
            "{refused}"
        );
        let url = Some("postgres://db/x".to_owned());
        assert_eq!(bare.state_url(url, "DATABASE_URL").unwrap(), "postgres://db/x");
        let missing = common(&[("FLY_MACHINE_ID", "148e"), ("SKEIN_DATA__DIR", "no-such-volume")]);
        assert!(missing.state_url(None, "DATABASE_URL").is_err());
    }
}
