//! Gives vectors to the chunks that were stored without, in the background.
//!
//! What is pending is in the store, so a restart forgets nothing.
//!
//! Invariants:
//! - one collection's failure does not hold up another's;
//! - after a failure a collection waits, twice as long each time, up to
//!   `LONGEST`; a text that its model refuses is asked for once and then left
//!   to keyword search;
//! - it embeds as the tenant whose text it is.

use crate::chunk;
use crate::embed::{EmbedError, Embedded};
use crate::error::Error;
use crate::knowledge::Knowledge;
use crate::model::Place;
use crate::store::Unembedded;
use mesh::call::Call;
use mesh::load::Load;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

const LONGEST: Duration = Duration::from_secs(60);
/// For one batch; a small machine embeds 32 chunks in a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

struct Wait {
    until: Instant,
    delay: Duration,
}

/// Works until told to stop. A batch counts as work of the machine.
pub async fn run(knowledge: Arc<Knowledge>, load: Load, stop: CancellationToken) {
    let mut waits: HashMap<Place, Wait> = HashMap::new();
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => return,
            next = round(&knowledge, &load, &mut waits) => next,
        };
        match next {
            Next::Again => {}
            Next::At(until) => tokio::select! {
                () = stop.cancelled() => return,
                () = knowledge.pending.notified() => {}
                () = sleep_until(until) => {}
            },
        }
    }
}

enum Next {
    Again,
    At(Instant),
}

/// One batch of each collection that need not wait.
async fn round(knowledge: &Arc<Knowledge>, load: &Load, waits: &mut HashMap<Place, Wait>) -> Next {
    let waiting = match knowledge.store.waiting().await {
        Ok(waiting) => waiting,
        Err(error) => {
            unreadable(&error);
            return Next::At(Instant::now() + knowledge.embedder.pause().max(LONGEST / 12));
        }
    };
    waits.retain(|place, _| waiting.iter().any(|(other, _)| other == place));
    let mut advanced = false;
    for (place, model) in &waiting {
        if waits.get(place).is_some_and(|wait| Instant::now() < wait.until) {
            continue;
        }
        let busy = load.work();
        let done = batch(knowledge, place, model).await;
        drop(busy);
        match done {
            Ok(()) => {
                waits.remove(place);
                advanced = true;
            }
            Err(error) => {
                let first = || knowledge.embedder.pause();
                let longer = |wait: &Wait| (wait.delay * 2).min(LONGEST);
                let delay = waits.get(place).map_or_else(first, longer);
                later(place, model, &error);
                waits.insert(place.clone(), Wait { until: Instant::now() + delay, delay });
            }
        }
    }
    if advanced {
        return Next::Again;
    }
    let soonest = waits.values().map(|wait| wait.until).min();
    Next::At(soonest.unwrap_or_else(|| Instant::now() + LONGEST))
}

fn later(place: &Place, model: &str, error: &Failed) {
    tracing::warn!(collection = &*place.collection, model, %error, "embed later");
}

fn unreadable(error: &Error) {
    tracing::warn!(%error, "look for chunks without vectors");
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Embed(#[from] EmbedError),
    #[error(transparent)]
    Store(#[from] Error),
}

async fn batch(knowledge: &Arc<Knowledge>, place: &Place, model: &str) -> Result<(), Failed> {
    let chunks = knowledge.store.unembedded(place, knowledge.limits.embed_batch).await?;
    if chunks.is_empty() {
        return Ok(());
    }
    match embed(knowledge, place, model, &chunks).await {
        Ok(done) => Ok(store(knowledge, place, chunks, done).await?),
        Err(EmbedError::Refused(_)) => one_by_one(knowledge, place, model, chunks).await,
        Err(away) => Err(away.into()),
    }
}

/// Finds the text that the model refuses.
async fn one_by_one(
    knowledge: &Arc<Knowledge>,
    place: &Place,
    model: &str,
    chunks: Vec<Unembedded>,
) -> Result<(), Failed> {
    for chunk in chunks {
        match embed(knowledge, place, model, std::slice::from_ref(&chunk)).await {
            Ok(done) => store(knowledge, place, vec![chunk], done).await?,
            Err(EmbedError::Refused(cause)) => {
                tracing::warn!(
                    chunk = chunk.chunk,
                    model,
                    cause,
                    "leave a chunk to keyword search"
                );
                metrics::counter!("skein_retrieval_refused_chunks_total").increment(1);
                knowledge.store.refuse(place, &chunk.chunk).await?;
            }
            Err(away) => return Err(away.into()),
        }
    }
    Ok(())
}

async fn embed(
    knowledge: &Knowledge,
    place: &Place,
    model: &str,
    chunks: &[Unembedded],
) -> Result<Embedded, EmbedError> {
    let call = Call::new(Arc::clone(&place.tenant), "retrieval", PATIENCE);
    let passage = |chunk: &Unembedded| chunk::passage(&chunk.title, &chunk.heading, &chunk.text);
    let texts: Vec<String> = chunks.iter().map(passage).collect();
    knowledge.embedder.passages(&call, model, &texts).await
}

async fn store(
    knowledge: &Arc<Knowledge>,
    place: &Place,
    chunks: Vec<Unembedded>,
    done: Embedded,
) -> Result<(), Error> {
    let (knowledge, place) = (Arc::clone(knowledge), place.clone());
    let write = async move {
        let entry = knowledge.indexes.entry(&place);
        let _turn = entry.turn().await;
        let named = chunks.iter().map(|chunk| chunk.chunk.clone()).zip(done.vectors.clone());
        let written = knowledge.store.embed(&place, named.collect(), done.of).await?;
        entry.apply(&written, |index| {
            for (chunk, vector) in chunks.iter().zip(&done.vectors) {
                index.embed(&chunk.document, &chunk.chunk, vector);
            }
        });
        metrics::counter!("skein_retrieval_embedded_later_total").increment(chunks.len() as u64);
        Ok(())
    };
    tokio::spawn(write).await?
}
