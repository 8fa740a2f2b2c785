//! The run: start everything, give each target its turns, write down.
//!
//! Invariants:
//! - The report is written even when an aim is missed; the exit code tells only
//!   whether the run worked.

use crate::{
    Failure,
    call::Kind,
    child::Child,
    chunks, cold,
    compare::{Load, compare},
    mesh::{Dress, Mesh},
    plan::{Options, Part, Plan},
    proc::Machine,
    report::{Report, Soak},
    slow, soak,
    subject::{self, Subject},
    table,
    upstream::Upstream,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{self, Instant};

pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let begun = Instant::now();
    let plan = options.plan();
    let own = std::env::current_exe()?;
    let beside = own.parent().map(Path::to_owned).unwrap_or_default();
    let programs = options.bin_dir.clone().unwrap_or(beside);
    let root = tempfile::tempdir()?;
    let mut report = empty(&plan);
    if options.does(Part::Starts) {
        progress("starting each app alone");
        report.starts = cold::starts(&plan, &programs).await?;
    }
    let scene = Scene { programs, root: root.path().to_owned(), venv: options.tensorzero.clone() };
    if options.does(Part::Calls) {
        calls(&plan, &scene, &mut report).await?;
    }
    if options.does(Part::Chunks) {
        progress("chunks of streams");
        let sink = Child::own(&["sink"]).await?;
        chunks::measure(&plan, &scene.programs, &scene.root, sink.addr()?, &mut report).await?;
    }
    if options.does(Part::Readers) {
        readers(&plan, &scene, &mut report).await?;
    }
    if options.does(Part::Soak) {
        report.soak = Some(soaked(&plan, &scene).await?);
    }
    report.aims = table::aims(&report);
    report.seconds = begun.elapsed().as_secs_f64();
    if let Some(directory) = options.out.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(&options.out, serde_json::to_string_pretty(&report)? + "\n")?;
    println!("{}", table::render(&report));
    println!("written to {} after {:.0} s", options.out.display(), report.seconds);
    Ok(())
}

struct Scene {
    programs: PathBuf,
    root: PathBuf,
    venv: PathBuf,
}

fn empty(plan: &Plan) -> Report {
    Report {
        what: "what gateway -> router -> model-proxy add to a model call, measured at the client",
        simulated: "the provider answers at once and the network is this machine's loopback; \
                    everything else is the real programs",
        quick: plan.quick,
        machine: Machine::read(),
        targets: BTreeMap::new(),
        calls: Vec::new(),
        memory: Vec::new(),
        starts: Vec::new(),
        chunks: Vec::new(),
        readers: Vec::new(),
        soak: None,
        aims: Vec::new(),
        not_measured: Vec::new(),
        seconds: 0.0,
    }
}

async fn calls(plan: &Plan, scene: &Scene, report: &mut Report) -> Result<(), Failure> {
    let provider = Child::own(&["provider"]).await?;
    let ca = scene.root.join("provider.pem");
    let secure = Child::own(&["provider", "--ca", &ca.display().to_string()]).await?;
    let sink = Child::own(&["sink"]).await?;
    let at = (provider.addr()?, sink.addr()?);
    let tls = Upstream { addr: secure.addr()?, ca: Some(ca) };
    let plain = Upstream::plain(at.0);
    let mut subjects = vec![subject::direct(&provider)?];
    let mut rows = Vec::new();
    for single in [false, true] {
        rows.push(subject::echoes(single, report, &mut subjects).await?);
    }
    let mut meshes = Vec::new();
    for dress in Dress::ALL {
        progress(&format!("starting {}", dress.name()));
        let upstream = if dress == Dress::Tls { &tls } else { &plain };
        let mesh = Mesh::start(dress, &scene.programs, &scene.root, upstream, at.1).await?;
        report.targets.insert(dress.name().to_owned(), dress.meaning().to_owned());
        subjects.push(Subject::mesh(dress, &mesh));
        meshes.push((dress, mesh));
    }
    time::sleep(Duration::from_secs(1).min(plan.turn)).await;
    report.memory.extend(meshes.iter().map(|(dress, mesh)| subject::memory(*dress, mesh, "idle")));
    let peer = subject::peer(&scene.venv, &scene.root, at.0, report, &mut subjects).await?;
    for kind in [Kind::Echo, Kind::Whole, Kind::Stream, Kind::Grpc] {
        for &clients in &plan.clients {
            let load = Load { kind, clients, open: false };
            progress(&format!("{} x {clients}", load.kind_name()));
            compare(plan, report, &subjects, load).await?;
        }
    }
    progress("open load");
    compare(plan, report, &subjects, Load { kind: Kind::Whole, clients: 32, open: true }).await?;
    let after = "after load";
    report.memory.extend(peer.iter().map(|child| subject::memory_of_peer(child, after)));
    for (dress, mesh) in meshes {
        report.memory.push(subject::memory(dress, &mesh, after));
        if let Some(app) = mesh.restarted().first() {
            return Err(format!("{app} of {} did not survive the run", dress.name()).into());
        }
        mesh.stop().await;
    }
    Ok(())
}

async fn readers(plan: &Plan, scene: &Scene, report: &mut Report) -> Result<(), Failure> {
    progress("slow readers and idle streams");
    let provider = Child::own(&["provider"]).await?;
    let sink = Child::own(&["sink"]).await?;
    let root = scene.root.join("readers");
    let upstream = Upstream::plain(provider.addr()?);
    let mesh = Mesh::start(Dress::Bare, &scene.programs, &root, &upstream, sink.addr()?).await?;
    report.readers = slow::readers(plan, &mesh).await?;
    mesh.stop().await;
    Ok(())
}

async fn soaked(plan: &Plan, scene: &Scene) -> Result<Soak, Failure> {
    let (streams, seconds) = (plan.soak_streams, plan.soak.as_secs());
    progress(&format!("{streams} slow streams for {seconds} s"));
    let ca = scene.root.join("soak.pem");
    let provider = Child::own(&["provider", "--ca", &ca.display().to_string()]).await?;
    let sink = Child::own(&["sink"]).await?;
    let upstream = Upstream { addr: provider.addr()?, ca: Some(ca) };
    let root = scene.root.join("soak");
    let mesh = Mesh::start(Dress::Tls, &scene.programs, &root, &upstream, sink.addr()?).await?;
    let soak = soak::soak(plan, &mesh).await?;
    mesh.stop().await;
    Ok(soak)
}

fn progress(text: &str) {
    eprintln!("bench: {text}");
}
