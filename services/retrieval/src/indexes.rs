//! The collections in memory, each at a known version of the store.
//!
//! Invariants:
//! - a search sees every write that was answered before it began;
//! - a collection is changed in memory only by the write that follows the
//!   version it is at; whatever else happens, it is loaded anew;
//! - one writer at a time a collection, and a reader never waits for a writer
//!   that embeds;
//! - the collections used longest ago are let go when memory is over the limit.

use crate::error::Error;
use crate::index::Index;
use crate::model::{Head, Place};
use crate::store::{Replaced, Store};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::MutexGuard;

#[derive(Debug)]
pub struct Indexes {
    entries: Mutex<HashMap<Place, Arc<Entry>>>,
    limit: usize,
    uses: AtomicU64,
}

#[derive(Debug, Default)]
pub struct Entry {
    turn: tokio::sync::Mutex<()>,
    state: RwLock<Option<State>>,
    used: AtomicU64,
}

#[derive(Debug)]
struct State {
    created_at: i64,
    version: i64,
    index: Index,
}

impl Indexes {
    /// At most about `limit` bytes, but for the collection in use.
    pub fn new(limit: usize) -> Self {
        Self { entries: Mutex::default(), limit, uses: AtomicU64::new(0) }
    }

    pub fn entry(&self, place: &Place) -> Arc<Entry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(place.clone()).or_default();
        entry.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Arc::clone(entry)
    }

    pub fn forget(&self, place: &Place) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(place);
    }

    /// The collection in memory, not older than `head`.
    pub async fn current(
        &self,
        store: &Store,
        place: &Place,
        head: &Head,
    ) -> Result<Arc<Entry>, Error> {
        let entry = self.entry(place);
        if entry.is_at(head) {
            return Ok(entry);
        }
        let turn = entry.turn.lock().await;
        if !entry.is_at(head) {
            let gone = || Error::NoCollection(place.collection.to_string());
            let head = store.head(place).await?.ok_or_else(gone)?;
            let mut index = Index::default();
            store
                .load(place, |row| {
                    index.add(&row.document, &row.chunk, &row.terms, row.vector.as_deref());
                })
                .await?;
            let state = State { created_at: head.created_at, version: head.version, index };
            entry.set(Some(state));
            self.shrink(&entry);
        }
        drop(turn);
        Ok(entry)
    }

    fn shrink(&self, keep: &Arc<Entry>) {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut oldest: Vec<_> =
            entries.values().filter(|entry| !Arc::ptr_eq(entry, keep)).collect();
        oldest.sort_unstable_by_key(|entry| entry.used.load(Ordering::Relaxed));
        let mut total: usize = entries.values().map(|entry| entry.bytes()).sum();
        for entry in oldest {
            if total <= self.limit {
                break;
            }
            total -= entry.bytes();
            entry.set(None);
        }
    }
}

impl Entry {
    /// Held over a write to the store and [`Entry::apply`].
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Follows a write that the store has committed.
    pub fn apply(&self, written: &Replaced, change: impl FnOnce(&mut Index)) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let next = state.as_mut().filter(|state| {
            state.created_at == written.created_at && state.version + 1 == written.version
        });
        match next {
            Some(found) => {
                change(&mut found.index);
                found.version = written.version;
                if found.index.is_worn() {
                    *state = None;
                }
            }
            None => *state = None,
        }
    }

    /// Looks something up; `None` if the collection was let go meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&Index) -> T) -> Option<(T, i64)> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.as_ref().map(|state| (look(&state.index), state.version))
    }

    fn is_at(&self, head: &Head) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.as_ref().is_some_and(|state| {
            state.created_at == head.created_at && state.version >= head.version
        })
    }

    fn set(&self, new: Option<State>) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    fn bytes(&self) -> usize {
        self.read(Index::bytes).map_or(0, |(bytes, _)| bytes)
    }
}
