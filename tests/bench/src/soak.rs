//! A crowd of slow streams held for long: what a leak would look like.
//!
//! Every stream is a model that thinks: a token every few seconds, to the end of
//! the run. What must be flat is memory, what must go back to where it was are
//! tasks and streams, and what must be next to nothing is the CPU.
//!
//! Invariants:
//! - Every token is numbered; nothing may be missing between two, and no stream
//!   may end before it is let go.
//! - The slope is of the time after the first minute, when all buffers have
//!   been used once.

use crate::{
    Failure,
    call::{Http, Target},
    gauges::{self, Gauges},
    mesh::Mesh,
    plan::Plan,
    proc,
    report::Soak,
    stamp::Stamp,
    stats,
};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{self, Instant},
};

/// Seconds between two tokens of a stream.
pub(crate) const PACE: u64 = 3;
const SAMPLE: Duration = Duration::from_secs(1);
/// The longest that what was held takes to be given back.
const SETTLE: Duration = Duration::from_secs(30);

type ByApp = BTreeMap<String, f64>;

/// A moment of the run: seconds since its begin, and what each app holds.
struct Sample {
    at: f64,
    mib: ByApp,
}

pub(crate) async fn soak(plan: &Plan, mesh: &Mesh) -> Result<Soak, Failure> {
    let quiet = plan.soak.min(Duration::from_secs(60));
    // Once through, so that what is made at the first call is there before.
    let target = mesh.target("instant");
    Http::connect(&target, false).await?.open().await?.collect().await?;
    let idle_before = spent(mesh, quiet).await;
    let before = gauges::read(mesh).await?;
    let (told, leaving) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let target = mesh.target(&format!("pace-{}", PACE * 1000));
    let mut streams = open(plan, &target, &told, &leaving).await?;
    let begun = Instant::now();
    let cpu = cpu_of(mesh);
    let mut samples = Vec::new();
    while begun.elapsed() < plan.soak {
        samples.push(Sample { at: begun.elapsed().as_secs_f64(), mib: mesh.rss() });
        time::sleep(SAMPLE).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let during = per_minute(&cpu, &cpu_of(mesh), seconds);
    let meanwhile = gauges::read(mesh).await?;
    leaving.store(true, Ordering::Relaxed);
    let mut lost = 0;
    while let Some(ended) = streams.try_join_next() {
        lost += 1;
        eprintln!("bench: a slow stream was lost: {ended:?}");
    }
    streams.shutdown().await;
    let after = settled(mesh, &before).await?;
    let idle_after = spent(mesh, quiet).await;
    let at = |moment: f64| samples.iter().find(|sample| sample.at >= moment);
    let mib = |sample: Option<&Sample>| sample.map(|sample| sample.mib.clone()).unwrap_or_default();
    Ok(Soak {
        streams: plan.soak_streams,
        seconds,
        pace: PACE,
        tokens: told.load(Ordering::Relaxed),
        lost,
        start_mib: mib(samples.first()),
        minute_mib: mib(at(60.0)),
        end_mib: mib(samples.last()),
        slope_mib_per_minute: slopes(&samples),
        cpu_idle_before: idle_before,
        cpu_meanwhile: during,
        cpu_idle_after: idle_after,
        gauges_before: before,
        gauges_meanwhile: meanwhile,
        gauges_after: after,
    })
}

async fn open(
    plan: &Plan,
    target: &Target,
    told: &Arc<AtomicU64>,
    leaving: &Arc<AtomicBool>,
) -> Result<JoinSet<Result<(), Failure>>, Failure> {
    let mut streams = JoinSet::new();
    for _ in 0..plan.soak_streams {
        let mut caller = Http::connect(target, true).await?;
        let body = caller.open().await?;
        let (told, leaving) = (Arc::clone(told), Arc::clone(leaving));
        streams.spawn(async move {
            let ended = read(body, &told).await;
            drop(caller);
            if leaving.load(Ordering::Relaxed) { Ok(()) } else { ended }
        });
    }
    Ok(streams)
}

/// Returns only when something is wrong.
async fn read(mut body: Incoming, told: &AtomicU64) -> Result<(), Failure> {
    let mut next = 0;
    // Two missed tokens in a row are no pause of a slow model.
    let patience = Duration::from_secs(PACE * 10);
    loop {
        let frame = time::timeout(patience, body.frame()).await?.ok_or("it ended")??;
        let Ok(data) = frame.into_data() else { continue };
        for (number, _) in Stamp::all(&data) {
            if number != next {
                return Err(format!("token {number} came instead of {next}").into());
            }
            next += 1;
            told.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn cpu_of(mesh: &Mesh) -> ByApp {
    mesh.pids.iter().map(|(app, pid)| (app.clone(), proc::cpu(*pid))).collect()
}

fn per_minute(before: &ByApp, after: &ByApp, seconds: f64) -> ByApp {
    let used = |app: &String, from: &f64| after.get(app).unwrap_or(from) - from;
    let each = |(app, from): (&String, &f64)| (app.clone(), used(app, from) * 60.0 / seconds);
    before.iter().map(each).collect()
}

/// CPU seconds a minute while nobody asks for anything.
async fn spent(mesh: &Mesh, span: Duration) -> ByApp {
    let (begun, before) = (Instant::now(), cpu_of(mesh));
    time::sleep(span).await;
    per_minute(&before, &cpu_of(mesh), begun.elapsed().as_secs_f64())
}

/// The gauges once nothing is in flight and no task is left over, or as they
/// are when patience is over.
async fn settled(mesh: &Mesh, before: &Gauges) -> Result<Gauges, Failure> {
    let until = Instant::now() + SETTLE;
    loop {
        let now = gauges::read(mesh).await?;
        if gauges::is_like(&now, before) || Instant::now() >= until {
            return Ok(now);
        }
        time::sleep(SAMPLE).await;
    }
}

/// MiB a minute by app, after the first minute or the first quarter of a
/// shorter run.
fn slopes(samples: &[Sample]) -> ByApp {
    let end = samples.last().map_or(0.0, |sample| sample.at);
    let settled: Vec<_> =
        samples.iter().filter(|sample| sample.at >= f64::min(60.0, end / 4.0)).collect();
    let Some(first) = settled.first() else { return ByApp::new() };
    let of = |app: &String| {
        let points = settled.iter().filter_map(|sample| Some((sample.at, *sample.mib.get(app)?)));
        stats::slope(&points.collect::<Vec<_>>()) * 60.0
    };
    first.mib.keys().map(|app| (app.clone(), of(app))).collect()
}
