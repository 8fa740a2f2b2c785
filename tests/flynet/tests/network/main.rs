//! A network of echo machines, seen from outside.
#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]
#![expect(clippy::panic, reason = "a test that waited long enough has failed")]

mod binary;
mod deploys;
mod distance;
mod edge;
mod faults;
mod flycast;
mod health;
mod holds;
mod isolation;
mod lifecycle;
mod machines_api;
mod names;
mod policies;
mod postgres;
mod scaling;

use bytes::Bytes;
use flynet::{App, Flynet, Intervals, Listed, Spec};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

const ECHO: &str = env!("CARGO_BIN_EXE_flynet-echo");
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the proxy looks for a machine where a test wants to see that it finds none.
const QUEUE: Duration = Duration::from_millis(200);

const GATEWAY: &str = r#"
app = "echo-gateway"
primary_region = "iad"
kill_signal = "SIGTERM"
[env]
PORT = "8080"
[http_service]
internal_port = 8080
[http_service.http_options]
h2_backend = true
[[restart]]
policy = "always"
"#;

const ROUTER: &str = r#"
app = "echo-router"
primary_region = "iad"
kill_signal = "SIGTERM"
[env]
PORT = "8081"
DATA_DIR = "/data"
AGENTS = "/app/agents.toml"
[checks.ready]
type = "http"
port = 8081
path = "/readyz"
[[mounts]]
source = "router_data"
destination = "/data"
[[files]]
guest_path = "/app/agents.toml"
local_path = "fly/agents.toml"
[[restart]]
policy = "always"
"#;

/// A gateway and a router in `iad`, both echoes.
fn spec(root: &Path) -> Spec {
    let fly = root.join("fly");
    fs::create_dir_all(&fly).unwrap();
    fs::write(fly.join("agents.toml"), "[agent.default]\n").unwrap();
    let app = |role: &str, config: &str| {
        let path = fly.join(format!("{role}.toml"));
        fs::write(&path, config).unwrap();
        App {
            role: role.to_owned(),
            config: path,
            program: PathBuf::from(ECHO),
            placement: vec![("iad".to_owned(), 1)],
            stopped: vec![],
            env: [].into(),
            secrets: [].into(),
        }
    };
    Spec {
        apps: vec![app("gateway", GATEWAY), app("router", ROUTER)],
        root: root.join("net"),
        workdir: root.to_owned(),
        prefix: None,
        edge_port: 0,
        intervals: Intervals {
            proxy_queue: Some(QUEUE),
            // streams that a test still holds do not keep a machine from going
            kill_timeout: Some(Duration::from_secs(1)),
            ..Intervals::default()
        },
        links: vec![],
        peers: vec![],
        env: [].into(),
        postgres: None,
    }
}

fn temporary() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Started and ready.
async fn up(spec: Spec) -> Flynet {
    let net = Flynet::start(spec).await.unwrap();
    net.all_ready(PATIENCE).await.unwrap();
    net
}

fn machine(net: &Flynet, app: &str) -> Listed {
    net.machines().into_iter().find(|machine| machine.app == app).unwrap()
}

fn client() -> Client<HttpConnector, Empty<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

async fn get(url: &str) -> Option<String> {
    let response = client().get(url.parse().unwrap()).await.ok()?;
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some(String::from_utf8_lossy(&body).into_owned())
}

/// Asks one machine, past edge and DNS.
async fn ask(machine: &Listed, path: &str) -> String {
    let port = if machine.app.ends_with("gateway") { 8080 } else { 8081 };
    get(&format!("http://{}:{port}{path}", machine.address)).await.unwrap()
}

/// Looks until there is something to see, or gives up.
async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        let mut every = tokio::time::interval(Duration::from_millis(10));
        loop {
            every.tick().await;
            if let Some(seen) = look().await {
                return seen;
            }
        }
    };
    match tokio::time::timeout(PATIENCE, looking).await {
        Ok(seen) => seen,
        Err(_) => panic!("never seen: {what}"),
    }
}

/// Whether a process exists and is more than a zombie.
fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}
