//! `StreamEvents`: a snapshot, what was committed, then what is committed next.
//!
//! Invariants:
//! - a caller that holds seq n gets exactly n+1, n+2, …: nothing twice, nothing
//!   left out without a `Gap`;
//! - a live stream ends with `LeaseEnded` (lease or draining), or after the last
//!   event of the run it watches; a stream that stops short of the log because of
//!   `max_bytes` says so the same way;
//! - only the log is read here: a slow reader holds nobody up.

use crate::error::Error;
use crate::fold;
use crate::runs::Runs;
use crate::store::EVENTS_AT_ONCE;
use futures_util::Stream;
use prost::Message as _;
use skein_proto::agent::v1::run_event::Body;
use skein_proto::agent::v1::stream_events_response::Item;
use skein_proto::agent::v1::{
    Gap, LeaseEnded, RunEvent, Snapshot, StreamEventsRequest, StreamEventsResponse,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Events on their way to a reader that has not taken them yet.
const AHEAD: usize = 16;

pub struct Watch {
    pub runs: Runs,
    pub tenant: Arc<str>,
    pub thread_id: String,
    pub run_id: Option<String>,
    pub request: StreamEventsRequest,
    pub lease: Duration,
    pub draining: CancellationToken,
}

type Sender = mpsc::Sender<Result<StreamEventsResponse, Status>>;

/// Why a stream goes no further.
enum Done {
    /// The reader has gone.
    Left,
    Ended(&'static str),
    Complete,
    Failed(Error),
}

impl From<Error> for Done {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Watch {
    pub fn stream(self) -> impl Stream<Item = Result<StreamEventsResponse, Status>> + Send {
        let (send, receive) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            let mut cursor = self.request.after_seq;
            let done = tokio::select! {
                done = self.follow(&send, &mut cursor) => done.err().unwrap_or(Done::Complete),
                () = send.closed() => Done::Left,
            };
            match done {
                Done::Complete => {}
                Done::Left => {
                    if let (Some(run), true) = (&self.run_id, self.request.live) {
                        self.runs.unwatched(&self.tenant, run);
                    }
                }
                Done::Ended(reason) => {
                    let ended = LeaseEnded { last_seq: cursor, reason: reason.to_owned() };
                    let _left = give(&send, Item::LeaseEnded(ended)).await;
                }
                Done::Failed(error) => {
                    let _left = send.send(Err(error.into())).await;
                }
            }
        });
        ReceiverStream::new(receive)
    }

    async fn follow(&self, send: &Sender, cursor: &mut u64) -> Result<(), Done> {
        let until = Instant::now() + self.lease;
        // Before the snapshot, so that nothing is committed unnoticed after it.
        let mut grown = self.runs.tails.watch(&self.tenant, &self.thread_id);
        let snapshot = self.snapshot().await?;
        let over = snapshot.run.as_ref().is_some_and(|run| fold::is_over(run.status()));
        give(send, Item::Snapshot(snapshot)).await?;
        let mut bytes = 0;
        loop {
            grown.borrow_and_update();
            self.catch_up(send, cursor, &mut bytes).await?;
            if over || !self.request.live {
                return Ok(());
            }
            tokio::select! {
                changed = grown.changed() => changed.map_err(|_closed| Done::Ended("draining"))?,
                () = tokio::time::sleep_until(until) => return Err(Done::Ended("lease")),
                () = self.draining.cancelled() => return Err(Done::Ended("draining")),
            }
        }
    }

    async fn snapshot(&self) -> Result<Snapshot, Error> {
        let store = &self.runs.store;
        let run = match &self.run_id {
            Some(id) => Some(store.run(&self.tenant, id).await?),
            None => None,
        };
        let thread = store.thread(&self.tenant, &self.thread_id).await?;
        Ok(Snapshot { thread: Some(thread), run })
    }

    /// Gives everything that is committed now.
    async fn catch_up(
        &self,
        send: &Sender,
        cursor: &mut u64,
        bytes: &mut usize,
    ) -> Result<(), Done> {
        let (store, run) = (&self.runs.store, self.run_id.as_deref());
        loop {
            let events = store.events(&self.tenant, &self.thread_id, run, *cursor).await?;
            let whole = i64::try_from(events.len()).is_ok_and(|count| count < EVENTS_AT_ONCE);
            for event in events {
                self.give_event(send, event, cursor, bytes).await?;
            }
            if whole {
                return Ok(());
            }
        }
    }

    async fn give_event(
        &self,
        send: &Sender,
        event: RunEvent,
        cursor: &mut u64,
        bytes: &mut usize,
    ) -> Result<(), Done> {
        if self.run_id.is_none() && event.seq > *cursor + 1 {
            let reason = "no longer kept".to_owned();
            let gap = Gap { from_seq: *cursor + 1, to_seq: event.seq - 1, reason };
            give(send, Item::Gap(gap)).await?;
        }
        let size = event.encoded_len();
        let most = usize::try_from(self.request.max_bytes).unwrap_or(0);
        if most > 0 && *bytes > 0 && *bytes + size > most {
            return Err(Done::Ended("max_bytes"));
        }
        *cursor = event.seq;
        let over = is_last(&event);
        if self.wants(&event) {
            *bytes += size;
            give(send, Item::Event(event)).await?;
        }
        if over && self.run_id.is_some() { Err(Done::Complete) } else { Ok(()) }
    }

    fn wants(&self, event: &RunEvent) -> bool {
        let kind = event.body.as_ref().map_or("", fold::kind);
        self.request.kinds.is_empty() || self.request.kinds.iter().any(|wanted| wanted == kind)
    }
}

fn is_last(event: &RunEvent) -> bool {
    matches!(&event.body, Some(Body::Status(changed)) if fold::is_over(changed.status()))
}

async fn give(send: &Sender, item: Item) -> Result<(), Done> {
    let response = StreamEventsResponse { item: Some(item) };
    send.send(Ok(response)).await.map_err(|_gone| Done::Left)
}
