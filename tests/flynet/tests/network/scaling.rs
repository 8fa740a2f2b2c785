//! Machines that come and go while the network runs.

use super::{PATIENCE, alive, ask, machine, spec, temporary, up};
use flynet::{Flynet, Listed, State};
use std::{collections::BTreeSet, fs};

fn routers(net: &Flynet) -> Vec<Listed> {
    net.machines().into_iter().filter(|machine| machine.app == "echo-router").collect()
}

#[tokio::test]
async fn scaling_makes_and_destroys_machines_and_keeps_the_volume() {
    let root = temporary();
    let net = up(spec(root.path())).await;
    let made = net.scale("router", "fra", 2).await.unwrap();
    assert_eq!((made.len(), routers(&net).len()), (2, 3));
    for id in &made {
        net.ready(id, PATIENCE).await.unwrap();
    }
    let all = routers(&net);
    let addresses: BTreeSet<_> = all.iter().map(|machine| machine.address).collect();
    assert_eq!(addresses.len(), 3);
    let last = all.iter().find(|machine| machine.id == made[1]).unwrap();
    assert_eq!(ask(last, "/starts").await, "here=1 volume=1");
    let (volume, directory) =
        (net.volume(&last.id, "/data").unwrap(), net.directory(&last.id).unwrap());

    // the last made goes, its volume stays behind
    assert_eq!(net.scale("echo-router", "fra", 1).await.unwrap(), [last.id.as_str()]);
    assert!(!alive(last.pid.unwrap()) && !directory.exists());
    assert_eq!(routers(&net).len(), 2);
    assert_eq!(fs::read_to_string(volume.join("starts")).unwrap(), "x");
    assert!(net.log(&last.id).is_none(), "nobody is called that any more");

    // a new machine, another id, the volume that was left
    let again = net.scale("router", "fra", 2).await.unwrap();
    assert_ne!(again[0], last.id);
    net.ready(&again[0], PATIENCE).await.unwrap();
    let again = routers(&net).into_iter().find(|machine| machine.id == again[0]).unwrap();
    assert_eq!(ask(&again, "/starts").await, "here=1 volume=2");
    assert!(net.scale("nobody", "fra", 1).await.is_err());

    // more than there are addresses
    let before = routers(&net).len();
    assert!(net.scale("router", "fra", 300).await.is_err());
    assert_eq!(routers(&net).len(), before, "none of them is made");
}

#[tokio::test]
async fn the_edge_reaches_a_machine_made_later() {
    let root = temporary();
    let net = up(spec(root.path())).await;
    let first = machine(&net, "echo-gateway");
    let made = net.scale("gateway", "fra", 1).await.unwrap();
    net.ready(&made[0], PATIENCE).await.unwrap();
    net.stop_machines(&first.id).await.unwrap();
    let url = format!("http://{}/env", net.edge().unwrap());
    let env = super::get(&url).await.unwrap();
    assert!(env.contains(&format!("FLY_MACHINE_ID={}", made[0])), "{env}");
}

#[tokio::test]
async fn machines_may_exist_without_running_in_dozens_of_regions() {
    let root = temporary();
    let mut spec = spec(root.path());
    spec.apps[1].placement = vec![];
    spec.apps[1].stopped = (0..36).map(|n| (format!("r{n:02}"), 1)).collect();
    let net = up(spec).await;
    let idle = routers(&net);
    assert_eq!(idle.len(), 36);
    assert!(idle.iter().all(|m| m.state == State::Stopped && m.starts == 0));
    let one = &idle[17];
    net.start_machines(&one.id).await.unwrap();
    net.ready(&one.id, PATIENCE).await.unwrap();
    assert!(ask(one, "/env").await.contains("FLY_REGION=r17"));
}
