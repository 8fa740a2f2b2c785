//! A constant load: so many calls a second, kind after kind, region after region,
//! whatever becomes of the calls before.
//!
//! Invariants:
//! - The order of calls is the same in every run; a busy machine makes the driver
//!   late, never selective.
//! - Every call that was begun is in the recording, hung ones included.

use crate::{
    calls::{Kind, Target},
    record::{Outcome, Record, Recording},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Beyond its deadline a call is given this long to say so.
const GIVEN_UP: Duration = Duration::from_secs(3);

/// What is called, and how fast.
#[derive(Clone)]
pub struct Plan {
    pub targets: Vec<Target>,
    pub kinds: Vec<Kind>,
    pub per_second: u32,
    /// Of the targets' calls.
    pub deadline: Duration,
}

pub struct Load {
    begun: Instant,
    records: Arc<Mutex<Vec<Record>>>,
    /// Calls a second; 0: none.
    rate: watch::Sender<u32>,
    stop: CancellationToken,
    driver: JoinHandle<TaskTracker>,
}

impl Load {
    pub fn start(plan: Plan) -> Self {
        let (begun, stop) = (Instant::now(), CancellationToken::new());
        let records = Arc::new(Mutex::new(Vec::new()));
        let (rate, told) = watch::channel(plan.per_second);
        let driver = Driver { plan, begun, records: Arc::clone(&records) };
        let driver = tokio::spawn(driver.run(told, stop.clone()));
        Self { begun, records, rate, stop, driver }
    }

    /// Since the load began.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// When that was, of a moment.
    pub fn at(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.begun)
    }

    /// From now on, so many calls a second; 0: none.
    pub fn set_rate(&self, per_second: u32) {
        self.rate.send_replace(per_second);
    }

    /// The calls that have ended so far.
    pub fn so_far(&self) -> Recording {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner).clone();
        records.sort_by_key(|record| record.at);
        Recording(records)
    }

    /// Ends the load after the calls that are under way.
    pub async fn stop(self) -> Recording {
        self.stop.cancel();
        let calls = self.driver.await.unwrap();
        calls.close();
        calls.wait().await;
        let mut records =
            std::mem::take(&mut *self.records.lock().unwrap_or_else(PoisonError::into_inner));
        records.sort_by_key(|record| record.at);
        Recording(records)
    }
}

struct Driver {
    plan: Plan,
    begun: Instant,
    records: Arc<Mutex<Vec<Record>>>,
}

impl Driver {
    async fn run(self, mut rate: watch::Receiver<u32>, stop: CancellationToken) -> TaskTracker {
        let calls = TaskTracker::new();
        let (mut number, mut last) = (0, Instant::now());
        while !stop.is_cancelled() {
            let per_second = *rate.borrow_and_update();
            let due = async {
                match Duration::from_secs(1).checked_div(per_second) {
                    Some(pause) => time::sleep_until(last + pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                _ = rate.changed() => last = Instant::now(),
                () = due => {
                    // a late driver does not catch up: that would be another load
                    let pause = Duration::from_secs(1) / per_second.max(1);
                    last = (last + pause).max(Instant::now() - pause);
                    self.begin(number, &calls);
                    number += 1;
                }
            }
        }
        calls
    }

    fn begin(&self, number: usize, calls: &TaskTracker) {
        let Plan { targets, kinds, .. } = &self.plan;
        let target = targets[number % targets.len()].clone();
        let kind = kinds[(number / targets.len()) % kinds.len()];
        let (begun, records) = (self.begun, Arc::clone(&self.records));
        let patience = self.plan.deadline + GIVEN_UP;
        calls.spawn(async move {
            let at = begun.elapsed();
            let outcome = time::timeout(patience, target.call(kind)).await;
            let record = Record {
                kind,
                region: target.region,
                at,
                took: begun.elapsed().saturating_sub(at),
                outcome: outcome.unwrap_or(Outcome::Hung),
            };
            records.lock().unwrap_or_else(PoisonError::into_inner).push(record);
        });
    }
}

/// Ticks that a late driver does not catch up on.
pub fn every(period: Duration) -> time::Interval {
    let mut ticks = time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}
