//! Machines that exist and do not answer: frozen, suspended, not booted yet.

use super::{ask, eventually, get, machine, names, spec, temporary, up};
use flynet::{Error, Flynet, State, What};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(200);

async fn answers(net: &Flynet) -> bool {
    let router = machine(net, "echo-router");
    let url = format!("http://{}:8081/readyz", router.address);
    matches!(tokio::time::timeout(SHORT, get(&url)).await, Ok(Some(_)))
}

async fn listed(net: &Flynet) -> usize {
    names::aaaa(&names::resolver(net), "echo-router.internal.").await.len()
}

#[tokio::test]
async fn a_frozen_machine_is_listed_and_does_not_answer() {
    let root = temporary();
    let net = up(spec(root.path())).await;
    net.freeze("router").await.unwrap();
    let router = machine(&net, "echo-router");
    assert!(router.frozen && router.state == State::Started);
    assert!(!answers(&net).await);
    assert_eq!(listed(&net).await, 1);
    net.thaw("router").await.unwrap();
    eventually("an answer", async || answers(&net).await.then_some(())).await;
    assert_eq!(machine(&net, "echo-router").pid, router.pid, "the same process");
    let what: Vec<_> = net.events().into_iter().map(|event| event.what).collect();
    assert!(what.contains(&What::Frozen) && what.contains(&What::Thawed));
    net.stop_machines("router").await.unwrap();
    assert!(matches!(net.freeze("router").await, Err(Error::NotRunning { .. })));
}

#[tokio::test]
async fn a_network_with_a_frozen_machine_ends_without_waiting_for_it() {
    let root = temporary();
    let mut spec = spec(root.path());
    spec.intervals.kill_timeout = Some(Duration::from_secs(3600));
    let net = up(spec).await;
    net.freeze("router").await.unwrap();
    let pid = machine(&net, "echo-router").pid.unwrap();
    net.stop().await;
    assert!(!super::alive(pid));
}

#[tokio::test]
async fn a_suspended_machine_leaves_dns_and_comes_back_as_it_was() {
    let root = temporary();
    let net = up(spec(root.path())).await;
    let before = machine(&net, "echo-router");
    net.suspend("router").await.unwrap();
    let router = machine(&net, "echo-router");
    assert_eq!((router.state, router.pid), (State::Suspended, before.pid));
    assert_eq!(listed(&net).await, 0);
    assert!(!answers(&net).await);
    net.start_machines("router").await.unwrap();
    assert_eq!(listed(&net).await, 1);
    assert_eq!(ask(&before, "/starts").await, "here=1 volume=1", "memory and files are kept");
    assert_eq!(machine(&net, "echo-router").pid, before.pid);

    // stopped out of its sleep, the next start is a cold one
    net.suspend("router").await.unwrap();
    net.stop_machines("router").await.unwrap();
    assert_eq!(machine(&net, "echo-router").state, State::Stopped);
    net.start_machines("router").await.unwrap();
    net.ready(&before.id, super::PATIENCE).await.unwrap();
    assert_eq!(ask(&before, "/starts").await, "here=1 volume=2");
    let line = net.machines_over_time();
    let counts: Vec<_> =
        line.rows.iter().filter(|row| row.app == before.app).map(|row| row.machines).collect();
    assert_eq!(counts, [1, 0, 1, 0, 1], "{line}");
}

#[tokio::test]
async fn a_machine_is_in_dns_before_its_program_runs() {
    let root = temporary();
    let mut spec = spec(root.path());
    spec.intervals.boot = Some(Duration::from_secs(3600));
    let net = Flynet::start(spec).await.unwrap();
    let router = machine(&net, "echo-router");
    assert_eq!((router.state, router.pid), (State::Started, None));
    assert_eq!(listed(&net).await, 1);
    let refused = tokio::net::TcpStream::connect((router.address, 8081)).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    net.stop_machines("router").await.unwrap();
    assert_eq!(machine(&net, "echo-router").starts, 0);
}
