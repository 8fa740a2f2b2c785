//! The one writer of a run's events while this process leads it.
//!
//! Invariants:
//! - an event reaches watchers after its commit, never before;
//! - the run kept here is the fold of what was committed;
//! - the last event and the stored result are one commit.

use crate::error::Error;
use crate::fold;
use crate::store::{Lease, Store, timestamp};
use crate::tails::Tails;
use mesh::clock::now_micros;
use mesh::identity::Identity;
use skein_proto::agent::v1::run_event::Body;
use skein_proto::agent::v1::{PathStep, Run, RunEvent, StatusChanged};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

pub struct Journal {
    store: Store,
    tails: Tails,
    lease: Lease,
    call_request_id: Arc<str>,
    run: Run,
    begun: Instant,
}

impl Journal {
    pub fn new(
        store: Store,
        tails: Tails,
        lease: Lease,
        call_request_id: Arc<str>,
        run: Run,
    ) -> Self {
        Self { store, tails, lease, call_request_id, run, begun: Instant::now() }
    }

    pub const fn run(&self) -> &Run {
        &self.run
    }

    pub fn thread_id(&self) -> &str {
        &self.lease.thread_id
    }

    pub async fn append(&mut self, bodies: Vec<Body>) -> Result<(), Error> {
        let events = bodies.into_iter().map(|body| self.event(body)).collect();
        self.commit(events, None).await
    }

    /// The end of the run.
    pub async fn end(&mut self, mut changed: StatusChanged, here: &Identity) -> Result<(), Error> {
        changed.path = Some(step(here, "run", self.begun.elapsed()));
        let last = self.event(Body::Status(changed));
        let mut result = self.run.clone();
        fold::apply(&mut result, &last);
        self.commit(vec![last], Some(result)).await
    }

    async fn commit(&mut self, events: Vec<RunEvent>, result: Option<Run>) -> Result<(), Error> {
        if events.is_empty() {
            return Ok(());
        }
        let events = self.store.append(&self.lease, events, result).await?;
        for event in &events {
            fold::apply(&mut self.run, event);
        }
        let last = events.last().map_or(0, |event| event.seq);
        self.tails.grown(&self.lease.tenant, &self.lease.thread_id, last);
        Ok(())
    }

    fn event(&self, body: Body) -> RunEvent {
        RunEvent {
            run_id: self.lease.run_id.to_string(),
            attempt: self.run.attempt,
            at: Some(timestamp(now_micros())),
            request_id: self.call_request_id.to_string(),
            body: Some(body),
            ..RunEvent::default()
        }
    }
}

/// This machine's part in the path of a run.
pub(super) fn step(here: &Identity, what: &str, took: Duration) -> PathStep {
    PathStep {
        app: here.app.clone(),
        machine: here.machine.clone(),
        region: here.region.clone(),
        duration_us: i64::try_from(took.as_micros()).unwrap_or(i64::MAX),
        what: what.to_owned(),
    }
}
