//! Load: callers that each wait for their answer (closed), or calls at a given
//! rate whether answers come or not (open).
//!
//! Invariants:
//! - In open load a call is timed from the moment it was *meant* to start: a
//!   server that stalls is charged for all who had to wait behind it, not for
//!   the one that was under way (no coordinated omission).
//! - A failed call is counted and its text kept; it has no time.

use crate::{
    Failure,
    call::{Caller, Kind, Target, Timing},
};
use std::time::Duration;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

/// What came of one stretch of load.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) timings: Vec<Timing>,
    pub(crate) failed: u64,
    pub(crate) failure: Option<String>,
    pub(crate) took: Duration,
}

impl Outcome {
    fn note(&mut self, outcome: Result<Timing, Failure>) {
        match outcome {
            Ok(timing) => self.timings.push(timing),
            Err(error) => {
                self.failed += 1;
                self.failure.get_or_insert_with(|| error.to_string());
            }
        }
    }

    /// Takes what another stretch of the same load brought.
    pub(crate) fn add(&mut self, other: Self) {
        self.timings.extend(other.timings);
        self.failed += other.failed;
        self.failure = self.failure.take().or(other.failure);
        self.took += other.took;
    }
}

/// Callers that stay connected between stretches.
pub(crate) struct Crowd(Vec<Caller>);

impl Crowd {
    pub(crate) async fn gather(
        target: &Target,
        kind: Kind,
        clients: usize,
    ) -> Result<Self, Failure> {
        let mut callers = Vec::with_capacity(clients);
        for _ in 0..clients {
            callers.push(Caller::connect(target, kind).await?);
        }
        Ok(Self(callers))
    }

    /// Each calls as soon as it has its answer, for `span`.
    pub(crate) async fn closed(&mut self, span: Duration) -> Result<Outcome, Failure> {
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for mut caller in self.0.drain(..) {
            tasks.spawn(async move {
                let mut outcome = Outcome::default();
                while begun.elapsed() < span && outcome.failed < 10 {
                    let timing = caller.call().await;
                    outcome.note(timing);
                }
                (caller, outcome)
            });
        }
        self.finish(tasks, begun).await
    }

    /// `rate` calls a second for `span`, by whoever is free.
    pub(crate) async fn open(&mut self, rate: f64, span: Duration) -> Result<Outcome, Failure> {
        let begun = Instant::now();
        let (starts, due) = mpsc::unbounded_channel();
        // A thread: tokio's timers are a millisecond apart, a thread's sleep far less.
        let pace = std::thread::spawn(move || pace(begun, rate, span, &starts));
        let due = std::sync::Arc::new(tokio::sync::Mutex::new(due));
        let mut tasks = JoinSet::new();
        for mut caller in self.0.drain(..) {
            let due = std::sync::Arc::clone(&due);
            tasks.spawn(async move {
                let mut outcome = Outcome::default();
                loop {
                    let next = due.lock().await.recv().await;
                    let Some(meant) = next else { return (caller, outcome) };
                    let late = Instant::now().saturating_duration_since(meant);
                    let timing = caller.call().await;
                    outcome.note(timing.map(|timing| Timing {
                        first: timing.first + late,
                        all: timing.all + late,
                    }));
                }
            });
        }
        let outcome = self.finish(tasks, begun).await;
        pace.join().map_err(|_| "the pacing thread ended early")?;
        outcome
    }

    async fn finish(
        &mut self,
        mut tasks: JoinSet<(Caller, Outcome)>,
        begun: Instant,
    ) -> Result<Outcome, Failure> {
        let mut all = Outcome::default();
        while let Some(ended) = tasks.join_next().await {
            let (caller, outcome) = ended?;
            self.0.push(caller);
            all.add(outcome);
        }
        all.took = begun.elapsed();
        Ok(all)
    }
}

fn pace(begun: Instant, rate: f64, span: Duration, starts: &mpsc::UnboundedSender<Instant>) {
    for number in 0_u32.. {
        let after = Duration::from_secs_f64(f64::from(number) / rate);
        if after > span {
            return;
        }
        let meant = begun + after;
        std::thread::sleep(meant.saturating_duration_since(Instant::now()));
        if starts.send(meant).is_err() {
            return;
        }
    }
}
