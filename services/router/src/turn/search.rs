//! The passages an answer rests on, from every collection of the run at once.
//!
//! Invariant: whatever goes wrong here is a reason in the event, not the end of
//! the run.

use super::Turn;
use mesh::Channel;
use skein_proto::agent::v1::{PathStep, Retrieved, UsageAdded};
use skein_proto::model::v1::Passage;
use skein_proto::retrieval::v1::{Hit, Mode, SearchRequest};
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Status};

/// The most of a run's time that goes to looking things up.
const LONGEST: Duration = Duration::from_secs(20);

pub(super) struct Found {
    pub(super) retrieved: Retrieved,
    pub(super) usage: Option<UsageAdded>,
}

pub(super) async fn everywhere(turn: &Turn<'_>, query: &str) -> Vec<Found> {
    let each = turn.plan.collections.iter().map(|collection| one(turn, collection, query));
    futures_util::future::join_all(each).await
}

async fn one(turn: &Turn<'_>, collection: &str, query: &str) -> Found {
    let begun = Instant::now();
    let call = turn.call.with_timeout(LONGEST.min(turn.call.remaining() / 2));
    let request = call.request(SearchRequest {
        collection: collection.to_owned(),
        query: query.to_owned(),
        top_k: turn.plan.limits.top_k,
        mode: Mode::Hybrid.into(),
        ..SearchRequest::default()
    });
    let mut retrieval = turn.retrieval.client();
    let answer = tokio::time::timeout_at(call.deadline, retrieval.search(request)).await;
    let answer =
        answer.unwrap_or_else(|_elapsed| Err(Status::deadline_exceeded("no answer in time")));
    let mut retrieved = Retrieved { collection: collection.to_owned(), ..Retrieved::default() };
    match answer {
        Ok(response) => {
            retrieved.path = Some(step(&turn.retrieval.0, begun.elapsed()));
            let found = response.into_inner();
            retrieved.degraded = found.degraded;
            let passage = |hit| passage(collection, hit);
            retrieved.passages = found.hits.into_iter().map(passage).collect();
            let usage = found
                .usage
                .map(|usage| UsageAdded { usage: Some(usage), what: "search".to_owned() });
            Found { retrieved, usage }
        }
        Err(status) => {
            tracing::warn!(collection, code = ?status.code(), "search failed, the run goes on without");
            retrieved.degraded = why(collection, &status);
            Found { retrieved, usage: None }
        }
    }
}

fn why(collection: &str, status: &Status) -> String {
    match status.code() {
        Code::NotFound => format!("collection {collection:?} does not exist"),
        Code::Unavailable | Code::DeadlineExceeded => {
            format!("collection {collection:?} could not be searched: retrieval is away")
        }
        _ => format!("collection {collection:?} could not be searched: {}", status.message()),
    }
}

fn passage(collection: &str, hit: Hit) -> Passage {
    let title = if hit.title.is_empty() { hit.heading } else { hit.title };
    Passage {
        collection: collection.to_owned(),
        document_id: hit.document_id,
        chunk_id: hit.chunk_id,
        title,
        text: hit.text,
        span: hit.span,
        score: hit.score,
    }
}

/// Who answered: known when there is one machine to ask.
fn step(channel: &Channel, took: Duration) -> PathStep {
    let (machine, region) = match channel.machines().as_slice() {
        [only] => (only.identity().machine.clone(), only.identity().region.clone()),
        _ => (String::new(), String::new()),
    };
    PathStep {
        app: channel.app().to_owned(),
        machine,
        region,
        duration_us: i64::try_from(took.as_micros()).unwrap_or(i64::MAX),
        what: "search".to_owned(),
    }
}
