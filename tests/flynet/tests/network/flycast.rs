//! Flycast: the private address that wakes an app.

use super::{
    PATIENCE, ROUTER, ask, eventually, get,
    names::{aaaa, resolver_in},
    spec, temporary, up,
};
use flynet::{Flynet, Link, Listed, Spec, State};
use std::{fs, net::Ipv4Addr, path::Path, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

const NAME: &str = "echo-router.flycast.";

/// Whose router has a service at port 9000, with more keys.
fn woken(root: &Path, keys: &str) -> Spec {
    let mut spec = spec(root);
    let service = format!(
        "{ROUTER}[[services]]\nprotocol = \"tcp\"\ninternal_port = 8081\n{keys}\n\
         [[services.ports]]\nport = 9000\n"
    );
    fs::write(&spec.apps[1].config, service).unwrap();
    spec.intervals.proxy_queue = Some(PATIENCE);
    spec
}

async fn flycast(net: &Flynet, region: &str) -> Ipv4Addr {
    let found = aaaa(&resolver_in(net, region), NAME).await;
    assert_eq!(found.len(), 1);
    found[0].to_ipv4_mapped().unwrap()
}

fn routers(net: &Flynet, state: State) -> Vec<Listed> {
    let all = net.machines().into_iter();
    all.filter(|machine| machine.app == "echo-router" && machine.state == state).collect()
}

/// A connection with a stream on it that does not end.
async fn stream(address: Ipv4Addr) -> TcpStream {
    let mut socket = TcpStream::connect((address, 9000)).await.unwrap();
    socket.write_all(b"GET /ticks HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    timeout(PATIENCE, socket.read_exact(&mut [0; 12])).await.unwrap().unwrap();
    socket
}

#[tokio::test]
async fn a_connection_wakes_the_nearest_stopped_machine() {
    let root = temporary();
    let mut spec = woken(root.path(), "");
    spec.apps[1].placement = vec![("iad".into(), 1), ("nrt".into(), 1), ("fra".into(), 1)];
    let net = up(spec).await;
    let address = flycast(&net, "nrt").await;
    assert_ne!(address, flycast(&net, "iad").await, "each region has its own here");
    net.stop_machines("router").await.unwrap();
    let env = get(&format!("http://{address}:9000/env")).await.unwrap();
    assert!(env.contains("FLY_REGION=nrt"));
    let started = routers(&net, State::Started);
    assert_eq!(started.iter().map(|m| m.region.as_str()).collect::<Vec<_>>(), ["nrt"]);
    // an app without a service has no address, and what is not a port refuses
    assert!(aaaa(&resolver_in(&net, "iad"), "echo-gateway.flycast.").await.is_empty());
    assert!(TcpStream::connect((address, 8081)).await.is_err());
}

#[tokio::test]
async fn direct_traffic_wakes_nobody() {
    let root = temporary();
    let net = up(woken(root.path(), "")).await;
    let router = routers(&net, State::Started).remove(0);
    net.stop_machines("router").await.unwrap();
    assert!(get(&format!("http://{}:8081/env", router.address)).await.is_none());
    assert_eq!(routers(&net, State::Stopped).len(), 1);
    assert!(routers(&net, State::Stopped)[0].starts == 1);
}

#[tokio::test]
async fn autostop_does_not_see_direct_traffic() {
    let root = temporary();
    let mut spec = woken(root.path(), "auto_stop_machines = \"stop\"");
    spec.intervals.speed = Some(100);
    spec.intervals.autostop = Some(Duration::from_millis(100));
    // it may be stopped before it was ever ready
    let net = Flynet::start(spec).await.unwrap();
    // a connection through the proxy keeps the machine
    let through = stream(flycast(&net, "iad").await).await;
    let router = routers(&net, State::Started).remove(0);
    let mut direct = TcpStream::connect((router.address, 8081)).await.unwrap();
    direct.write_all(b"GET /ticks HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // three passes of the loop
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(routers(&net, State::Started).len(), 1);
    drop(through);
    // one over 6PN does not: it is stopped at work and leaves DNS
    eventually("stopped", async || routers(&net, State::Stopped).pop()).await;
    let _end = timeout(PATIENCE, direct.read_to_end(&mut Vec::new())).await.unwrap();
    assert!(aaaa(&resolver_in(&net, "iad"), "echo-router.internal.").await.is_empty());
}

#[tokio::test]
async fn a_connection_stays_with_its_machine_and_limits_hold() {
    let root = temporary();
    let limits = "[services.concurrency]\nsoft_limit = 1\nhard_limit = 2";
    let mut spec = woken(root.path(), limits);
    spec.apps[1].placement = vec![("iad".into(), 2)];
    spec.intervals.proxy_queue = Some(super::QUEUE);
    let net = up(spec).await;
    let address = flycast(&net, "iad").await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(stream(address).await);
    }
    for machine in routers(&net, State::Started) {
        assert_eq!(ask(&machine, "/open").await, "2");
    }
    let mut refused = TcpStream::connect((address, 9000)).await.unwrap();
    let ended = timeout(PATIENCE, refused.read_exact(&mut [0])).await.unwrap();
    assert!(ended.is_err());
}

#[tokio::test]
async fn a_connection_is_cut_when_the_proxy_has_had_it_long_enough() {
    let root = temporary();
    let mut spec = woken(root.path(), "");
    spec.intervals.proxy_cut = Some(Duration::from_millis(300));
    let net = up(spec).await;
    let mut socket = stream(flycast(&net, "iad").await).await;
    let begun = Instant::now();
    let _end = timeout(PATIENCE, socket.read_to_end(&mut Vec::new())).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn distance_and_cuts_hold_for_flycast_too() {
    let root = temporary();
    let rtt = Duration::from_millis(100);
    let mut spec = woken(root.path(), "");
    spec.apps[1].placement = vec![("iad".into(), 1)];
    spec.apps[1].stopped = vec![("nrt".into(), 1)];
    spec.links = vec![("iad".into(), "nrt".into(), Link { rtt })];
    let net = up(spec).await;
    let address = flycast(&net, "nrt").await;
    let begun = Instant::now();
    // nrt's own machine sleeps: iad answers, and nrt's is woken beside it
    let env = get(&format!("http://{address}:9000/env")).await.unwrap();
    assert!(env.contains("FLY_REGION=iad") && begun.elapsed() >= rtt);
    eventually("nrt woken", async || (routers(&net, State::Started).len() == 2).then_some(()))
        .await;
    net.stop_machines(&routers(&net, State::Started)[1].id).await.unwrap();
    net.partition("iad", "nrt").unwrap();
    let env = get(&format!("http://{address}:9000/env")).await.unwrap();
    assert!(env.contains("FLY_REGION=nrt"), "nobody beyond a cut is chosen");
}
