//! All predictions of a fake, as its callers see them.
//!
//! Invariants:
//! - One create makes one prediction, whatever becomes of its caller.
//! - Events of a stream have dense ids, the same for every reader.

use super::{
    catalog::{Kind, version_of},
    prediction::{Order, Prediction, Seen, Status, Work},
};
use crate::{
    clock::Clock,
    step::{Role, Source},
    time,
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// What every event's id begins with.
const EPOCH: &str = "1690212292";

pub(crate) struct Store {
    pub(crate) clock: Arc<Clock>,
    /// The wall clock when the other began.
    wall: Duration,
    all: Mutex<Vec<Prediction>>,
    changed: watch::Sender<()>,
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            clock: Arc::default(),
            wall: time::now(),
            all: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// Gives the new prediction's id.
    pub(super) fn create(&self, order: &Order<'_>) -> String {
        let kind = Kind::of(order.model, order.input);
        let work = Work::new(order, kind);
        let created = self.clock.now();
        self.with(|all| {
            let id = format!("fake{:022}", all.len() + 1);
            all.push(Prediction {
                id: id.clone(),
                model: order.model.to_owned(),
                input: order.input.clone(),
                kind,
                work,
                created,
                deadline: order.cancel_after.map(|after| created + after),
                canceled: None,
            });
            id
        })
    }

    /// `false`: there is no such prediction.
    pub(super) fn cancel(&self, id: &str) -> bool {
        let now = self.clock.now();
        let found = self.with(|all| {
            let found = all.iter_mut().find(|prediction| prediction.id == id)?;
            if !found.seen(now).status.is_final() {
                found.canceled.get_or_insert(now);
            }
            Some(())
        });
        self.changed.send_replace(());
        found.is_some()
    }

    pub(super) fn status(&self, id: &str) -> Option<Status> {
        self.seen(id).map(|(status, _)| status)
    }

    /// The status, and how many pieces there are.
    pub(super) fn seen(&self, id: &str) -> Option<(Status, usize)> {
        let now = self.clock.now();
        self.find(id, |it| (it.seen(now).status, it.seen(now).pieces))
    }

    pub(super) fn ids(&self) -> Vec<String> {
        self.with(|all| all.iter().map(|prediction| prediction.id.clone()).collect())
    }

    /// Completes when more may be seen of `id`.
    pub(super) async fn changes(&self, id: &str) {
        let mut changed = self.changed.subscribe();
        let now = self.clock.now();
        let Some(Some(next)) = self.find(id, |it| it.next(now)) else { return };
        tokio::select! {
            () = self.clock.until(next) => {}
            _ = changed.changed() => {}
        }
    }

    /// Completes when `id` has ended, or after so long.
    pub(super) async fn ended(&self, id: &str, patience: Duration) {
        let over = self.clock.until(self.clock.now() + patience);
        let ended = async {
            while self.status(id).is_some_and(|status| !status.is_final()) {
                self.changes(id).await;
            }
        };
        tokio::select! { () = over => {}, () = ended => {} }
    }

    /// The prediction as its JSON.
    pub(super) fn json(&self, id: &str, origin: &str) -> Option<Value> {
        let now = self.clock.now();
        self.find(id, |it| {
            let seen = it.seen(now);
            let at = |moment: Duration| time::rfc3339(self.wall + moment);
            let url = |path: &str| format!("{origin}/v1/predictions/{}{path}", it.id);
            json!({
                "id": it.id, "model": it.model, "version": version_of(&it.model), "input": it.input,
                "logs": logs(seen), "output": it.output(seen), "data_removed": false,
                "error": it.error(seen), "status": seen.status.name(), "created_at": at(it.created),
                "started_at": seen.started.map(at), "completed_at": seen.completed.map(at),
                "metrics": it.metrics(seen), "urls": {
                    "get": url(""), "cancel": url("/cancel"), "web": format!("{origin}/p/{}", it.id),
                    "stream": format!("{origin}/v1/streams/{}/{}", it.model, it.id),
                },
            })
        })
    }

    /// The events of a prediction's stream, from the one after `last`.
    pub(super) fn events(self: &Arc<Self>, id: &str, last: Option<&str>) -> Source {
        let last = last.and_then(|last| last.rsplit(':').next()).and_then(|at| at.parse().ok());
        let first = last.map_or(0, |last: usize| last + 1);
        let (store, id) = (Arc::clone(self), id.to_owned());
        Arc::new(move |count| {
            let (store, id) = (Arc::clone(&store), id.clone());
            Box::pin(async move {
                let at = first + usize::try_from(count).unwrap_or(usize::MAX);
                loop {
                    match store.event(&id, at) {
                        Some(event) => return event,
                        None => store.changes(&id).await,
                    }
                }
            })
        })
    }

    /// Event `at`; the outer `None`: not yet, the inner: never.
    fn event(&self, id: &str, at: usize) -> Option<Option<(Role, Bytes)>> {
        let now = self.clock.now();
        let found = self.find(id, |it| {
            let seen = it.seen(now);
            let (role, name, data) = if at < seen.pieces {
                (Role::Content, "output", it.piece(at))
            } else if !seen.status.is_final() {
                return None;
            } else {
                match (seen.status, at - seen.pieces) {
                    (Status::Failed, 0) => {
                        (Role::Finish, "error", json!({"detail": it.error(seen)}).to_string())
                    }
                    (Status::Failed, 1) => (Role::Done, "done", r#"{"reason":"error"}"#.to_owned()),
                    (Status::Succeeded, 0) => (Role::Done, "done", "{}".to_owned()),
                    (Status::Canceled | Status::Aborted, 0) => {
                        (Role::Done, "done", r#"{"reason":"canceled"}"#.to_owned())
                    }
                    _ => return Some(None),
                }
            };
            let data = data.replace('\n', "\ndata: ");
            let event = format!("event: {name}\nid: {EPOCH}:{at}\ndata: {data}\n\n");
            Some(Some((role, Bytes::from(event))))
        });
        found.unwrap_or(Some(None))
    }

    fn find<R>(&self, id: &str, use_it: impl FnOnce(&Prediction) -> R) -> Option<R> {
        self.with(|all| all.iter().find(|prediction| prediction.id == id).map(use_it))
    }

    fn with<R>(&self, use_it: impl FnOnce(&mut Vec<Prediction>) -> R) -> R {
        use_it(&mut self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn logs(seen: Seen) -> String {
    (1..=seen.pieces.min(3)).map(|at| format!("made piece {at}\n")).collect()
}
