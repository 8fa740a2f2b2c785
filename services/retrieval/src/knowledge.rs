//! The writing half of retrieval: a document in, found from then on.
//!
//! Invariants:
//! - a write is seen whole or not at all, and a caller that leaves does not
//!   undo or halve it;
//! - keyword search never waits for the models: what could not be embedded
//!   within `embed_wait` is stored without vectors and follows later;
//! - text that is unchanged is not embedded again.

use crate::embed::{Embedded, Embedder};
use crate::error::Error;
use crate::indexes::Indexes;
use crate::model::{Document, Place, Prepared, Vectors};
use crate::prepare::prepare;
use crate::store::Store;
use mesh::call::Call;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::Instrument as _;

/// The limits that configuration sets.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Of a new collection that names none.
    pub embedding_model: String,
    /// How long a write waits for vectors.
    pub embed_wait: Duration,
    /// How long a search waits for its query's vector.
    pub query_wait: Duration,
    /// Texts in one embedding call.
    pub embed_batch: usize,
}

/// All that retrieval works on.
pub struct Knowledge {
    pub store: Store,
    pub indexes: Indexes,
    pub embedder: Embedder,
    pub limits: Limits,
    /// Told when chunks were stored without vectors.
    pub pending: Notify,
}

#[derive(Clone, Debug, Default)]
pub struct Put {
    pub version: i64,
    pub chunks: usize,
    pub embedded: usize,
    pub unchanged: bool,
    pub duplicate_of: Option<String>,
}

impl Knowledge {
    /// Replaces a document whole.
    pub async fn put(
        self: &Arc<Self>,
        call: &Call,
        place: &Place,
        document: Document,
        version: i64,
    ) -> Result<Put, Error> {
        let head = match self.store.head(place).await? {
            Some(head) => head,
            None => self.store.create(place, &self.limits.embedding_model).await?,
        };
        let model = head.model.clone();
        let prepared = tokio::task::spawn_blocking(move || prepare(document, &model)).await??;
        let id = prepared.document.id.clone();
        let duplicate_of = self.store.twin(place, &id, &prepared.sha256).await?;
        if let Some(put) = self.unchanged(place, &prepared, version).await? {
            return Ok(Put { duplicate_of, ..put });
        }
        let (prepared, vectors) = self.embed(call, place, &head.model, prepared).await?;
        let put = self.commit(place, prepared, version, vectors).await?;
        Ok(Put { duplicate_of, ..put })
    }

    /// The answer, if what is stored is what was sent.
    async fn unchanged(
        &self,
        place: &Place,
        new: &Prepared,
        version: i64,
    ) -> Result<Option<Put>, Error> {
        let id = &new.document.id;
        let Some(stored) = self.store.stored(place, id).await? else { return Ok(None) };
        if version > 0 && version < stored.version {
            return Err(Error::Stale { id: id.clone(), stored: stored.version, sent: version });
        }
        if stored.fingerprint != new.fingerprint {
            return Ok(None);
        }
        if version > stored.version {
            self.store.touch(place, id, version).await?;
        }
        let embedded = self.store.vectors(place, id).await?;
        let embedded =
            new.chunks.iter().filter(|chunk| embedded.contains_key(&chunk.content)).count();
        let version = self.store.head(place).await?.map_or(0, |head| head.version);
        Ok(Some(Put {
            version,
            chunks: new.chunks.len(),
            embedded,
            unchanged: true,
            ..Put::default()
        }))
    }

    /// Gives chunks their vectors as far as they can be had in time.
    async fn embed(
        &self,
        call: &Call,
        place: &Place,
        model: &str,
        mut new: Prepared,
    ) -> Result<(Prepared, Option<Vectors>), Error> {
        let mut known = self.store.vectors(place, &new.document.id).await?;
        for chunk in &mut new.chunks {
            chunk.vector = known.remove(&chunk.content);
        }
        let until = Instant::now() + self.limits.embed_wait;
        let missing: Vec<usize> =
            (0..new.chunks.len()).filter(|&at| new.chunks[at].vector.is_none()).collect();
        let mut kind: Option<Vectors> = None;
        for batch in missing.chunks(self.limits.embed_batch) {
            let texts = batch.iter().map(|&at| new.chunks[at].passage.clone()).collect();
            let Some(done) = self.embed_until(call, until, model, texts).await else { break };
            if kind.as_ref().is_some_and(|kind| *kind != done.of) {
                break;
            }
            for (&at, vector) in batch.iter().zip(done.vectors) {
                new.chunks[at].vector = Some(vector);
            }
            kind = Some(done.of);
        }
        Ok((new, kind))
    }

    /// The vectors of one batch, if they can be had in time.
    async fn embed_until(
        &self,
        call: &Call,
        until: Instant,
        model: &str,
        texts: Vec<String>,
    ) -> Option<Embedded> {
        // The last second of a caller's patience is for storing.
        let patience = call.remaining().saturating_sub(Duration::from_secs(1));
        let left = until.saturating_duration_since(Instant::now()).min(patience);
        if self.embedder.is_away() || left.is_zero() {
            return None;
        }
        let outcome = self.embedder.passages(&call.with_timeout(left), model, &texts).await;
        outcome
            .inspect_err(|error| {
                tracing::warn!(model, %error, "embed later");
            })
            .ok()
    }

    async fn commit(
        self: &Arc<Self>,
        place: &Place,
        new: Prepared,
        version: i64,
        vectors: Option<Vectors>,
    ) -> Result<Put, Error> {
        let (this, place) = (Arc::clone(self), place.clone());
        let commit = async move {
            let entry = this.indexes.entry(&place);
            let turn = entry.turn().await;
            let (written, new) = this.store.replace(&place, new, version, vectors).await?;
            entry.apply(&written, |index| index.put(&new.document.id, &new.chunks));
            drop(turn);
            let embedded = new.chunks.iter().filter(|chunk| chunk.vector.is_some()).count();
            if embedded < new.chunks.len() {
                this.pending.notify_one();
            }
            metrics::counter!("skein_retrieval_chunks_total").increment(new.chunks.len() as u64);
            let version = written.version;
            Ok(Put { version, chunks: new.chunks.len(), embedded, ..Put::default() })
        };
        // In a task of its own: a caller that leaves must not part the store
        // from what is in memory.
        tokio::spawn(commit.in_current_span()).await?
    }

    /// Deletes documents; gone for every search that begins afterwards.
    pub async fn delete_documents(
        self: &Arc<Self>,
        place: &Place,
        ids: Vec<String>,
    ) -> Result<(usize, i64), Error> {
        let (this, place) = (Arc::clone(self), place.clone());
        let delete = async move {
            let entry = this.indexes.entry(&place);
            let _turn = entry.turn().await;
            let (gone, written) = this.store.delete_documents(&place, ids).await?;
            if !gone.is_empty() {
                entry.apply(&written, |index| gone.iter().for_each(|id| index.remove(id)));
            }
            Ok((gone.len(), written.version))
        };
        tokio::spawn(delete.in_current_span()).await?
    }

    pub async fn delete_collection(&self, place: &Place) -> Result<bool, Error> {
        let existed = self.store.delete_collection(place).await?;
        self.indexes.forget(place);
        Ok(existed)
    }
}
