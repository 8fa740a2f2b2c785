//! What was asked, and how it ended.
//!
//! Invariants:
//! - Every request is here, refused ones too, in the order of arrival.
//! - A key is never here: its last four characters and a digest tell keys apart.

use crate::replay::Random;
use http::{HeaderMap, HeaderValue, Method};
use serde::Serialize;
use serde_json::Value;
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
    let digest = Random::of(key).next() >> 32;
    format!("…{}#{digest:08x}", &key[start..])
}

/// A request as it came; an [`Entry`] is made of it when somebody looks, so that
/// keeping it costs little.
pub(crate) struct Record {
    pub(crate) method: Method,
    pub(crate) path: Arc<str>,
    pub(crate) model: Arc<str>,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Arc<Value>,
    pub(crate) connection: u64,
}

struct Kept {
    record: Record,
    begun: Instant,
    ended: Option<Instant>,
    aborted: bool,
    pieces: u64,
}

pub(crate) struct Log {
    begun: Instant,
    kept: Mutex<Vec<Kept>>,
    changed: Arc<Notify>,
}

impl Default for Log {
    fn default() -> Self {
        Self { begun: Instant::now(), kept: Mutex::default(), changed: Arc::default() }
    }
}

impl Log {
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.lock().iter().map(|kept| self.entry(kept)).collect()
    }

    pub(crate) fn count(&self, model: &str) -> usize {
        self.lock().iter().filter(|kept| &*kept.record.model == model).count()
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    /// Completes with the next change after this call.
    pub(crate) fn changed(&self) -> OwnedNotified {
        Arc::clone(&self.changed).notified_owned()
    }

    pub(crate) fn open(self: &Arc<Self>, record: Record) -> Open {
        let mut all = self.lock();
        let begun = Instant::now();
        all.push(Kept { record, begun, ended: None, aborted: false, pieces: 0 });
        let at = all.len() - 1;
        drop(all);
        self.changed.notify_waiters();
        Open { log: Arc::clone(self), at, done: false }
    }

    fn entry(&self, kept: &Kept) -> Entry {
        let Record { method, path, model, key, headers, body, connection } = &kept.record;
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let told = headers.iter().filter(|(name, _)| !SECRET.contains(&name.as_str()));
        Entry {
            method: method.to_string(),
            path: path.to_string(),
            model: model.to_string(),
            key: key.as_deref().map(key_name),
            idempotency_key: headers.get("idempotency-key").map(text),
            headers: told.map(|(name, value)| (name.to_string(), text(value))).collect(),
            request: Value::clone(body),
            connection: *connection,
            begun_ms: self.since_start(kept.begun),
            ended_ms: kept.ended.map(|ended| self.since_start(ended)),
            aborted: kept.aborted,
            pieces: kept.pieces,
            begun: kept.begun,
            ended: kept.ended,
        }
    }

    fn since_start(&self, moment: Instant) -> u64 {
        u64::try_from((moment - self.begun).as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
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
        if let Some(kept) = self.log.lock().get_mut(self.at) {
            kept.pieces += 1;
        }
        self.log.changed.notify_waiters();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(kept) = self.log.lock().get_mut(self.at) {
            kept.ended = Some(Instant::now());
            kept.aborted = !self.done;
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
