//! What was asked, and how it ended.
//!
//! Invariants:
//! - Every request is here, refused ones too, in the order of arrival.
//! - A key is never here: its last four characters and a digest tell keys apart.

use axum::http::HeaderMap;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    sync::{Notify, futures::OwnedNotified},
    time::Instant,
};

/// Headers that carry a key.
const SECRET: [&str; 4] = ["authorization", "x-api-key", "api-key", "cookie"];

#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    pub method: String,
    pub path: String,
    /// The model of the request; empty where it names none.
    pub model: String,
    /// See [`key_name`].
    pub key: Option<String>,
    pub idempotency_key: Option<String>,
    /// By lower-case name; keys are left out.
    pub headers: BTreeMap<String, String>,
    pub request: Value,
    /// Which connection it came on, counted from 1.
    pub connection: u64,
    /// Milliseconds since the server started.
    pub begun_ms: u64,
    pub ended_ms: Option<u64>,
    /// The caller went away before the answer was complete.
    pub aborted: bool,
    /// Pieces of the answer's body that were given to the connection.
    pub pieces: u64,
    #[serde(skip)]
    pub begun: Instant,
    /// When the answer was complete, or when the caller's leaving was noticed.
    #[serde(skip)]
    pub ended: Option<Instant>,
}

/// What stands for a key: `…` with its last four characters and a digest.
pub fn key_name(key: &str) -> String {
    let start = key.char_indices().rev().nth(3).map_or(0, |(at, _)| at);
    let digest = hex::encode(Sha256::digest(key));
    format!("…{}#{}", &key[start..], &digest[..8])
}

/// What the log is told of a request.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) model: &'a str,
    pub(crate) key: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: Value,
    pub(crate) connection: u64,
}

pub(crate) struct Log {
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
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.lock().clone()
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    /// Completes with the next change after this call.
    pub(crate) fn changed(&self) -> OwnedNotified {
        Arc::clone(&self.changed).notified_owned()
    }

    pub(crate) fn open(self: &Arc<Self>, request: Request<'_>) -> Open {
        let text = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
        let idempotency_key = text("idempotency-key").map(str::to_owned);
        let headers = request.headers.iter().filter(|(name, _)| !SECRET.contains(&name.as_str()));
        let headers = headers.map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        let entry = Entry {
            method: request.method.to_owned(),
            path: request.path.to_owned(),
            model: request.model.to_owned(),
            key: request.key.map(key_name),
            idempotency_key,
            headers: headers.collect(),
            request: request.body,
            connection: request.connection,
            begun_ms: self.elapsed(),
            ended_ms: None,
            aborted: false,
            pieces: 0,
            begun: Instant::now(),
            ended: None,
        };
        let mut entries = self.lock();
        entries.push(entry);
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
pub(crate) struct Open {
    log: Arc<Log>,
    at: usize,
    done: bool,
}

impl Open {
    pub(crate) fn done(&mut self) {
        self.done = true;
    }

    /// A piece of the answer is on its way.
    pub(crate) fn piece(&self) {
        if let Some(entry) = self.log.lock().get_mut(self.at) {
            entry.pieces += 1;
        }
        self.log.changed.notify_waiters();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let ended = self.log.elapsed();
        if let Some(entry) = self.log.lock().get_mut(self.at) {
            entry.ended_ms = Some(ended);
            entry.ended = Some(Instant::now());
            entry.aborted = !self.done;
        }
        self.log.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_told_apart_but_not_told() {
        let (one, two) = (key_name("sk-first-abcd"), key_name("sk-second-abcd"));
        assert!(one.starts_with("…abcd#") && two.starts_with("…abcd#"));
        assert_ne!(one, two);
        assert!(!one.contains("first"));
        assert!(key_name("é").starts_with("…é#"));
    }
}
