//! A mesh of two regions under load, disturbed step by step.

use crate::{
    calls::{Kind, Target},
    load::{Load, Plan},
    record::{Outcome, Record, Recording},
    streams::{End, Streams},
};
use e2e::Mesh;
use flynet::{Intervals, Link, Listed, Spec};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, time::Duration};
use tokio::time;

pub const REGIONS: [&str; 2] = ["iad", "nrt"];
/// Between them.
pub const RTT: Duration = Duration::from_millis(170);
const PATIENCE: Duration = Duration::from_secs(60);

/// How long everything takes: the short form runs with the tests, the long one by
/// `make chaos`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    Short,
    Long,
}

impl Scale {
    pub const fn pick<T: Copy>(self, short: T, long: T) -> T {
        match self {
            Self::Short => short,
            Self::Long => long,
        }
    }

    pub const fn seconds(self, short: u64, long: u64) -> Duration {
        Duration::from_secs(self.pick(short, long))
    }

    /// The services' own intervals in the long form, scaled ones in the short.
    pub fn intervals(self) -> Intervals {
        let ms = |ms| Some(Duration::from_millis(ms));
        match self {
            Self::Long => Intervals::default(),
            Self::Short => Intervals {
                poll: ms(200),
                notice: ms(500),
                // open streams use it up, calls do not: a busy computer may be slow
                grace: ms(3_000),
                kill_timeout: ms(6_000),
                speed: Some(20),
                ..Intervals::default()
            },
        }
    }
}

/// What a scenario has found.
#[derive(Debug)]
pub struct Report {
    pub name: &'static str,
    /// For people, in order.
    pub lines: Vec<String>,
    pub figures: Value,
    /// What must not be; empty when all is well.
    pub problems: Vec<String>,
    pub skipped: Option<&'static str>,
}

impl Report {
    pub fn skipped(name: &'static str, why: &'static str) -> Self {
        let (lines, problems) = (Vec::new(), Vec::new());
        Self { name, lines, figures: Value::Null, problems, skipped: Some(why) }
    }
}

struct Step {
    name: String,
    from: Duration,
    to: Duration,
    /// What may fail in it, and is only counted.
    excused: fn(&Record) -> bool,
}

/// What a scene is made of.
pub struct Setting {
    pub name: &'static str,
    pub scale: Scale,
    pub kinds: Vec<Kind>,
    pub per_second: u32,
    /// Open streams per region.
    pub streams: usize,
    pub deadline: Duration,
}

pub struct Scene {
    pub mesh: Mesh,
    pub provider: providers::openai::Fake,
    pub load: Load,
    pub targets: Vec<Target>,
    setting: Setting,
    streams: Streams,
    steps: Vec<Step>,
    lines: Vec<String>,
    figures: Map<String, Value>,
    problems: Vec<String>,
}

/// Two regions as `MESH=regions make up` has them, changed by `change`, with a
/// fake provider behind both.
pub async fn two_regions(
    scale: Scale,
    change: impl FnOnce(&mut Spec),
) -> (Mesh, providers::openai::Fake) {
    let provider = providers::openai::start().await.unwrap();
    let mesh = Mesh::with(|spec| {
        spec.across(&REGIONS.map(str::to_owned));
        common(spec, scale, &provider.url);
        spec.links.push(("iad".to_owned(), "nrt".to_owned(), Link { rtt: RTT }));
        change(spec);
    });
    (mesh.await, provider)
}

/// What every mesh of a scene has.
pub fn common(spec: &mut Spec, scale: Scale, provider: &str) {
    spec.intervals = scale.intervals();
    let of_provider = [("OPENAI_API_KEY", "sk-test-marker"), ("OPENAI_BASE_URL", provider)];
    let of_provider = of_provider.map(|(name, value)| (name.to_owned(), value.to_owned()));
    spec.app_mut("model-proxy").unwrap().secrets.extend(of_provider);
}

impl Scene {
    pub async fn open(setting: Setting, change: impl FnOnce(&mut Spec)) -> Self {
        let (mesh, provider) = two_regions(setting.scale, change).await;
        Self::over(setting, &REGIONS, mesh, provider).await
    }

