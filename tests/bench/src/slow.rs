//! Callers that read slowly, that stop reading, that have nothing to read: what
//! they cost in memory, and what everybody else notices.
//!
//! The provider floods the first two kinds: every byte that is not read must
//! be held back by flow control, hop by hop, or memory grows without bound.

use crate::{
    Failure,
    call::{Http, Kind, Target},
    load::Crowd,
    mesh::Mesh,
    plan::Plan,
    report::Readers,
    stats::Spread,
};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::{collections::BTreeMap, time::Duration};
use tokio::{task::JoinSet, time};

/// How a caller behaves towards its stream.
#[derive(Clone, Copy)]
enum Reader {
    /// A frame, then a pause.
    Slow,
    /// The first frame and nothing more.
    Stopped,
    /// All there is, which is next to nothing.
    Idle,
}

const PAUSE: Duration = Duration::from_millis(100);
const SAMPLE: Duration = Duration::from_millis(500);
/// A flood that is not read fills every window within seconds: longer shows
/// nothing more.
const FLOOD: Duration = Duration::from_secs(60);
/// Until what was held is given back.
const SETTLE: Duration = Duration::from_secs(2);

pub(crate) async fn readers(plan: &Plan, mesh: &Mesh) -> Result<Vec<Readers>, Failure> {
    let mut all = Vec::new();
    for (reader, what, model, streams) in [
        (Reader::Slow, "reads one frame in 100 ms of a flood", "flood", plan.slow_readers),
        (Reader::Stopped, "stops reading a flood", "flood", plan.slow_readers),
        (Reader::Idle, "has a stream that is silent", "hold", plan.idle_streams),
    ] {
        all.push(held(plan, mesh, reader, (what, &mesh.target(model), streams)).await?);
    }
    Ok(all)
}

async fn held(
    plan: &Plan,
    mesh: &Mesh,
    reader: Reader,
    (what, target, streams): (&str, &Target, usize),
) -> Result<Readers, Failure> {
    let mut others = Crowd::gather(&mesh.target("instant"), Kind::Whole, 4).await?;
    let held = if matches!(reader, Reader::Idle) { plan.held } else { plan.held.min(FLOOD) };
    let short = held.min(Duration::from_secs(5)).min(plan.turn * 2);
    others.open(plan.rate / 5.0, plan.warm).await?;
    let before = others.open(plan.rate / 5.0, short).await?;
    let before_mib = mesh.rss();
    let mut tasks = JoinSet::new();
    for _ in 0..streams {
        let mut caller = Http::connect(target, true).await?;
        let mut body = caller.open().await?;
        body.frame().await.ok_or("a stream that ended at once")??;
        tasks.spawn(async move {
            // The connection lives as long as its caller.
            let _caller = caller;
            read(reader, body).await;
        });
    }
    let mut most_mib = mesh.rss();
    let watching = async {
        loop {
            time::sleep(SAMPLE).await;
            more(&mut most_mib, mesh.rss());
        }
    };
    let meanwhile = tokio::select! {
        outcome = others.open(plan.rate / 5.0, held) => outcome?,
        () = watching => return Err("never".into()),
    };
    more(&mut most_mib, mesh.rss());
    let mut lost = 0;
    while let Some(_ended) = tasks.try_join_next() {
        lost += 1;
    }
    tasks.shutdown().await;
    time::sleep(SETTLE.min(held)).await;
    let spread = |outcome: &crate::load::Outcome| Spread::of(outcome.timings.iter().map(|t| t.all));
    Ok(Readers {
        what: format!("a client that {what}"),
        streams,
        seconds: held.as_secs_f64(),
        before_mib,
        most_mib,
        after_mib: mesh.rss(),
        lost,
        others_before: spread(&before),
        others_meanwhile: spread(&meanwhile),
        others_failed: before.failed + meanwhile.failed,
    })
}

/// Returns only when the stream ends, which it should not.
async fn read(reader: Reader, mut body: Incoming) {
    match reader {
        Reader::Stopped => std::future::pending().await,
        Reader::Slow => {
            while let Some(Ok(_)) = body.frame().await {
                time::sleep(PAUSE).await;
            }
        }
        Reader::Idle => while let Some(Ok(_)) = body.frame().await {},
    }
}

fn more(most: &mut BTreeMap<String, f64>, now: BTreeMap<String, f64>) {
    for (app, mib) in now {
        let known = most.entry(app).or_default();
        *known = known.max(mib);
    }
}
