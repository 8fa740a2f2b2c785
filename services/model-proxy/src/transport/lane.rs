//! One HTTP/2 connection, and the places on it.
//!
//! Invariants:
//! - A place is taken until it is dropped, which is when the answer's body is
//!   dropped: a long stream keeps its place.
//! - Growth begins before a connection is full: [`FULL_ENOUGH`] of what it holds.
//! - Nothing but places and the host's list keep a connection open.

use super::gauge::InFlight;
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::{self, Instant};

/// In hundredths of the streams that a connection holds.
const FULL_ENOUGH: usize = 80;
/// Until the peer has surely told its limits on a connection that nobody uses.
const TOLD: Duration = Duration::from_secs(1);

pub(super) type Send = http2::SendRequest<Full<Bytes>>;
pub(super) type Connection = http2::Connection<super::connect::Io, Full<Bytes>, TokioExecutor>;

pub(super) struct Lane {
    send: Send,
    taken: AtomicUsize,
    /// How often a place was taken, to tell whether it is used at all.
    pub(super) used: AtomicUsize,
    limit: Arc<AtomicUsize>,
    /// When it is too old for new calls.
    pub(super) old: Instant,
}

/// A place on a connection.
pub(super) struct Place {
    lane: Arc<Lane>,
    _counted: InFlight,
}

impl Lane {
    /// With what drives it until it ends, which keeps nothing open.
    pub(super) fn new(
        send: Send,
        connection: Connection,
        assumed: usize,
        age: Duration,
    ) -> (Self, impl Future<Output = ()>) {
        let limit = Arc::new(AtomicUsize::new(assumed));
        let driver = drive(connection, Arc::clone(&limit), assumed);
        // Connections that were opened together do not end together.
        let age = age.mul_f64(1.0 - fastrand::f64() / 4.0);
        let old = Instant::now() + age;
        let (taken, used) = (AtomicUsize::new(0), AtomicUsize::new(0));
        (Self { send, taken, used, limit, old }, driver)
    }

    pub(super) fn is_open(&self) -> bool {
        !self.send.is_closed()
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn is_full(&self) -> bool {
        self.taken() >= self.limit.load(Ordering::Relaxed)
    }

    /// Whether the next one should find another connection.
    pub(super) fn is_full_enough(&self) -> bool {
        self.taken() * 100 >= self.limit.load(Ordering::Relaxed) * FULL_ENOUGH
    }

    /// How many may come before another connection is wanted.
    pub(super) const fn room(streams: usize) -> usize {
        let room = streams * FULL_ENOUGH / 100;
        if room == 0 { 1 } else { room }
    }
}

impl Place {
    pub(super) fn on(lane: &Arc<Lane>, counted: InFlight) -> Self {
        lane.taken.fetch_add(1, Ordering::Relaxed);
        lane.used.fetch_add(1, Ordering::Relaxed);
        Self { lane: Arc::clone(lane), _counted: counted }
    }

    pub(super) fn send(&self) -> Send {
        self.lane.send.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lane.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The peer's limit is read whenever the connection has something to do.
async fn drive(mut connection: Connection, limit: Arc<AtomicUsize>, most: usize) {
    let mut told = Box::pin(time::sleep(TOLD));
    let mut waiting = true;
    let ended = poll_fn(|cx| {
        let polled = Pin::new(&mut connection).poll(cx);
        limit.store(connection.current_max_send_streams().clamp(1, most), Ordering::Relaxed);
        // Woken once by this, it reads the limit again.
        waiting = waiting && told.as_mut().poll(cx).is_pending();
        polled
    });
    if let Err(error) = ended.await {
        tracing::debug!(%error, "a connection to a provider ended");
    }
}
