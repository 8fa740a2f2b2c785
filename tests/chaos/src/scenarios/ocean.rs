//! A large request crosses an ocean beside small ones.
//!
//! What must be seen: 8 MiB between regions 170 ms apart within 2 s, and the small
//! calls that take the same way undisturbed.

use crate::{
    calls::Kind,
    record::Recording,
    scene::{Report, Scale, Scene, Setting},
};
use serde_json::json;
use skein_proto::retrieval::v1::{Document, PutDocumentRequest};
use std::time::Duration;
use tokio::{task::JoinSet, time::Instant};
use tonic::Code;

const NAME: &str = "ocean";
const SIZE: usize = 8 << 20;
/// Ten times what is promised.
const BOUND: Duration = Duration::from_secs(20);

pub async fn run(scale: Scale) -> Report {
    if !pg_test::is_available() {
        return Report::skipped(NAME, "no pip, which fetches Postgres");
    }
    let setting = Setting {
        name: NAME,
        scale,
        kinds: vec![Kind::Search],
        per_second: scale.pick(20, 50),
        streams: 0,
        deadline: Duration::from_secs(30),
    };
    let mut scene = Scene::open(setting, |_| {}).await;
    let target = scene.targets[1].clone();
    scene.step("small searches alone", scale.seconds(2, 10), async |_| {}).await;
    let mut times = Vec::new();
    for _ in 0..scale.pick(3, 10) {
        let begun = Instant::now();
        let name = "8 MiB from nrt to iad beside them";
        scene.step(name, Duration::ZERO, async |_| refused_upload(&target).await).await;
        times.push(begun.elapsed());
    }
    let at_once = Instant::now();
    scene
        .step("three of 8 MiB at once", Duration::ZERO, async |_| {
            let mut uploads = JoinSet::new();
            for _ in 0..3 {
                let target = target.clone();
                uploads.spawn(async move { refused_upload(&target).await });
            }
            uploads.join_all().await;
        })
        .await;
    let at_once = at_once.elapsed();
    let slowest = times.iter().max().copied().unwrap_or_default();
    scene.say(format!(
        "8 MiB across 170 ms: {} ms; three at once: {} ms",
        times.iter().map(|time| time.as_millis().to_string()).collect::<Vec<_>>().join(", "),
        at_once.as_millis()
    ));
    scene.figure("slowest_ms", json!(slowest.as_millis()));
    scene.figure("three_at_once_ms", json!(at_once.as_millis()));
    if slowest > BOUND {
        scene.problem(format!("8 MiB took {slowest:.1?} between regions"));
    }
    let far: Recording = scene.load.so_far().only(|record| record.region == "nrt");
    scene.figure("small_calls_from_nrt", far.figures());
    scene.end().await
}

/// A document that retrieval reads whole and then refuses, for its id: what is
/// measured is the way.
async fn refused_upload(target: &crate::calls::Target) {
    let document = Document { id: "..".to_owned(), text: "g".repeat(SIZE), ..Document::default() };
    let put =
        PutDocumentRequest { collection: "chaos".to_owned(), document: Some(document), version: 0 };
    let answer = target.caller.retrieval().put_document(put).await;
    assert_eq!(answer.unwrap_err().code(), Code::InvalidArgument);
}
