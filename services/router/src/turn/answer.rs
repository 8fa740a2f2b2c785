//! The model's part of a run: its stream, written down as it comes.
//!
//! Invariants:
//! - deltas are committed after at most [`WAIT`] or [`BATCH`] bytes, in order, and
//!   all of them before the event that ends the call;
//! - every call that was started is ended by exactly one `ModelDone`;
//! - a citation is shown only if its quote is what the document says.

use super::journal::Journal;
use super::{Ending, Stop, Turn, of_status};
use crate::citations;
use crate::error::Error;
use crate::models::Whole;
use futures_util::StreamExt as _;
use mesh::identity::Identity;
use skein_proto::agent::v1::run_event::Body;
use skein_proto::agent::v1::{ModelDelta, ModelDone, ModelStarted, PathStep, RunError, UsageAdded};
use skein_proto::model::v1::generate_response::Event;
use skein_proto::model::v1::{
    Delta, Finished, GenerateRequest, GenerateResponse, Passage, Started, delta::Piece,
};
use std::time::Duration;
use tokio::time::Instant;

const WAIT: Duration = Duration::from_millis(50);
const BATCH: usize = 1024;

pub(super) struct Answer {
    call_id: String,
    begun: Instant,
    path: PathStep,
    /// Said, not committed yet.
    pending: Vec<Delta>,
    bytes: usize,
    flush_at: Instant,
    open: bool,
}

impl Answer {
    pub(super) fn new(here: &Identity) -> Self {
        let app = here
            .app
            .strip_suffix(here.role)
            .map_or_else(|| "model-proxy".to_owned(), |prefix| format!("{prefix}model-proxy"));
        Self {
            call_id: String::new(),
            begun: Instant::now(),
            path: PathStep { app, what: "generate".to_owned(), ..PathStep::default() },
            pending: Vec::new(),
            bytes: 0,
            flush_at: Instant::now(),
            open: false,
        }
    }

    pub(super) async fn call(
        &mut self,
        turn: &Turn<'_>,
        request: GenerateRequest,
        passages: &[Passage],
        journal: &mut Journal,
    ) -> Result<(), Stop> {
        self.call_id.clone_from(&request.call_id);
        self.begun = Instant::now();
        self.open = true;
        let started = turn.models.generate(&turn.call, request);
        let mut stream = turn.ending.unless(started).await??;
        let finished = self.read(&turn.ending, &mut stream, passages, journal).await?;
        // What is still pending is part of the answer too.
        self.flush(journal).await?;
        if journal.run().citations.is_empty() {
            for citation in citations::from_markers(&journal.run().output, passages) {
                self.pending
                    .push(Delta { piece: Some(Piece::Citation(citation)), ..Delta::default() });
            }
        }
        self.done(journal, finished, None).await?;
        Ok(())
    }

    async fn read(
        &mut self,
        ending: &Ending,
        stream: &mut Whole<GenerateResponse>,
        passages: &[Passage],
        journal: &mut Journal,
    ) -> Result<Finished, Stop> {
        let mut finished = None;
        loop {
            let next = tokio::select! {
                next = ending.unless(stream.next()) => next?,
                () = tokio::time::sleep_until(self.flush_at), if !self.pending.is_empty() => {
                    self.flush(journal).await?;
                    continue;
                }
            };
            let Some(message) = next else { break };
            let message = message.map_err(|status| Stop::Failed(of_status(&status)))?;
            match message.event {
                Some(Event::Started(started)) => self.started(journal, started).await?,
                Some(Event::Delta(delta)) => {
                    self.take(delta, passages);
                    if self.bytes >= BATCH {
                        self.flush(journal).await?;
                    }
                }
                Some(Event::Finished(last)) => finished = Some(last),
                None => {}
            }
        }
        finished.ok_or_else(|| Stop::Failed(super::failure("STREAM_CUT", "the answer was cut off")))
    }

    async fn started(&mut self, journal: &mut Journal, started: Started) -> Result<(), Error> {
        self.path.machine.clone_from(&started.machine);
        self.path.region.clone_from(&started.region);
        let call_id = self.call_id.clone();
        journal
            .append(vec![Body::ModelStarted(ModelStarted { call_id, started: Some(started) })])
            .await
    }

    fn take(&mut self, mut delta: Delta, passages: &[Passage]) {
        if let Some(Piece::Citation(citation)) =
            delta.piece.take_if(|piece| matches!(piece, Piece::Citation(_)))
        {
            let Some(citation) = citations::checked(&citation, passages) else {
                tracing::warn!("a citation whose quote is not in the document was dropped");
                return;
            };
            delta.piece = Some(Piece::Citation(citation));
        }
        if self.pending.is_empty() {
            self.flush_at = Instant::now() + WAIT;
        }
        self.bytes += prost::Message::encoded_len(&delta);
        self.pending.push(delta);
    }

    async fn flush(&mut self, journal: &mut Journal) -> Result<(), Error> {
        let events = self.batch();
        journal.append(events).await
    }

    fn batch(&mut self) -> Vec<Body> {
        self.bytes = 0;
        let deltas = std::mem::take(&mut self.pending);
        if deltas.is_empty() {
            return Vec::new();
        }
        vec![Body::ModelDelta(ModelDelta { call_id: self.call_id.clone(), deltas })]
    }

    /// Ends a call that did not finish; without one, does nothing.
    pub(super) async fn broken_off(
        &mut self,
        journal: &mut Journal,
        error: RunError,
    ) -> Result<(), Error> {
        if self.open {
            self.done(journal, Finished::default(), Some(error)).await?;
        }
        Ok(())
    }

    async fn done(
        &mut self,
        journal: &mut Journal,
        finished: Finished,
        error: Option<RunError>,
    ) -> Result<(), Error> {
        self.open = false;
        let took = self.begun.elapsed();
        self.path.duration_us = i64::try_from(took.as_micros()).unwrap_or(i64::MAX);
        let mut events = self.batch();
        let usage = finished.usage;
        events.push(Body::ModelDone(ModelDone {
            call_id: self.call_id.clone(),
            finished: Some(finished),
            path: Some(self.path.clone()),
            error,
        }));
        events.extend(usage.map(|usage| {
            Body::Usage(UsageAdded { usage: Some(usage), what: "generate".to_owned() })
        }));
        journal.append(events).await?;
        metrics::counter!("skein_router_tokens_total", "class" => "output")
            .increment(usage.map_or(0, |usage| usage.output.try_into().unwrap_or(0)));
        Ok(())
    }
}
