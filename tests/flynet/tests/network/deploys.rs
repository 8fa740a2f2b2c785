//! Deploys in place: one machine after the other, each waited for.

use super::{ROUTER, ask, eventually, get, spec, temporary, up};
use flynet::{Deploy, Error, Event, Flynet, Listed, Spec, State, Strategy, What};
use std::{fs, path::Path};

/// Three routers, checked every 100 ms.
fn three(root: &Path) -> Spec {
    let mut spec = spec(root);
    let text = ROUTER.replace(
        "path = \"/readyz\"",
        "path = \"/readyz\"\ninterval = \"10s\"\ngrace_period = \"1s\"",
    );
    let text = text + "[deploy]\nmax_unavailable = 1\n";
    fs::write(&spec.apps[1].config, text).unwrap();
    spec.apps[1].placement = vec![("iad".into(), 2), ("fra".into(), 1)];
    spec.intervals.speed = Some(100);
    spec
}

fn routers(net: &Flynet) -> Vec<Listed> {
    net.machines().into_iter().filter(|machine| machine.app == "echo-router").collect()
}

fn env(name: &str, value: &str) -> Deploy {
    Deploy { env: [(name.to_owned(), value.to_owned())].into(), ..Deploy::default() }
}

/// In the order of the events, where the first of a machine is that satisfies `of`.
fn position(events: &[Event], machine: &str, of: impl Fn(&What) -> bool) -> usize {
    events.iter().position(|event| event.machine == machine && of(&event.what)).unwrap()
}

#[tokio::test]
async fn a_roll_replaces_one_machine_after_the_other_in_place() {
    let root = temporary();
    let net = up(three(root.path())).await;
    let before = routers(&net);
    let seen = net.events().len();
    let mut change = env("RELEASE", "two");
    change.secrets.insert("TOKEN".into(), "new".into());
    let updated = net.deploy("router", change).await.unwrap();
    let after = routers(&net);
    let ids = |machines: &[Listed]| machines.iter().map(|m| m.id.clone()).collect::<Vec<_>>();
    assert_eq!((ids(&before), &updated), (ids(&after), &ids(&after)));
    for (old, new) in before.iter().zip(&after) {
        assert_eq!((old.address, new.starts), (new.address, 2));
        assert!(old.version < new.version);
        assert_eq!(ask(new, "/starts").await, "here=1 volume=2", "wiped, the volume kept");
        let env = ask(new, "/env").await;
        assert!(env.contains("RELEASE=two") && env.contains("TOKEN=new"), "{env}");
        assert!(env.contains(&format!("FLY_MACHINE_VERSION={}", new.version)));
    }
    // nobody was told to go before the one before had passed its check
    let events = net.events().split_off(seen);
    for pair in updated.windows(2) {
        let passed = |what: &What| matches!(what, What::Checked { passing: true, .. });
        let told = |what: &What| matches!(what, What::Told { .. });
        let (passed, told) =
            (position(&events, &pair[0], passed), position(&events, &pair[1], told));
        assert!(passed < told, "{events:?}");
    }
    // what is made later is made of the new release
    let made = net.scale("router", "fra", 2).await.unwrap();
    net.ready(&made[0], super::PATIENCE).await.unwrap();
    let made = routers(&net).into_iter().find(|machine| machine.id == made[0]).unwrap();
    assert!(ask(&made, "/env").await.contains("RELEASE=two"));
}

#[tokio::test]
async fn a_deploy_that_fails_stops_the_roll_and_names_the_machine() {
    let root = temporary();
    let net = up(three(root.path())).await;
    let before = routers(&net);
    let error = net.deploy("router", env("ECHO_BROKEN", "1")).await.unwrap_err();
    let text = error.to_string();
    let Error::Deploy { machine, updated, total, .. } = error else { panic!("{text}") };
    assert_eq!((&machine, updated, total), (&before[0].id, 0, 3));
    assert!(text.contains("broken, as told") && text.contains("code 1"), "{text}");
    for (old, new) in before.iter().zip(routers(&net)).skip(1) {
        assert_eq!((old.pid, &old.version), (new.pid, &new.version), "the rest is untouched");
    }
    // ready, but its check never passes
    net.deploy("router", env("ECHO_BROKEN", "0")).await.unwrap();
    let mut booting = env("ECHO_BOOT_MS", "3600000");
    booting.wait_timeout = Some(std::time::Duration::from_millis(500));
    let text = net.deploy("router", booting).await.unwrap_err().to_string();
    assert!(text.contains("check ready: status 503") && text.contains(&before[0].id), "{text}");
}

#[tokio::test]
async fn stopped_machines_are_updated_without_being_started() {
    let root = temporary();
    let net = up(three(root.path())).await;
    let ids: Vec<_> = routers(&net).into_iter().map(|machine| machine.id).collect();
    net.stop_machines(&ids[0]).await.unwrap();
    net.suspend(&ids[1]).await.unwrap();
    net.set_secrets("router", [("TOKEN".to_owned(), "new".to_owned())].into()).await.unwrap();
    let after = routers(&net);
    let states: Vec<_> = after.iter().map(|machine| machine.state).collect();
    assert_eq!(states, [State::Stopped, State::Stopped, State::Started]);
    assert_eq!(after[0].starts, 1);
    net.start_machines(&ids[0]).await.unwrap();
    net.ready(&ids[0], super::PATIENCE).await.unwrap();
    assert!(ask(&after[0], "/env").await.contains("TOKEN=new"));
}

#[tokio::test]
async fn one_machine_can_be_deployed_alone_and_all_at_once() {
    let root = temporary();
    let net = up(three(root.path())).await;
    let before = routers(&net);
    net.deploy(&before[1].id, env("RELEASE", "two")).await.unwrap();
    let after = routers(&net);
    let changed: Vec<_> =
        before.iter().zip(&after).map(|(old, new)| old.version != new.version).collect();
    assert_eq!(changed, [false, true, false]);

    let mut broken = env("ECHO_BROKEN", "1");
    broken.strategy = Some(Strategy::Immediate);
    let updated = net.deploy("router", broken).await.unwrap();
    assert_eq!(updated.len(), 3, "nobody waits for health");
    eventually("three broken machines", async || {
        routers(&net).iter().all(|machine| machine.last_exit.is_some()).then_some(())
    })
    .await;
    let address = before[0].address;
    assert!(get(&format!("http://{address}:8081/readyz")).await.is_none());
}

#[tokio::test]
async fn what_a_deploy_cannot_change_is_refused_before_anything_stops() {
    let root = temporary();
    let spec = three(root.path());
    let config = spec.apps[1].config.clone();
    let net = up(spec).await;
    let before = routers(&net);
    let missing = Deploy { program: Some("/nowhere/router".into()), ..Deploy::default() };
    assert!(matches!(net.deploy("router", missing).await, Err(Error::NoProgram { .. })));
    assert!(matches!(net.deploy("nobody", Deploy::default()).await, Err(Error::NoSuch(_))));
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("destination = \"/data\"", "destination = \"/other\""))
        .unwrap();
    assert!(matches!(net.deploy("router", Deploy::default()).await, Err(Error::Mounts { .. })));
    let pids = |machines: Vec<Listed>| machines.iter().map(|m| m.pid).collect::<Vec<_>>();
    assert_eq!(pids(before), pids(routers(&net)));
}
