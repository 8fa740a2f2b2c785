//! One load on everybody who takes it.
//!
//! Invariants:
//! - Targets take turns within a round, so that whatever else the machine does
//!   meets all of them alike.

use crate::{
    Failure,
    call::Kind,
    load::{Crowd, Outcome},
    plan::Plan,
    proc,
    report::{Calls, Report},
    stats,
    subject::Subject,
};
use std::{collections::BTreeMap, time::Duration};

#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) kind: Kind,
    pub(crate) clients: usize,
    pub(crate) open: bool,
}

impl Load {
    pub(crate) const fn kind_name(self) -> &'static str {
        match self.kind {
            Kind::Whole => "chat",
            Kind::Stream => "chat stream",
            Kind::Grpc => "grpc Generate",
            Kind::Echo => "echo",
        }
    }
}

/// One load on everybody who takes it, in turns.
pub(crate) async fn compare(
    plan: &Plan,
    report: &mut Report,
    subjects: &[Subject],
    load: Load,
) -> Result<(), Failure> {
    // Who speaks gRPC is compared with the provider's stream, which is what
    // model-proxy reads.
    let asked = |subject: &Subject| match load.kind {
        Kind::Grpc if subject.is_provider() => Some(Kind::Stream),
        kind => subject.kinds.contains(&kind).then_some(kind),
    };
    let mut turns = Vec::new();
    for subject in subjects {
        let Some(kind) = asked(subject) else { continue };
        let mut crowd = Crowd::gather(&subject.target, kind, load.clients).await?;
        stretch(plan, &mut crowd, load, plan.warm).await?;
        turns.push((subject, crowd, Outcome::default(), BTreeMap::<String, f64>::new()));
    }
    for _ in 0..plan.rounds {
        for (subject, crowd, outcome, cpu) in &mut turns {
            let before: BTreeMap<_, _> =
                subject.pids.iter().map(|(app, pid)| (app, proc::cpu(*pid))).collect();
            outcome.add(stretch(plan, crowd, load, plan.turn).await?);
            for (app, before) in before {
                let used = subject.pids.get(app).map_or(0.0, |pid| proc::cpu(*pid)) - before;
                *cpu.entry(app.clone()).or_default() += used;
            }
        }
    }
    let direct = turns.iter().find(|(subject, ..)| subject.is_provider());
    let direct = direct.map(|(_, _, outcome, _)| (all(outcome), first(outcome)));
    for (subject, _, outcome, cpu) in &turns {
        let direct = direct.filter(|_| !subject.is_provider());
        report.calls.push(row(subject, load, outcome, (cpu, direct)));
    }
    Ok(())
}

async fn stretch(
    plan: &Plan,
    crowd: &mut Crowd,
    load: Load,
    span: Duration,
) -> Result<Outcome, Failure> {
    if load.open { crowd.open(plan.rate, span).await } else { crowd.closed(span).await }
}

fn all(outcome: &Outcome) -> stats::Spread {
    stats::Spread::of(outcome.timings.iter().map(|timing| timing.all))
}

fn first(outcome: &Outcome) -> stats::Spread {
    stats::Spread::of(outcome.timings.iter().map(|timing| timing.first))
}

type Direct = Option<(stats::Spread, stats::Spread)>;

fn row(
    subject: &Subject,
    load: Load,
    outcome: &Outcome,
    (cpu, direct): (&BTreeMap<String, f64>, Direct),
) -> Calls {
    let ok = outcome.timings.len();
    let each = |used: f64| used * 1000.0 / ok.max(1) as f64;
    let cpu_per_1000: BTreeMap<_, _> =
        cpu.iter().map(|(app, used)| (app.clone(), each(*used))).collect();
    let together: f64 = cpu_per_1000.values().sum();
    Calls {
        target: subject.name.clone(),
        kind: load.kind_name(),
        load: if load.open { "open" } else { "closed" },
        clients: load.clients,
        ok,
        failed: outcome.failed,
        failure: outcome.failure.clone(),
        all: all(outcome),
        first: first(outcome),
        added: direct.map(|(direct, _)| all(outcome).over(&direct)),
        added_first: direct.map(|(_, direct)| first(outcome).over(&direct)),
        per_second: ok as f64 / outcome.took.as_secs_f64().max(1e-9),
        cpu_per_1000,
        per_cpu_second: (together > 0.0).then(|| 1000.0 / together),
    }
}
