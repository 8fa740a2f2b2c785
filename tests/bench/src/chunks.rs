//! What the mesh adds to every chunk of a stream: from the moment that the
//! provider sends it to the moment that the client has it.
//!
//! Invariants:
//! - Every chunk is numbered; one that is missing or comes twice ends the run.
//! - The pace is that of a model, not the fastest there is: what is measured is
//!   the way, not a queue.

use crate::{
    Failure,
    call::{Http, Target},
    mesh::{Dress, Mesh},
    plan::Plan,
    proc,
    report::{Chunks, Report},
    stamp::Stamp,
    stats::Spread,
    upstream::Upstream,
};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::{collections::BTreeMap, path::Path, time::Duration};
use tokio::{
    task::JoinSet,
    time::{self, Instant},
};

/// Between two chunks of a stream, in milliseconds.
const PACE: u64 = 50;

/// What one stream saw.
#[derive(Default)]
struct Seen {
    first: Duration,
    delays: Vec<Duration>,
}

pub(crate) async fn measure(
    plan: &Plan,
    programs: &Path,
    root: &Path,
    sink: std::net::SocketAddr,
    report: &mut Report,
) -> Result<(), Failure> {
    let plain = Upstream::here(None)?;
    let secure = Upstream::here(Some(&root.join("provider.pem")))?;
    let model = format!("pace-{PACE}");
    let mut targets = vec![("provider".to_owned(), direct(&plain, &model), BTreeMap::new())];
    let mut meshes = Vec::new();
    for (dress, upstream) in [(Dress::Bare, &plain), (Dress::Tls, &secure)] {
        let mesh = Mesh::start(dress, programs, &root.join("chunks"), upstream, sink).await?;
        report.targets.insert(dress.name().to_owned(), dress.meaning().to_owned());
        targets.push((dress.name().to_owned(), mesh.target(&model), mesh.pids.clone()));
        meshes.push(mesh);
    }
    for &streams in &plan.chunk_streams {
        let mut alone = None;
        for (name, target, pids) in &targets {
            let row = one(plan, name, target, (streams, pids, alone)).await?;
            alone = alone.or(Some((row.delay, row.first)));
            report.chunks.push(row);
        }
    }
    for mesh in meshes {
        mesh.stop().await;
    }
    Ok(())
}

fn direct(upstream: &Upstream, model: &str) -> Target {
    Target {
        addr: upstream.addr,
        path: "/v1/chat/completions".to_owned(),
        key: "sk-instant".to_owned(),
        model: model.to_owned(),
    }
}

type Load<'a> = (usize, &'a BTreeMap<String, u32>, Option<(Spread, Spread)>);

async fn one(
    plan: &Plan,
    name: &str,
    target: &Target,
    (streams, pids, alone): Load<'_>,
) -> Result<Chunks, Failure> {
    let mut open = JoinSet::new();
    for _ in 0..streams {
        let target = target.clone();
        open.spawn(async move {
            let mut caller = Http::connect(&target, true).await?;
            let begun = Instant::now();
            let mut body = caller.open().await?;
            body.frame().await.ok_or("a stream that ended at once")??;
            Ok::<_, Failure>((caller, body, begun.elapsed()))
        });
    }
    let mut opened = Vec::new();
    while let Some(outcome) = open.join_next().await {
        opened.push(outcome??);
    }
    // What was opened one after the other now runs side by side.
    time::sleep(plan.warm).await;
    let used = || -> BTreeMap<String, f64> {
        pids.iter().map(|(app, pid)| (app.clone(), proc::cpu(*pid))).collect()
    };
    let (before, until) = (used(), Instant::now() + plan.chunks);
    let mut reading = JoinSet::new();
    for (caller, body, first) in opened {
        reading.spawn(async move {
            let seen = read(body, first, until).await;
            drop(caller);
            seen
        });
    }
    let (mut delays, mut firsts) = (Vec::new(), Vec::new());
    while let Some(seen) = reading.join_next().await {
        let seen = seen??;
        delays.extend(seen.delays);
        firsts.push(seen.first);
    }
    let after = used();
    let each = |app: &String| {
        let spent = after.get(app).unwrap_or(&0.0) - before.get(app).unwrap_or(&0.0);
        spent * 1e6 / delays.len().max(1) as f64
    };
    let (delay, first) = (Spread::of(delays.iter().copied()), Spread::of(firsts.into_iter()));
    Ok(Chunks {
        target: name.to_owned(),
        streams,
        chunks: delays.len(),
        delay,
        added: alone.map(|(alone, _)| delay.over(&alone)),
        first,
        added_first: alone.map(|(_, alone)| first.over(&alone)),
        cpu_us: pids.keys().map(|app| (app.clone(), each(app))).collect(),
    })
}

/// The chunks of one stream until a moment; those that waited for the reading
/// to begin do not count.
async fn read(mut body: Incoming, first: Duration, until: Instant) -> Result<Seen, Failure> {
    let mut seen = Seen { first, ..Seen::default() };
    let begun = Stamp::now();
    let mut last = None;
    while let Ok(frame) = time::timeout_at(until, body.frame()).await {
        let frame = frame.ok_or("a stream that ended early")??;
        let Ok(data) = frame.into_data() else { continue };
        for (number, sent) in Stamp::all(&data) {
            if last.is_some_and(|last| number != last + 1) {
                return Err(format!("chunk {number} came after {last:?}").into());
            }
            last = Some(number);
            if sent.is_after(begun) {
                seen.delays.push(sent.elapsed());
            }
        }
    }
    Ok(seen)
}
