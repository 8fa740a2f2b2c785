//! What was asked, and how it ended.

use axum::http::HeaderMap;
use serde::Serialize;
use serde_json::Value;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::{
    sync::{Notify, futures::OwnedNotified},
    time::Instant,
};

#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    pub path: String,
    pub idempotency_key: Option<String>,
    pub request: Value,
    /// Milliseconds since the server started.
    pub begun_ms: u64,
    pub ended_ms: Option<u64>,
    /// The caller went away before the answer was complete.
    pub aborted: bool,
}

pub(super) struct Log {
    begun: Instant,
    entries: Mutex<Vec<Entry>>,
    changed: Arc<Notify>,
}

impl Default for Log {
    fn default() -> Self {
        Self { begun: Instant::now(), entries: Mutex::default(), changed: Arc::default() }
    }
}

impl Log {
    pub(super) fn entries(&self) -> Vec<Entry> {
        self.lock().clone()
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    /// Completes with the next change after this call.
    pub(super) fn changed(&self) -> OwnedNotified {
        Arc::clone(&self.changed).notified_owned()
    }

    pub(super) fn open(self: &Arc<Self>, path: &str, headers: &HeaderMap, request: Value) -> Open {
        let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
        let mut entries = self.lock();
        entries.push(Entry {
            path: path.to_owned(),
            idempotency_key: key.map(str::to_owned),
            request,
            begun_ms: self.elapsed(),
            ended_ms: None,
            aborted: false,
        });
        let at = entries.len() - 1;
        drop(entries);
        self.changed.notify_waiters();
        Open { log: Arc::clone(self), at, done: false }
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request being answered; dropped before it is done, its caller left.
pub(super) struct Open {
    log: Arc<Log>,
    at: usize,
    done: bool,
}

impl Open {
    pub(super) fn done(&mut self) {
        self.done = true;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let ended = self.log.elapsed();
        if let Some(entry) = self.log.lock().get_mut(self.at) {
            entry.ended_ms = Some(ended);
            entry.aborted = !self.done;
        }
        self.log.changed.notify_waiters();
    }
}
