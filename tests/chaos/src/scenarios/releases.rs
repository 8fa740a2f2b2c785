//! The release before beside this one, as in every rolling deploy.
//!
//! What must be seen: 0 failed calls.

use crate::{
    calls::Kind,
    scene::{Report, Scale, Scene, Setting},
};
use e2e::{programs, workspace};
use flynet::Deploy;
use serde_json::json;
use std::{fs, time::Duration};

const NAME: &str = "releases";

pub async fn run(scale: Scale) -> Report {
    if !pg_test::is_available() {
        return Report::skipped(NAME, "no pip, which fetches Postgres");
    }
    let previous = workspace().join("target/previous");
    let Ok(revision) = fs::read_to_string(previous.join("revision")) else {
        return Report::skipped(NAME, "no earlier release is built: scripts/previous.sh does");
    };
    let setting = Setting {
        name: NAME,
        scale,
        kinds: Kind::ALL.to_vec(),
        per_second: scale.pick(20, 50),
        streams: 0,
        deadline: Duration::from_secs(20),
    };
    let mut scene = Scene::open(setting, |spec| {
        for app in &mut spec.apps {
            app.program = previous.join("bin").join(&app.role);
        }
    })
    .await;
    scene.figure("previous", json!(revision.trim()));
    let calm = scale.seconds(1, 5);
    scene.step("all of the release before", calm, async |_| {}).await;
    for role in ["retrieval", "model-proxy", "router", "gateway"] {
        let name = format!("deploy this release of {role}");
        let program = Some(programs().join(role));
        let deploy = async |mesh: &e2e::Mesh| {
            mesh.net.deploy(role, Deploy { program, ..Deploy::default() }).await.unwrap();
        };
        scene.step(&name, calm, deploy).await;
    }
    scene.end().await
}
