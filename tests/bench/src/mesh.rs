//! The mesh under test: the release binaries as processes on an emulated
//! network, called at the gateway's own address, so that no edge proxy of the
//! emulator is part of any figure.

use crate::{Failure, call::Target, echo, proc, upstream::Upstream};
use ::mesh::config::defaults::METRICS_PORT;
use flynet::{Flynet, Spec};
use skein_proto::admin::v1::{CreateKeyRequest, admin_service_client::AdminServiceClient};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// The operator's, without limits.
const KEY: &str = "sk-skein-0123456789abcdefghijklmnopqrstuvwxyz";
const READY: Duration = Duration::from_secs(60);
/// Longer than the longest run, so that no timer of ours ends an idle stream.
const LONG: &str = "2h";

/// What differs between two meshes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dress {
    /// Keys and metrics are always on; here nothing else is.
    Bare,
    /// With what production has: traces of 1 % of the calls to a collector.
    Full,
    /// The same on a thread per core of this machine.
    Threads,
    /// As bare, to a provider as they are: HTTP/2 over TLS.
    Tls,
}

impl Dress {
    pub(crate) const ALL: [Self; 4] = [Self::Bare, Self::Full, Self::Threads, Self::Tls];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bare => "skein bare",
            Self::Full => "skein full",
            Self::Threads => "skein full threads",
            Self::Tls => "skein bare, TLS",
        }
    }

    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Bare => {
                "gateway -> router -> model-proxy, one thread each as on shared-cpu-1x; API key, \
                 mesh tokens and metrics on, no traces"
            }
            Self::Full => {
                "the same with limits on the key and 1 % of the calls traced to an OTLP collector"
            }
            Self::Threads => "as full, with a thread per core each",
            Self::Tls => {
                "as bare, but its provider speaks HTTP/2 over TLS; what is added is over the plain one"
            }
        }
    }

    const fn is_bare(self) -> bool {
        matches!(self, Self::Bare | Self::Tls)
    }
}

pub(crate) struct Mesh {
    net: Flynet,
    gateway: SocketAddr,
    key: String,
    /// Process id by app.
    pub(crate) pids: BTreeMap<String, u32>,
    /// Where each app tells its metrics.
    pub(crate) metrics: BTreeMap<String, SocketAddr>,
}

/// The root of the workspace, whose `fly/*.toml` are run.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A key with limits of both kinds, which are counted on every call and never
/// reached.
async fn limited_key(gateway: SocketAddr) -> Result<String, Failure> {
    let mut request = tonic::Request::new(CreateKeyRequest {
        tenant: "bench".to_owned(),
        requests_per_minute: 1_000_000_000,
        concurrency: 100_000,
        ..CreateKeyRequest::default()
    });
    request.metadata_mut().insert("authorization", format!("Bearer {KEY}").parse()?);
    let mut admin = AdminServiceClient::new(echo::connect(gateway).await?);
    Ok(admin.create_key(request).await?.into_inner().secret)
}

impl Mesh {
    pub(crate) async fn start(
        dress: Dress,
        programs: &Path,
        root: &Path,
        provider: &Upstream,
        sink: SocketAddr,
    ) -> Result<Self, Failure> {
        let mut spec = Spec::skein(&workspace(), programs, &root.join(dress.name()));
        let mut env = vec![
            ("SKEIN_MESH__MAX_DEADLINE", LONG.to_owned()),
            // More than the idle streams: the limit is another subject.
            ("SKEIN_MESH__HARD_LIMIT", "4096".to_owned()),
        ];
        if dress != Dress::Threads {
            env.push(("SKEIN_RUNTIME__THREADS", "1".to_owned()));
        }
        if !dress.is_bare() {
            env.push(("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{sink}")));
            env.push(("SKEIN_TELEMETRY__SAMPLE", "0.01".to_owned()));
        }
        spec.env.extend(env.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let mut set = |role: &str, name: &str, value: &str| {
            if let Some(app) = spec.app_mut(role) {
                app.secrets.insert(name.to_owned(), value.to_owned());
            }
        };
        set("gateway", "SKEIN_BOOTSTRAP_KEY", KEY);
        set("gateway", "SKEIN_GATEWAY__DEADLINE", LONG);
        set("model-proxy", "OPENAI_BASE_URL", &provider.url());
        if let Some(ca) = &provider.ca {
            set("model-proxy", "SKEIN_PROVIDER__CA_FILE", &ca.display().to_string());
        }
        set("model-proxy", "OPENAI_API_KEY", "sk-instant");
        set("model-proxy", "SKEIN_PROVIDER__TOTAL_TIMEOUT", LONG);
        let net = Flynet::start(spec).await?;
        net.all_ready(READY).await?;
        let (mut pids, mut metrics) = (BTreeMap::new(), BTreeMap::new());
        let mut gateway = None;
        for machine in net.machines() {
            let role = machine.app.trim_start_matches("skein-").to_owned();
            if role == "gateway" {
                gateway = Some(SocketAddr::from((machine.address, 8080)));
            }
            metrics.insert(role.clone(), SocketAddr::from((machine.address, METRICS_PORT)));
            pids.insert(role, machine.pid.ok_or("a machine without a process")?);
        }
        let gateway = gateway.ok_or("no gateway was started")?;
        let key = if dress.is_bare() { KEY.to_owned() } else { limited_key(gateway).await? };
        Ok(Self { net, gateway, key, pids, metrics })
    }

    pub(crate) fn target(&self, model: &str) -> Target {
        Target {
            addr: self.gateway,
            path: "/v1/chat/completions".to_owned(),
            key: self.key.clone(),
            model: format!("openai/{model}"),
        }
    }

    /// Resident MiB, by app.
    pub(crate) fn rss(&self) -> BTreeMap<String, f64> {
        self.pids.iter().map(|(app, pid)| (app.clone(), proc::rss(*pid))).collect()
    }

    pub(crate) fn threads(&self) -> BTreeMap<String, usize> {
        self.pids.iter().map(|(app, pid)| (app.clone(), proc::threads(*pid))).collect()
    }

    /// Machines that are not the processes they were when the mesh started.
    pub(crate) fn restarted(&self) -> Vec<String> {
        let same = |pid: Option<u32>| self.pids.values().any(|known| Some(*known) == pid);
        let machines = self.net.machines().into_iter();
        machines.filter(|machine| !same(machine.pid)).map(|machine| machine.app).collect()
    }

    pub(crate) async fn stop(self) {
        self.net.stop().await;
    }
}
