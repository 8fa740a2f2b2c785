//! Who waits for new events, and of which thread.
//!
//! Invariants:
//! - a wake-up says only that the log has grown: readers read the log itself, so
//!   one that is late or woken twice loses and repeats nothing;
//! - one poller per process finds what other machines have written, with one
//!   small query per watched thread; nobody watching, nothing asked.

use crate::store::Store;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

type Key = (Arc<str>, Arc<str>);

#[derive(Clone, Default)]
pub struct Tails {
    watched: Arc<Mutex<HashMap<Key, watch::Sender<u64>>>>,
}

impl Tails {
    /// The newest `seq` of a thread as far as this process knows.
    pub fn watch(&self, tenant: &str, thread: &str) -> watch::Receiver<u64> {
        let key = (Arc::from(tenant), Arc::from(thread));
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|other, sender| *other == key || sender.receiver_count() > 0);
        watched.entry(key).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    pub fn grown(&self, tenant: &Arc<str>, thread: &Arc<str>, seq: u64) {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = watched.get(&(Arc::clone(tenant), Arc::clone(thread))) {
            sender.send_if_modified(|known| {
                let newer = seq > *known;
                *known = (*known).max(seq);
                newer
            });
        }
    }

    fn keys(&self) -> Vec<Key> {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let live = watched.iter().filter(|(_, sender)| sender.receiver_count() > 0);
        live.map(|(key, _)| key.clone()).collect()
    }

    /// Runs until `stop`.
    pub async fn poll(self, store: Store, every: Duration, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            for (tenant, thread) in self.keys() {
                match store.last_seq(&tenant, &thread).await {
                    Ok(seq) => self.grown(&tenant, &thread, seq.unwrap_or(0)),
                    Err(error) => tracing::debug!(%error, "poll a thread"),
                }
            }
        }
    }
}
