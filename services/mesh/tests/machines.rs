//! The Machines API as a service uses it, over a real unix socket: siblings and
//! wakes, and what happens when the platform says no.

#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::{get, post},
};
use mesh::{
    Call, World,
    config::Life,
    identity::Identity,
    keys::{self, Generated},
    load::{Limits, Load},
    machines::{Machines, Started},
    ready::Readiness,
    serve::{self, Private},
};
use serde_json::{Value, json};
use skein_proto::mesh::v1::{WakeRequest, peer_service_client::PeerServiceClient};
use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_util::sync::DropGuard;
use tonic::{Code, service::Routes};

/// Two stopped machines in each region; `started` in the order of the asking.
#[derive(Clone, Default)]
struct Platform {
    started: Arc<Mutex<Vec<String>>>,
}

type Region = Query<HashMap<String, String>>;

async fn list(State(platform): State<Platform>, Query(query): Region) -> Json<Value> {
    let started = platform.started.lock().unwrap().clone();
    let machine = |id: &str, region: &str| {
        let state = if started.iter().any(|other| other == id) { "started" } else { "stopped" };
        json!({ "id": id, "region": region, "state": state, "private_ip": "fdaa::2" })
    };
    let region = query["region"].as_str();
    Json(json!([
        machine(&format!("{region}1"), region),
        machine(&format!("{region}2"), region),
        { "id": "standby", "region": region, "state": "stopped", "config": { "standbys": ["x"] } },
    ]))
}

async fn start(State(platform): State<Platform>, Path(id): Path<String>) -> StatusCode {
    assert_ne!(id, "standby");
    platform.started.lock().unwrap().push(id);
    StatusCode::OK
}

impl Platform {
    fn serve(&self) -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("api");
        let app = Router::new()
            .route("/v1/apps/skein-router/machines", get(list))
            .route("/v1/apps/skein-router/machines/{id}/start", post(start))
            .with_state(self.clone());
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(axum::serve(listener, app).into_future());
        (directory, socket)
    }

    fn started(&self) -> Vec<String> {
        self.started.lock().unwrap().clone()
    }
}

struct Served {
    addr: SocketAddr,
    load: Load,
    readiness: Readiness,
    _stop: DropGuard,
}

async fn serve(made: &Generated, socket: PathBuf, limits: Limits) -> Served {
    let mut world = World::local("router", made, &[]).await.unwrap();
    world.load = Load::new(limits);
    world.machines = Some(Machines::new(&socket, world.identity.clone()));
    world.life = Life { fly_api: socket, limits, ..Life::default() };
    let (addr, load, readiness) = (world.addr().unwrap(), world.load.clone(), Readiness::default());
    let stop = world.stop.clone().drop_guard();
    let routes = Routes::default();
    let service = Private { routes, issuers: &["gateway"], readiness: readiness.clone() };
    tokio::spawn(serve::private(world, service));
    Served { addr, load, readiness, _stop: stop }
}

fn made() -> Generated {
    keys::generate(&["gateway", "router"]).unwrap()
}

async fn until(what: &str, check: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what} did not happen");
}

#[tokio::test]
async fn one_stopped_machine_of_the_region_is_started_a_second() {
    let platform = Platform::default();
    let (_directory, socket) = platform.serve();
    let machines = Machines::new(&socket, Identity::local("router"));
    assert_eq!(machines.start_one("nrt").await.unwrap(), Started::One);
    assert_eq!(machines.start_one("nrt").await.unwrap(), Started::TooSoon);
    until("the second start", || platform.started().len() == 1).await;
    let mut outcomes = Vec::new();
    while !matches!(outcomes.last(), Some(Started::None)) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        outcomes.push(machines.start_one("nrt").await.unwrap());
    }
    let mut started = platform.started();
    started.sort_unstable();
    assert_eq!(started, ["nrt1", "nrt2"], "each once, and no standby");
}

#[tokio::test]
async fn a_machine_above_its_soft_limit_starts_siblings_of_its_own_region() {
    let (made, platform) = (made(), Platform::default());
    let (_directory, socket) = platform.serve();
    let served = serve(&made, socket, Limits { soft: 2, hard: 10 }).await;
    let busy: Vec<_> = (0..2).map(|_| served.load.work()).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(platform.started().is_empty(), "at the limit is not above it");
    let more = served.load.work();
    until("two siblings", || platform.started().len() == 2).await;
    assert!(platform.started().iter().all(|id| id.starts_with("local")));
    drop((busy, more));
}

#[tokio::test]
async fn a_live_machine_wakes_another_region_for_those_with_a_token() {
    let (made, platform) = (made(), Platform::default());
    let (_directory, socket) = platform.serve();
    let served = serve(&made, socket, Limits { soft: 2, hard: 10 }).await;
    let peers = [("router", served.addr)];
    let caller = World::local("gateway", &made, &peers).await.unwrap();
    let mut peer = PeerServiceClient::new(caller.network.channel("router"));
    let call = || Call::new("", "gateway", Duration::from_secs(10));
    let wake = |region: &str| call().request(WakeRequest { region: region.to_owned() });
    let woken = peer.wake(wake("nrt")).await.unwrap().into_inner();
    assert_eq!(woken.started, 1);
    assert!(platform.started()[0].starts_with("nrt"));
    let again = peer.wake(wake("nrt")).await.unwrap().into_inner();
    assert_eq!(again.started, 0, "once a second");
    for wrong in ["", "../iad", "nrt?x=1"] {
        assert_eq!(peer.wake(wake(wrong)).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", served.addr));
    let mut bare = PeerServiceClient::new(endpoint.unwrap().connect().await.unwrap());
    let refused = bare.wake(WakeRequest { region: "nrt".to_owned() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_platform_that_is_not_there_degrades_and_breaks_nothing() {
    let made = made();
    let nowhere = PathBuf::from("no-such-socket");
    let served = serve(&made, nowhere, Limits { soft: 1, hard: 10 }).await;
    let busy: Vec<_> = (0..3).map(|_| served.load.work()).collect();
    until("a reason", || !served.readiness.state().degraded.is_empty()).await;
    let state = served.readiness.state();
    assert!(state.is_ready());
    assert!(state.degraded[0].contains("no-such-socket is not there"), "{:?}", state.degraded);
    drop(busy);
}
