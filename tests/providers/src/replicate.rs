//! A server that speaks Replicate's dialect: predictions, their streams and
//! webhooks, models, files.
//!
//! Invariants:
//! - Every URL it hands out is on itself.
//! - A prediction goes on although its caller left; only a cancel stops it.

mod catalog;
pub(crate) mod errors;
mod files;
mod prediction;
mod routes;
mod store;
mod webhooks;

use crate::{
    clock::Clock,
    dialect::Dialect,
    fake::{self, Options},
    server::Server,
};
use axum::extract::FromRef;
use files::Files;
use serde_json::Value;
use std::{
    io,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};
use store::Store;
use tokio::task::JoinSet;
use webhooks::Webhooks;

pub use prediction::Status;

/// A running server; it stops when this is dropped.
pub struct Fake {
    fake: fake::Fake,
    state: Replicate,
}

impl Deref for Fake {
    type Target = fake::Fake;

    fn deref(&self) -> &fake::Fake {
        &self.fake
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.state.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

impl Fake {
    /// The clock that predictions run by.
    pub fn clock(&self) -> &Clock {
        &self.state.store.clock
    }

    /// Webhooks are signed with another key than the one that is told.
    pub fn forge_webhooks(&self, forged: bool) {
        self.state.webhooks.forged.store(forged, Ordering::Relaxed);
    }

    /// Ids of all predictions, the oldest first.
    pub fn predictions(&self) -> Vec<String> {
        self.state.store.ids()
    }

    pub fn status(&self, prediction: &str) -> Option<Status> {
        self.state.store.status(prediction)
    }
}

/// Starts a server on a free port of the loopback interface. Its `url` is for
/// `REPLICATE_BASE_URL`, without a path.
pub async fn start() -> io::Result<Fake> {
    start_with(Options::default()).await
}

/// HTTP/2 over TLS, so many streams a connection.
pub async fn start_tls(max_streams: u32) -> io::Result<Fake> {
    start_with(Options { tls: true, max_streams: Some(max_streams), ..Options::default() }).await
}

pub async fn start_with(options: Options) -> io::Result<Fake> {
    let server = Arc::new(Server::new(Dialect::Replicate));
    let state = Replicate {
        server: Arc::clone(&server),
        store: Arc::new(Store::new()),
        files: Arc::default(),
        webhooks: Arc::new(Webhooks::new()),
        tasks: Arc::default(),
    };
    let routes = routes::all(state.clone());
    Ok(Fake { fake: fake::Fake::start(server, routes, "", options).await?, state })
}

#[derive(Clone)]
struct Replicate {
    server: Arc<Server>,
    store: Arc<Store>,
    files: Arc<Files>,
    webhooks: Arc<Webhooks>,
    /// The telling of webhooks.
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl FromRef<Replicate> for Arc<Server> {
    fn from_ref(state: &Replicate) -> Self {
        Self::clone(&state.server)
    }
}

/// The model that a request is about, as far as its path or body says.
pub(crate) fn model(path: &str, request: &Value) -> String {
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        ["", "v1", "models" | "deployments" | "streams", owner, name, ..] => {
            format!("{owner}/{name}")
        }
        _ => request["version"].as_str().map_or_else(String::new, |version| {
            catalog::model_of(version).unwrap_or_else(|| version.to_owned())
        }),
    }
}
