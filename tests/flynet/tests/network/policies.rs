//! What becomes of a machine whose program ends.

use super::{PATIENCE, ROUTER, ask, eventually, get, machine, names, spec, temporary, up};
use flynet::{Error, Flynet, Spec, State, What};
use std::{fs, path::Path, time::Duration};
use tokio::time::Instant;

/// A router under this policy.
fn with_policy(root: &Path, policy: &str) -> Spec {
    let spec = spec(root);
    let text = ROUTER.replace("policy = \"always\"", &format!("policy = \"{policy}\""));
    fs::write(&spec.apps[1].config, text).unwrap();
    spec
}

async fn leave(net: &Flynet, code: u8) {
    let router = machine(net, "echo-router");
    let _cut = get(&format!("http://{}:8081/exit/{code}", router.address)).await;
}

async fn starts(net: &Flynet, count: u32) {
    eventually("another start", async || {
        let router = machine(net, "echo-router");
        (router.starts == count && router.pid.is_some()).then_some(())
    })
    .await;
    net.ready(&machine(net, "echo-router").id, PATIENCE).await.unwrap();
}

async fn stopped(net: &Flynet) {
    eventually("stopped", async || {
        (machine(net, "echo-router").state == State::Stopped).then_some(())
    })
    .await;
}

#[tokio::test]
async fn on_failure_restarts_a_failure_and_lets_a_clean_exit_rest() {
    let root = temporary();
    let net = up(with_policy(root.path(), "on-failure")).await;
    leave(&net, 3).await;
    starts(&net, 2).await;
    assert_eq!(machine(&net, "echo-router").last_exit.unwrap(), "exited with code 3");
    let since = Instant::now();
    leave(&net, 0).await;
    let stopped = net.happened("router", since, PATIENCE, |what| *what == What::Stopped);
    assert_eq!(stopped.await.unwrap().machine, machine(&net, "echo-router").id);
    let router = machine(&net, "echo-router");
    assert_eq!((router.starts, router.pid), (2, None));
    let soon = Duration::from_millis(10);
    let never = net.happened("router", since, soon, |what| *what == What::Frozen).await;
    assert!(matches!(never, Err(Error::NotHappened { .. })));
    let what: Vec<_> =
        net.events().into_iter().filter(|event| event.machine == router.id).collect();
    assert!(what.iter().any(|e| e.what == What::Exited { code: Some(3), signal: None }));
    assert_eq!(what.last().unwrap().what, What::Stopped);
    // it can be started again
    net.start_machines("router").await.unwrap();
    starts(&net, 3).await;
}

#[tokio::test]
async fn always_restarts_a_clean_exit_and_never_restarts_nothing() {
    let root = temporary();
    let net = up(with_policy(root.path(), "always")).await;
    leave(&net, 0).await;
    starts(&net, 2).await;
    net.stop().await;
    let net = up(with_policy(root.path(), "never")).await;
    leave(&net, 1).await;
    stopped(&net).await;
    assert_eq!(machine(&net, "echo-router").starts, 1);
}

#[tokio::test]
async fn a_crash_loop_slows_down_and_ends_with_its_budget() {
    let root = temporary();
    let mut spec = with_policy(root.path(), "on-failure\"\nretries = 3 #");
    spec.apps[1].env.insert("ECHO_BROKEN".into(), "1".into());
    let net = Flynet::start(spec).await.unwrap();
    stopped(&net).await;
    let router = machine(&net, "echo-router");
    assert_eq!(router.starts, 4, "one start and three restarts");
    let booted: Vec<_> = net
        .events()
        .into_iter()
        .filter(|e| e.machine == router.id && matches!(e.what, What::Booted { .. }))
        .map(|event| event.at)
        .collect();
    let gaps: Vec<_> = booted.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps[0] >= Duration::from_millis(100), "{gaps:?}");
    assert!(gaps[2] >= Duration::from_millis(400), "{gaps:?}");
}

#[tokio::test]
async fn a_stop_is_not_undone_by_always() {
    let root = temporary();
    let net = up(with_policy(root.path(), "always")).await;
    net.stop_machines("router").await.unwrap();
    let router = machine(&net, "echo-router");
    assert_eq!((router.state, router.starts), (State::Stopped, 1));
    let told = What::Told { signal: "SIGTERM".to_owned() };
    let what: Vec<_> = net.events().into_iter().filter(|e| e.machine == router.id).collect();
    assert!(what.iter().any(|event| event.what == told));
    assert!(!what.iter().any(|event| event.what == What::Killed), "it went by itself");
}

#[tokio::test]
async fn without_a_kill_signal_it_is_sigint_as_on_fly() {
    let root = temporary();
    let spec = spec(root.path());
    fs::write(&spec.apps[1].config, ROUTER.replace("kill_signal", "# kill_signal")).unwrap();
    let net = up(spec).await;
    assert_eq!(ask(&machine(&net, "echo-router"), "/readyz").await, "ready");
    net.stop_machines("router").await.unwrap();
    let router = machine(&net, "echo-router");
    assert!(router.last_exit.unwrap().contains("SIGINT"));
}

#[tokio::test]
async fn a_machine_between_two_crashes_is_still_listed() {
    let root = temporary();
    let mut spec = with_policy(root.path(), "always");
    spec.apps[1].env.insert("ECHO_BROKEN".into(), "1".into());
    let net = Flynet::start(spec).await.unwrap();
    let waiting = eventually("a machine that waits for its next start", async || {
        let router = machine(&net, "echo-router");
        (router.starts >= 3 && router.pid.is_none()).then_some(router)
    })
    .await;
    assert_eq!(waiting.state, State::Started);
    let resolver = names::resolver(&net);
    assert_eq!(names::aaaa(&resolver, "echo-router.internal.").await.len(), 1);
}

#[tokio::test]
async fn the_kill_timeout_of_the_file_is_kept() {
    let root = temporary();
    let mut spec = spec(root.path());
    let text = ROUTER.replace("[env]", "kill_timeout = \"1s\"\n[env]");
    fs::write(&spec.apps[1].config, text).unwrap();
    spec.apps[1].env.insert("ECHO_STUBBORN".into(), "1".into());
    let net = up(spec).await;
    net.stop_machines("router").await.unwrap();
    let router = machine(&net, "echo-router");
    let events = net.events();
    let at = |of: fn(&What) -> bool| {
        events.iter().find(|event| event.machine == router.id && of(&event.what)).unwrap().at
    };
    let waited = at(|what| *what == What::Killed) - at(|what| matches!(what, What::Told { .. }));
    assert!(waited >= Duration::from_secs(1), "{waited:?}");
    assert!(waited < Duration::from_secs(10), "{waited:?}");
}
