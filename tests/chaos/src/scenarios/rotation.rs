//! The router's key is replaced while it signs.
//!
//! What must be seen: 0 failed calls.

use crate::{
    calls::Kind,
    scene::{Report, Scale, Scene, Setting},
};
use futures_util::future::join_all;
use mesh::keys::rotate;
use std::{collections::BTreeMap, time::Duration};

const NAME: &str = "rotation";
const PEERS: &str = "SKEIN_MESH_PEERS";

pub async fn run(scale: Scale) -> Report {
    if !pg_test::is_available() {
        return Report::skipped(NAME, "no pip, which fetches Postgres");
    }
    let setting = Setting {
        name: NAME,
        scale,
        kinds: Kind::ALL.to_vec(),
        per_second: scale.pick(20, 50),
        streams: 0,
        deadline: Duration::from_secs(20),
    };
    let mut scene = Scene::open(setting, |_| {}).await;
    let calm = scale.seconds(0, 5);
    let rotation = rotate("router", &scene.mesh.net.keys().peers).unwrap();
    let everybody = ["model-proxy", "retrieval", "router", "gateway"];
    let set = async |mesh: &e2e::Mesh, roles: &[&str], name: &str, value: &str| {
        let all = roles.iter().map(async |role| {
            let secrets = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            mesh.net.set_secrets(role, secrets).await.unwrap();
        });
        // in the short form at once, as four pipelines would
        match scale {
            Scale::Short => drop(join_all(all).await),
            Scale::Long => {
                for one in all {
                    one.await;
                }
            }
        }
    };
    let both = rotation.both;
    let all = async |mesh: &e2e::Mesh| set(mesh, &everybody, PEERS, &both).await;
    scene.step("everybody learns the new key beside the old one", calm, all).await;
    let secret = rotation.secret;
    let one = async |mesh: &e2e::Mesh| {
        set(mesh, &["router"], "SKEIN_MESH_KEY", secret.expose()).await;
    };
    scene.step("the router signs with the new one", calm, one).await;
    let new = rotation.new;
    let all = async |mesh: &e2e::Mesh| set(mesh, &everybody, PEERS, &new).await;
    scene.step("everybody forgets the old one", calm, all).await;
    scene.end().await
}
