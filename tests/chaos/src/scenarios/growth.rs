//! Machines come with the load and leave with it.
//!
//! What must be seen: ten times the load grows one machine to four and back to
//! one; idle machines exit and leave DNS, the next call wakes one; 0 failed calls.

use crate::{
    calls::Kind,
    record::Outcome,
    scene::{Report, Scale, Scene, Setting, common, machines},
};
use e2e::{Mesh, workspace};
use flynet::State;
use serde_json::json;
use std::{fs, time::Duration};
use tokio::time::{self, Instant};

const NAME: &str = "growth";
const APP: &str = "model-proxy";
const MOST: usize = 4;
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn run(scale: Scale) -> Report {
    let provider = providers::openai::start().await.unwrap();
    let folder = workspace().join("target/chaos");
    fs::create_dir_all(&folder).unwrap();
    let leaving = folder.join("model-proxy.toml");
    fs::write(&leaving, leaves_by_itself()).unwrap();
    let mesh = Mesh::with(|spec| {
        common(spec, scale, &provider.url);
        let app = spec.app_mut(APP).unwrap();
        app.config = leaving;
        app.stopped = vec![("iad".to_owned(), MOST - 1)];
        let idle = format!("{}s", scale.pick(2, 10));
        for (name, value) in [("IDLE_EXIT", idle.as_str()), ("SOFT_LIMIT", "2")] {
            app.env.insert(format!("SKEIN_MESH__{name}"), value.to_owned());
        }
    });
    let setting = Setting {
        name: NAME,
        scale,
        kinds: vec![Kind::Chat],
        per_second: 1,
        streams: 0,
        deadline: Duration::from_secs(30),
    };
    let mut scene = Scene::over(setting, &["iad"], mesh.await, provider).await;
    scene.step("one call a second", scale.seconds(2, 30), async |_| {}).await;
    scene.load.set_rate(10);
    grown_to(&mut scene, "ten times the load", MOST).await;
    scene.step("all of them at work", scale.seconds(2, 30), async |_| {}).await;
    scene.load.set_rate(1);
    grown_to(&mut scene, "one call a second again", 1).await;
    scene.load.set_rate(0);
    grown_to(&mut scene, "nobody calls", 0).await;
    let (begun, target) = (Instant::now(), scene.targets[0].clone());
    let woken = target.call(Kind::Chat).await;
    let took = begun.elapsed();
    if woken != Outcome::Good {
        scene.problem(format!("the call that should wake a machine: {woken:?}"));
    }
    scene.say(format!("the call that woke a machine took {took:.1?}"));
    scene.figure("waking_call_ms", json!(took.as_millis()));
    let mut told = Vec::new();
    let over_time = scene.mesh.net.machines_over_time();
    for row in over_time.rows.iter().filter(|row| row.app.ends_with(APP)) {
        told.push(json!({"ms": row.after.as_millis(), "machines": row.machines}));
        scene.say(format!("after {:>6.1} s: {} machines", row.after.as_secs_f64(), row.machines));
    }
    scene.figure("machines_over_time", told.into());
    scene.end().await
}

/// A step that lasts until so many machines run.
async fn grown_to(scene: &mut Scene, name: &str, count: usize) {
    let mut enough = false;
    scene
        .step(name, Duration::ZERO, async |mesh| {
            let begun = Instant::now();
            while !enough && begun.elapsed() < PATIENCE {
                enough = running(mesh) == count;
                time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    if !enough {
        let now = running(&scene.mesh);
        scene.problem(format!("{name}: {now} machines run, not {count}"));
    }
}

fn running(mesh: &Mesh) -> usize {
    machines(mesh, APP, "iad").iter().filter(|machine| machine.state == State::Started).count()
}

/// The deployed file, but for the restart policy: an exit is the end.
fn leaves_by_itself() -> String {
    let text = fs::read_to_string(workspace().join("fly/model-proxy.toml")).unwrap();
    text.replace("policy = \"always\"", "policy = \"on-failure\"")
}