    /// Over a mesh of one's own.
    pub async fn over(
        setting: Setting,
        regions: &[&'static str],
        mesh: Mesh,
        provider: providers::openai::Fake,
    ) -> Self {
        let mut targets = Vec::new();
        for region in regions {
            targets.push(Target::new(&mesh, region, setting.deadline).await);
        }
        if setting.kinds.contains(&Kind::Search) {
            targets[0].furnish().await;
        }
        let load = Load::start(Plan {
            targets: targets.clone(),
            kinds: setting.kinds.clone(),
            per_second: setting.per_second,
            deadline: setting.deadline,
        });
        let streams = Streams::open(&mesh, regions, setting.streams);
        Self {
            mesh,
            provider,
            load,
            targets,
            setting,
            streams,
            steps: Vec::new(),
            lines: Vec::new(),
            figures: Map::new(),
            problems: Vec::new(),
        }
    }

    pub fn scale(&self) -> Scale {
        self.setting.scale
    }

    /// Disturbs the mesh and waits `after`; every call that begins meanwhile is
    /// this step's.
    pub async fn step(&mut self, name: &str, after: Duration, work: impl AsyncFnOnce(&Mesh)) {
        self.step_excusing(name, after, |_| false, work).await;
    }

    pub async fn step_excusing(
        &mut self,
        name: &str,
        after: Duration,
        excused: fn(&Record) -> bool,
        work: impl AsyncFnOnce(&Mesh),
    ) {
        let from = self.load.now();
        work(&self.mesh).await;
        time::sleep(after).await;
        self.steps.push(Step { name: name.to_owned(), from, to: self.load.now(), excused });
    }

    pub fn say(&mut self, line: String) {
        self.lines.push(line);
    }

    pub fn figure(&mut self, name: &str, value: Value) {
        self.figures.insert(name.to_owned(), value);
    }

    pub fn problem(&mut self, what: String) {
        self.problems.push(what);
    }

    /// Ends load and streams and judges them.
    pub async fn end(self) -> Report {
        let Self { load, streams, steps, setting, mut lines, mut figures, mut problems, .. } = self;
        let events = self.mesh.net.events().into_iter().map(|event| {
            let what = format!("{} in {}: {:?}", event.app, event.region, event.what);
            json!({"ms": load.at(event.at).as_millis(), "what": what})
        });
        figures.insert("machines".to_owned(), events.collect());
        let all = load.stop().await;
        let ends = streams.close().await;
        let mut rows = Vec::new();
        lines.insert(0, row(&["step", "calls", "failed", "hung", "p50 ms", "p99 ms", "max ms"]));
        for (at, step) in steps.iter().enumerate() {
            let during = all.between(step.from, step.to);
            judge(&setting, step, &during, &mut problems);
            let figures = during.figures();
            let cell = |name: &str| figures[name].to_string();
            let cells = ["calls", "failed", "hung", "p50_ms", "p99_ms", "max_ms"].map(cell);
            let [calls, failed, hung, p50, p99, max] = cells.each_ref().map(String::as_str);
            lines.insert(at + 1, row(&[&step.name, calls, failed, hung, p50, p99, max]));
            rows.push(json!({
                "step": step.name, "from_ms": step.from.as_millis(),
                "to_ms": step.to.as_millis(), "of": figures, "slowest": during.slowest(5),
                "failures": during.only(|call| call.outcome != Outcome::Good).slowest(20),
            }));
        }
        if setting.streams > 0 {
            judge_streams(&ends, &mut lines, &mut figures, &mut problems);
        }
        figures.insert("steps".to_owned(), rows.into());
        figures.insert("all".to_owned(), all.figures());
        let figures = Value::Object(figures);
        Report { name: setting.name, lines, figures, problems, skipped: None }
    }
}

fn row(cells: &[&str; 7]) -> String {
    let [step, calls, failed, hung, p50, p99, max] = cells;
    format!("{step:<44}{calls:>7}{failed:>8}{hung:>6}{p50:>8}{p99:>8}{max:>8}")
}

fn judge(setting: &Setting, step: &Step, during: &Recording, problems: &mut Vec<String>) {
    let counted = during.only(|record| !(step.excused)(record));
    for (what, times) in counted.complaints() {
        problems.push(format!("{}: {}: {times} x {what}", setting.name, step.name));
    }
    // Excused calls may be refused, but not left hanging.
    let hung = during.hung() - counted.hung();
    if hung > 0 {
        problems.push(format!("{}: {}: {hung} excused calls hung", setting.name, step.name));
    }
}

fn judge_streams(
    ends: &BTreeMap<End, usize>,
    lines: &mut Vec<String>,
    figures: &mut Map<String, Value>,
    problems: &mut Vec<String>,
) {
    let of = |end| ends.get(&end).copied().unwrap_or(0);
    lines.push(format!(
        "open streams that ended: {} with an error event, {} broken off, {} refused, {} silent, \
         {} as if whole",
        of(End::Event),
        of(End::Broken),
        of(End::Refused),
        of(End::Silent),
        of(End::Clean)
    ));
    for end in [End::Clean, End::Silent] {
        if of(end) > 0 {
            problems.push(format!("{} streams ended as {end:?}", of(end)));
        }
    }
    let ends: Map<String, Value> =
        ends.iter().map(|(end, count)| (format!("{end:?}"), json!(count))).collect();
    figures.insert("streams".to_owned(), ends.into());
}

/// The machines of a role in a region.
pub fn machines(mesh: &Mesh, role: &str, region: &str) -> Vec<Listed> {
    let suffix = format!("-{role}");
    let all = mesh.net.machines().into_iter();
    all.filter(|machine| machine.app.ends_with(&suffix) && machine.region == region).collect()
}

/// The id of the first of them.
pub fn machine(mesh: &Mesh, role: &str, region: &str) -> String {
    machines(mesh, role, region)[0].id.clone()
}

/// Starts a machine and waits until it says that it is ready.
pub async fn bring_back(mesh: &Mesh, id: &str) {
    mesh.net.start_machines(id).await.unwrap();
    mesh.net.ready(id, PATIENCE).await.unwrap();
}
