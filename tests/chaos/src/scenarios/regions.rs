//! Machines die, hang, are replaced and drained under a constant unary load.
//!
//! What must be seen: no failed idempotent call, no hung call; open streams end
//! with an error event, never a clean end; a killed machine's load is back within
//! two seconds of its return.

use crate::{
    calls::Kind,
    record::Record,
    scene::{Report, Scale, Scene, Setting, bring_back, machine, machines},
    shares::{self, Shares},
};
use flynet::Deploy;
use serde_json::json;
use std::time::Duration;
use tokio::time;

const NAME: &str = "regions";
/// Ten times what is promised of a returning machine.
const BACK: Duration = Duration::from_secs(20);

pub async fn run(scale: Scale) -> Report {
    if !pg_test::is_available() {
        return Report::skipped(NAME, "no pip, which fetches Postgres");
    }
    let setting = Setting {
        name: NAME,
        scale,
        kinds: Kind::ALL.to_vec(),
        per_second: scale.pick(40, 100),
        streams: scale.pick(2, 5),
        deadline: Duration::from_secs(15),
    };
    let mut scene = Scene::open(setting, |_| {}).await;
    let calm = scale.seconds(1, 5);
    scene.step("calm", scale.seconds(2, 10), async |_| {}).await;
    a_router_is_killed(&mut scene).await;
    let frozen = scale.seconds(2, 15);
    scene
        .step("freeze the router of nrt, then thaw it", calm, async |mesh| {
            let router = machine(mesh, "router", "nrt");
            mesh.net.freeze(&router).await.unwrap();
            time::sleep(frozen).await;
            mesh.net.thaw(&router).await.unwrap();
        })
        .await;
    for role in ["model-proxy", "retrieval", "router", "gateway"] {
        let name = format!("deploy {role}, rolling");
        let deploy = async |mesh: &e2e::Mesh| {
            mesh.net.deploy(role, Deploy::default()).await.unwrap();
        };
        scene.step(&name, calm, deploy).await;
    }
    let apart = scale.seconds(3, 10);
    scene
        .step_excusing("cut nrt from iad, then heal", calm, is_across, async |mesh| {
            mesh.net.partition("iad", "nrt").unwrap();
            time::sleep(apart).await;
            mesh.net.heal("iad", "nrt").unwrap();
        })
        .await;
    scene
        .step_excusing("every model-proxy is gone, then back", calm, needs_a_model, async |mesh| {
            mesh.net.stop_machines("model-proxy").await.unwrap();
            time::sleep(calm).await;
            for gateway in ["iad", "nrt"].map(|region| machine(mesh, "gateway", region)) {
                mesh.net.ready(&gateway, Duration::from_secs(5)).await.unwrap();
            }
            mesh.net.start_machines("model-proxy").await.unwrap();
            mesh.net.all_ready(Duration::from_secs(60)).await.unwrap();
        })
        .await;
    scene
        .step("drain the router of nrt", calm, async |mesh| {
            let router = machine(mesh, "router", "nrt");
            mesh.net.stop_machines(&router).await.unwrap();
            bring_back(mesh, &router).await;
        })
        .await;
    scene.end().await
}

/// A call from nrt of which a part is in iad: retrieval, or the database.
fn is_across(record: &Record) -> bool {
    record.region == "nrt" && !Kind::REGIONAL.contains(&record.kind)
}

/// What cannot be answered without a model-proxy.
fn needs_a_model(record: &Record) -> bool {
    Kind::REGIONAL.contains(&record.kind)
}

/// Its share of the routers' calls over time, until some time after its return.
async fn a_router_is_killed(scene: &mut Scene) {
    let routers: Vec<_> =
        ["iad", "nrt"].iter().flat_map(|region| machines(&scene.mesh, "router", region)).collect();
    let shares = Shares::watch(routers.clone());
    let killed = routers[0].id.clone();
    let (mut gone, mut back) = (Duration::ZERO, Duration::ZERO);
    let (away, after) = (scene.scale().seconds(1, 5), scene.scale().seconds(3, 10));
    scene
        .step("kill -9 the router of iad, start it", after, async |mesh| {
            time::sleep(Duration::from_secs(2)).await;
            gone = shares.now();
            mesh.net.kill_machines(&killed).await.unwrap();
            time::sleep(away).await;
            bring_back(mesh, &killed).await;
            back = shares.now();
        })
        .await;
    let seconds = shares.now().as_secs();
    let samples = shares.stop().await;
    let busy =
        |sample: &&shares::Sample| sample.machine == killed && sample.at > back && sample.calls > 0;
    let first = samples.iter().find(busy).map(|sample| sample.at.saturating_sub(back));
    for machine in &routers {
        let row = shares::row(&samples, &machine.id, seconds);
        scene.say(format!("share of calls, %/s: router in {} {row}", machine.region));
    }
    let told = first.map_or_else(|| "never".to_owned(), |after| format!("{after:.1?}"));
    scene.say(format!(
        "killed after {gone:.1?}, ready again after {back:.1?}, serving again {told} later"
    ));
    scene.figure("load_back_ms", json!(first.map(|after| after.as_millis())));
    if first.is_none_or(|after| after > BACK) {
        scene.problem(format!("the killed router got no calls within {BACK:?} of its return"));
    }
}
