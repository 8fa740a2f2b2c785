//! The listener and its connections: HTTP/1.1 and HTTP/2, plain or TLS.
//!
//! Invariants:
//! - A connection lives in a task of the server's, and ends with it.
//! - What is broken is broken on the wire; a caller sees what a network does.

use crate::{
    server::{Broken, Target},
    step::End,
    wire::{Busy, Conn, Wire},
};
use axum::{Router, body::Body};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use std::{
    convert::Infallible,
    io,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

/// What a test may see and change of the connections.
pub(crate) struct Net {
    state: Mutex<State>,
    reset_reused: AtomicUsize,
    pub(crate) idle: watch::Sender<Option<Duration>>,
    pub(crate) going_away: watch::Sender<u64>,
    /// Whether TLS handshakes are left unanswered.
    pub(crate) stalled: watch::Sender<bool>,
    pub(crate) max_streams: Option<u32>,
}

#[derive(Default)]
struct State {
    /// Most requests at once, by connection.
    peaks: Vec<Arc<AtomicUsize>>,
    open: usize,
    resets_of_reused: usize,
}

/// Connections since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connections {
    pub opened: u64,
    /// Open now.
    pub open: usize,
    /// The most requests that were on their way at once, connection by
    /// connection, in the order they were opened.
    pub peaks: Vec<usize>,
    /// Requests met by a reset because they came on a used connection.
    pub resets_of_reused: usize,
}

impl Net {
    pub(crate) fn new(max_streams: Option<u32>) -> Self {
        Self {
            state: Mutex::default(),
            reset_reused: AtomicUsize::new(0),
            idle: watch::Sender::new(None),
            going_away: watch::Sender::new(0),
            stalled: watch::Sender::new(false),
            max_streams,
        }
    }

    pub(crate) fn connections(&self) -> Connections {
        self.with(|state| Connections {
            opened: u64::try_from(state.peaks.len()).unwrap_or(u64::MAX),
            open: state.open,
            peaks: state.peaks.iter().map(|peak| peak.load(Ordering::Relaxed)).collect(),
            resets_of_reused: state.resets_of_reused,
        })
    }

    pub(crate) fn reset_reused(&self, requests: usize) {
        self.reset_reused.store(requests, Ordering::Relaxed);
    }

    fn is_reset(&self, conn: &Conn) -> bool {
        let less = |left: usize| left.checked_sub(1);
        let reused = conn.asked.load(Ordering::Relaxed) > 0;
        let order = Ordering::Relaxed;
        let reset = reused && self.reset_reused.fetch_update(order, order, less).is_ok();
        if reset {
            self.with(|state| state.resets_of_reused += 1);
        }
        reset
    }

    fn with<R>(&self, use_it: impl FnOnce(&mut State) -> R) -> R {
        use_it(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Serves until it is dropped, and its connections with it.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    routes: Router,
    net: Arc<Net>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((tcp, _)) = accepted {
                    let (net, routes) = (Arc::clone(&net), routes.clone());
                    connections.spawn(connection(tcp, tls.clone(), routes, net));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(tcp: TcpStream, tls: Option<TlsAcceptor>, routes: Router, net: Arc<Net>) {
    let peak = Arc::<AtomicUsize>::default();
    let id = net.with(|state| {
        state.open += 1;
        state.peaks.push(Arc::clone(&peak));
        state.peaks.len()
    });
    let conn = Arc::new(Conn::new(u64::try_from(id).unwrap_or(u64::MAX), tcp, peak));
    let wire = Wire(Arc::clone(&conn));
    match tls {
        None => speak(wire, conn, routes, &net).await,
        Some(tls) => {
            // Cannot fail: the sender is in `net`.
            let _ = net.stalled.subscribe().wait_for(|stalled| !stalled).await;
            if let Ok(wire) = tls.accept(wire).await {
                speak(wire, conn, routes, &net).await;
            }
        }
    }
    net.with(|state| state.open -= 1);
}

async fn speak<I>(wire: I, conn: Arc<Conn>, routes: Router, net: &Arc<Net>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().max_buf_size(1 << 20);
    builder.http2().max_concurrent_streams(net.max_streams);
    let service =
        service_fn(|request| answer(request, Arc::clone(&conn), Arc::clone(net), routes.clone()));
    let mut going_away = net.going_away.subscribe();
    let mut serving = pin!(builder.serve_connection(TokioIo::new(wire), service));
    loop {
        tokio::select! {
            _ = &mut serving => return,
            () = idle(&conn, net) => return,
            () = conn.broken.notified() => return,
            Ok(()) = going_away.changed() => serving.as_mut().graceful_shutdown(),
        }
    }
}

/// Completes when nothing was asked for as long as a used connection may idle.
async fn idle(conn: &Conn, net: &Net) {
    let mut limit = net.idle.subscribe();
    loop {
        let limit_now = *limit.borrow_and_update();
        let used = conn.asked.load(Ordering::Relaxed) > 0;
        let busy = conn.in_flight.load(Ordering::Relaxed) > 0;
        let over = async {
            match limit_now.filter(|_| used && !busy) {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => return,
            () = conn.changed.notified() => {}
            Ok(()) = limit.changed() => {}
        }
    }
}

async fn answer(
    request: http::Request<Incoming>,
    conn: Arc<Conn>,
    net: Arc<Net>,
    routes: Router,
) -> io::Result<http::Response<Body>> {
    let ended = || io::Error::from(io::ErrorKind::ConnectionReset);
    if net.is_reset(&conn) {
        conn.reset();
        return Err(ended());
    }
    let busy = Busy::begin(&conn);
    let mut request = request.map(Body::new);
    // Nested routes see the rest of the path alone.
    let target = Target(request.uri().clone());
    request.extensions_mut().insert(target);
    request.extensions_mut().insert(Arc::clone(&conn));
    let Ok(mut response) = routes.oneshot(request).await.map_err(|never: Infallible| never);
    if let Some(Broken(end, bytes)) = response.extensions_mut().remove::<Broken>() {
        conn.write_raw(&bytes);
        if end == End::Reset {
            conn.reset();
        }
        return Err(ended());
    }
    // The request is on its way until its answer's body is gone.
    Ok(response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _ = &busy;
            frame
        }))
    }))
}
