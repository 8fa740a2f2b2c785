//! The private DNS fails, hangs, lies and forgets.
//!
//! What must be seen: traffic goes on; the wrong peer gets no prompt.

use crate::{
    calls::Kind,
    scene::{Report, Scale, Scene, Setting, bring_back, machine, machines},
    shares,
};
use flynet::{Fault, Scope};
use serde_json::json;
use std::time::Duration;
use tokio::time;

const NAME: &str = "dns";

pub async fn run(scale: Scale) -> Report {
    if !pg_test::is_available() {
        return Report::skipped(NAME, "no pip, which fetches Postgres");
    }
    let setting = Setting {
        name: NAME,
        scale,
        kinds: Kind::ALL.to_vec(),
        per_second: scale.pick(30, 100),
        streams: 0,
        deadline: Duration::from_secs(15),
    };
    let mut scene = Scene::open(setting, |_| {}).await;
    let calm = scale.seconds(0, 10);
    for (name, fault, lasts) in [
        ("SERVFAIL, and a router is killed and comes back", Fault::ServFail, (2, 60)),
        ("no answer at all", Fault::Dropped, (1, 30)),
        ("empty answers", Fault::Empty, (1, 30)),
        ("answers after 5 s", Fault::Slow(Duration::from_secs(5)), (5, 60)),
    ] {
        let lasts = scale.seconds(lasts.0, lasts.1);
        scene
            .step(name, calm, async |mesh| {
                let _fault = mesh.net.dns_fault(Scope::everything(), fault);
                if fault == Fault::ServFail {
                    let router = machine(mesh, "router", "iad");
                    mesh.net.kill_machines(&router).await.unwrap();
                    bring_back(mesh, &router).await;
                }
                time::sleep(lasts).await;
            })
            .await;
    }
    the_wrong_peer(&mut scene).await;
    scene.end().await
}

/// The router's names also lead to machines of two other apps; one serves the same
/// contract, and would answer.
async fn the_wrong_peer(scene: &mut Scene) {
    let wrong: Vec<_> = ["model-proxy", "retrieval"]
        .iter()
        .flat_map(|role| machines(&scene.mesh, role, "iad"))
        .collect();
    let before = refused(&wrong).await;
    let lasts = scene.scale().seconds(2, 30);
    scene
        .step("a router's address belongs to another app", Duration::ZERO, async |mesh| {
            let ghosts: Vec<_> = wrong
                .iter()
                .map(|machine| mesh.net.impersonate("router", machine.address).unwrap())
                .collect();
            time::sleep(lasts).await;
            drop(ghosts);
        })
        .await;
    let after = refused(&wrong).await;
    let reached = after.saturating_sub(before);
    scene.say(format!("calls for the router that reached another app: {reached}"));
    scene.figure("misdirected", json!(reached));
    if reached > 0 {
        scene.problem(format!("{reached} calls for the router reached another app"));
    }
}

/// Calls these have refused: one that was meant for another app is.
async fn refused(machines: &[flynet::Listed]) -> u64 {
    let mut all = 0;
    for machine in machines {
        all += shares::counter(machine, "skein_calls_refused_total").await.unwrap_or(0);
    }
    all
}
