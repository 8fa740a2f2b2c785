//! One HTTP/2 connection to a machine.
//!
//! Invariants:
//! - The connection is driven by a task of its own, outside every request's
//!   span: open streams outlive whoever opened it.
//! - What a broken connection means for a request is decided here, once: it
//!   never left, the peer never looked at it, or nobody knows.

use super::machine::Failure;
use crate::{
    error::{self, Kind},
    h2,
};
use bytes::Bytes;
use http::{Request, Response, Uri, uri::Authority, uri::Scheme};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use std::{
    error::Error,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{net::TcpStream, time};
use tonic::{Status, body::Body};
use tower_service::Service;

const CONNECT: Duration = Duration::from_secs(2);

/// Clones share the connection.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) addr: SocketAddr,
    send: SendRequest<Body>,
    streams: Arc<AtomicUsize>,
}

impl Connection {
    pub(super) async fn open(addr: SocketAddr) -> io::Result<Self> {
        time::timeout(CONNECT, Self::handshake(addr)).await?
    }

    async fn handshake(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let (send, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(h2::STREAM_WINDOW)
            .initial_connection_window_size(h2::CONNECTION_WINDOW)
            .keep_alive_interval(h2::PING_INTERVAL)
            .keep_alive_timeout(h2::PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake::<_, Body>(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%addr, %error, "connection ended");
            }
        });
        Ok(Self { addr, send, streams: Arc::default() })
    }

    pub(super) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.send.is_closed()
    }

    /// `request` has an absolute URI. The answer's body counts as a stream until
    /// it is dropped.
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Tracked>, Failure> {
        let addr = self.addr;
        let stream = Stream::new(&self.streams);
        match self.send.clone().try_send_request(request).await {
            Ok(response) => Ok(response.map(|body| Tracked { body, addr, _stream: stream })),
            Err(mut error) => Err(match error.take_message() {
                Some(unsent) => Failure::Unsent(Box::new(unsent)),
                None if refused(error.error()) => Failure::Refused(lost(addr, error.error())),
                None => Failure::Lost(lost(addr, error.error())),
            }),
        }
    }
}

/// Whether the peer says that it has not looked at the request: it crossed a
/// GOAWAY that names a lower stream (RFC 9113, 6.8), or the stream was refused.
fn refused(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(cause) = cause.downcast_ref::<::h2::Error>() {
            let goodbye = cause.is_go_away() && cause.reason() == Some(::h2::Reason::NO_ERROR);
            let refusal = cause.reason() == Some(::h2::Reason::REFUSED_STREAM);
            return cause.is_remote() && (goodbye || refusal);
        }
        source = cause.source();
    }
    false
}

/// The address stays in the log: this text may reach the public.
pub(super) fn lost(addr: SocketAddr, error: &dyn std::fmt::Display) -> Status {
    tracing::debug!(%addr, %error, "connection broke");
    let message = format!("a connection inside the mesh broke: {error}");
    error::status(Kind::Unavailable, Some("CONNECTION_LOST"), None, message)
}

/// Gives a request the absolute URI that HTTP/2 wants.
pub(super) fn address<B>(request: &mut Request<B>, authority: &Authority) -> Result<(), Status> {
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(authority.clone());
    *request.uri_mut() = Uri::from_parts(uri).map_err(|error| {
        let message = format!("cannot address {authority}: {error}");
        error::status(Kind::Internal, None, None, message)
    })?;
    Ok(())
}

/// For the calls that mean this very connection: `Hello` and the health watch.
impl Service<Request<Body>> for Connection {
    type Response = Response<Tracked>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let connection = self.clone();
        Box::pin(async move {
            address(&mut request, &Authority::from_static("peer.internal"))?;
            connection.send(request).await.map_err(|failure| failure.status(connection.addr))
        })
    }
}

struct Stream(Arc<AtomicUsize>);

impl Stream {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pin_project! {
    /// A response body whose transport errors are statuses.
    pub struct Tracked {
        #[pin]
        body: Incoming,
        addr: SocketAddr,
        _stream: Stream,
    }
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let addr = *this.addr;
        this.body.poll_frame(cx).map_err(|error| lost(addr, &error))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
