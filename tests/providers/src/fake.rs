//! A running fake, as a test holds it.
//!
//! Invariants:
//! - The server and its connections end when the handle is dropped.

use crate::{
    dialect::Dialect,
    log::Entry,
    net::{self, Connections, Net},
    replay::Chunking,
    reply::Reply,
    server::Server,
    tls,
};
use axum::Router;
use bytes::Bytes;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, task::JoinHandle};

/// How a fake listens.
#[derive(Clone, Debug)]
pub struct Options {
    pub address: SocketAddr,
    /// TLS with HTTP/2 offered; the authority is in [`Fake::authority`].
    pub tls: bool,
    /// `SETTINGS_MAX_CONCURRENT_STREAMS` of HTTP/2; `None`: 200.
    pub max_streams: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { address, tls: false, max_streams: None }
    }
}

/// A running server; it stops when this is dropped.
pub struct Fake {
    /// What the provider's `…_BASE_URL` is to be.
    pub url: String,
    /// The certificate authority to trust, in PEM; with TLS alone.
    pub authority: Option<String>,
    server: Arc<Server>,
    net: Arc<Net>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub(crate) async fn start(
        server: Arc<Server>,
        routes: Router,
        path: &str,
        options: Options,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(options.address).await?;
        let address = listener.local_addr()?;
        let (acceptor, authority) = if options.tls {
            let (acceptor, authority) = tls::acceptor()?;
            (Some(acceptor), Some(authority))
        } else {
            (None, None)
        };
        let scheme = if options.tls { "https" } else { "http" };
        let origin = server.origin.get_or_init(|| format!("{scheme}://{address}"));
        let url = format!("{origin}{path}");
        let net = Arc::new(Net::new(options.max_streams.or(Some(200))));
        let task = tokio::spawn(net::serve(listener, acceptor, routes, Arc::clone(&net)));
        Ok(Self { url, authority, server, net, task })
    }

    pub fn dialect(&self) -> Dialect {
        self.server.dialect
    }

    pub fn log(&self) -> Vec<Entry> {
        self.server.log.entries()
    }

    pub fn clear_log(&self) {
        self.server.log.clear();
    }

    /// The log as soon as `done` holds for it, or as it is after `patience`.
    pub async fn log_when(
        &self,
        patience: Duration,
        done: impl Fn(&[Entry]) -> bool,
    ) -> Vec<Entry> {
        let log = &self.server.log;
        let waiting = async {
            loop {
                let changed = log.changed();
                let entries = log.entries();
                if done(&entries) {
                    return entries;
                }
                changed.await;
            }
        };
        let waited = tokio::time::timeout(patience, waiting).await;
        waited.unwrap_or_else(|_| log.entries())
    }

    /// How often `model` was asked for.
    pub fn tries(&self, model: &str) -> usize {
        self.server.log.count(model)
    }

    /// The next calls on `on` get these replies, one each; then they are usual
    /// again. `on` is a model, a path, a route (`/v1/predictions/{id}`) or `*`.
    pub fn script(&self, on: &str, replies: impl IntoIterator<Item = Reply>) {
        self.server.scripts.push(on, replies);
    }

    /// Every call on `on` gets this reply once its queue is empty.
    pub fn endless(&self, on: &str, reply: Reply) {
        self.server.scripts.endless(on, Some(reply));
    }

    /// Of the calls that nothing else is scripted for, `share` (0 to 1) get one
    /// of `replies`, drawn with `seed`: call by call the same for the same seed.
    pub fn chaos(&self, seed: u64, share: f64, replies: impl IntoIterator<Item = Reply>) {
        self.server.scripts.chaos(seed, share, replies.into_iter().collect());
    }

    /// Queues, endless replies and chaos.
    pub fn clear_scripts(&self) {
        self.server.scripts.clear();
    }

    /// The next stream on `on` is this recording, cut so.
    pub fn replay(&self, on: &str, recording: impl Into<Bytes>, chunking: Chunking) {
        self.script(on, [Reply::recording(recording, chunking)]);
    }

    /// So many more requests with `key`, then 429; other keys are not touched.
    pub fn quota(&self, key: &str, requests: u64) {
        self.server.limits.set(key, requests);
    }

    pub fn connections(&self) -> Connections {
        self.net.connections()
    }

    /// Used connections are closed after so long without a request, as servers
    /// do without a word; `None`: never.
    pub fn close_idle(&self, after: Option<Duration>) {
        self.net.idle.send_replace(after);
    }

    /// The next so many requests that come on a used connection find it dead:
    /// they are met by a reset, unread and not in the log.
    pub fn reset_reused(&self, requests: usize) {
        self.net.reset_reused(requests);
    }

    /// New connections are accepted, but their TLS handshake is not answered
    /// until this is `false` again.
    pub fn stall_handshakes(&self, stalled: bool) {
        self.net.stalled.send_replace(stalled);
    }

    /// GOAWAY on every connection (HTTP/1.1: closed after the answer under way).
    pub fn go_away(&self) {
        self.net.going_away.send_modify(|times| *times += 1);
    }
}
