//! Starting, stopping, crashing, and what is left after it.

use super::{PATIENCE, alive, ask, eventually, machine, spec, temporary, up};
use flynet::{Error, Flynet, State};
use std::{fs, time::Duration};

#[tokio::test]
async fn a_start_wipes_the_machine_and_keeps_its_volume() {
    let root = temporary();
    let net = up(spec(root.path())).await;
    let router = machine(&net, "echo-router");
    assert_eq!(ask(&router, "/starts").await, "here=1 volume=1");
    net.stop_machines("router").await.unwrap();
    net.start_machines("router").await.unwrap();
    net.ready(&router.id, PATIENCE).await.unwrap();
    assert_eq!(ask(&router, "/starts").await, "here=1 volume=2");
    let volume = net.volume(&router.id, "/data").unwrap();
    assert_eq!(fs::read_to_string(volume.join("starts")).unwrap(), "xx");
}

#[tokio::test]
async fn ids_and_volumes_survive_flynet_itself() {
    let root = temporary();
    let net = up(spec(root.path())).await;
    let before = machine(&net, "echo-router");
    net.stop().await;
    assert!(!alive(before.pid.unwrap()));
    let net = up(spec(root.path())).await;
    let after = machine(&net, "echo-router");
    assert_eq!(before.id, after.id);
    assert_eq!(ask(&after, "/starts").await, "here=1 volume=2");
}

#[tokio::test]
async fn a_crash_is_restarted_by_policy_and_a_kill_is_not() {
    let root = temporary();
    let net = up(spec(root.path())).await;
    let before = machine(&net, "echo-router");
    let _cut = super::get(&format!("http://{}:8081/crash", before.address)).await;
    let after = eventually("a second start", async || {
        let now = machine(&net, "echo-router");
        (now.starts == 2 && now.pid.is_some()).then_some(now)
    })
    .await;
    assert_ne!(before.pid, after.pid);
    assert!(after.last_exit.unwrap().contains("SIGABRT"));
    net.ready(&before.id, PATIENCE).await.unwrap();
    net.kill_machines(&before.id).await.unwrap();
    let killed = machine(&net, "echo-router");
    assert_eq!((killed.state, killed.pid), (State::Stopped, None));
    assert!(killed.last_exit.unwrap().contains("SIGKILL"));
}

#[tokio::test]
async fn a_machine_that_does_not_hear_is_killed_after_the_kill_timeout() {
    let root = temporary();
    let mut spec = spec(root.path());
    spec.intervals.kill_timeout = Some(Duration::from_millis(100));
    spec.env.insert("ECHO_STUBBORN".into(), "1".into());
    let net = up(spec).await;
    let router = machine(&net, "echo-router");
    net.stop_machines("router").await.unwrap();
    let log = fs::read_to_string(net.log(&router.id).unwrap()).unwrap();
    assert!(log.contains("told to go") && log.contains("SIGKILL"), "{log}");
    assert!(!alive(router.pid.unwrap()));
}

#[tokio::test]
async fn dropping_a_network_leaves_no_process() {
    let root = temporary();
    let net = up(spec(root.path())).await;
    let pids: Vec<_> = net.machines().iter().filter_map(|machine| machine.pid).collect();
    assert_eq!(pids.len(), 2);
    drop(net);
    assert!(!pids.into_iter().any(alive));
}

#[tokio::test]
async fn a_program_that_ends_at_once_is_reported_with_its_log() {
    let root = temporary();
    let mut spec = spec(root.path());
    spec.apps[1].program = "/bin/false".into();
    let net = Flynet::start(spec).await.unwrap();
    let router = machine(&net, "echo-router");
    let error = net.ready(&router.id, PATIENCE).await.unwrap_err().to_string();
    assert!(error.contains("echo-router") && error.contains("exited with code 1"), "{error}");
}

#[tokio::test]
async fn what_cannot_run_is_refused_with_the_remedy() {
    let root = temporary();
    let mut missing = spec(root.path());
    missing.apps[1].program = root.path().join("router");
    let error = Flynet::start(missing).await.err().unwrap().to_string();
    assert!(error.contains("cargo build -p router"), "{error}");

    let typo = spec(root.path());
    fs::write(&typo.apps[0].config, "app='x-gateway'\nprimary_regoin='iad'\nkill_timout=5")
        .unwrap();
    let error = Flynet::start(typo).await.err().unwrap().to_string();
    assert!(error.contains("primary_regoin") && error.contains("kill_timout"), "{error}");

    let net = up(spec(root.path())).await;
    let second = Flynet::start(spec(root.path())).await;
    assert!(matches!(second, Err(Error::RootInUse(_))));
    let unknown = net.stop_machines("nobody").await;
    assert!(matches!(unknown, Err(Error::NoSuch(_))));
}
