//! The one HTTP client: connections to providers, and what breaks on them.
//!
//! Connections are hyper's own, one by one, and only the list of them is ours
//! (`host`): a client that brings its own pool keeps one HTTP/2 connection to
//! a host, so that the hundredth stream waits in silence; it cannot open one
//! ahead of a call; and it does not say whether the connection that failed had
//! been used before. Names, TCP, proxies, TLS and unpacking are the libraries'.
//!
//! Invariants:
//! - An error says whether anything was sent: what was not may always be sent
//!   again.
//! - A call that meets a connection which was dead before is sent again, once,
//!   at once and on a new one, and that is no try: always where it is certain
//!   that the provider did nothing, and where it only closed in that very moment
//!   if the call may be repeated.
//! - Dropping a [`Reply`] resets its stream, or closes its connection, at once,
//!   because a provider bills what it goes on generating.

mod body;
mod connect;
mod dns;
mod gauge;
mod host;
mod lane;
mod line;
mod tls;

use crate::config::Network;
use body::Body;
use bytes::Bytes;
use connect::{Connector, Origin, Request};
use host::{Host, Seat};
use http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::Full;
use hyper::client::conn::TrySendError;
use std::{
    collections::HashMap,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// A connection that breaks sooner than this after a request was written had
/// been given up by the provider; later, it may have been at work.
const STALE: Duration = Duration::from_secs(1);
/// Hosts beyond this are forgotten once nothing is open to them.
const MOST_HOSTS: usize = 128;
const AGENT: HeaderValue = HeaderValue::from_static(concat!("skein/", env!("CARGO_PKG_VERSION")));
const GZIP: HeaderValue = HeaderValue::from_static("gzip");

pub struct Transport {
    connector: Arc<Connector>,
    network: Network,
    hosts: Mutex<HashMap<Origin, Arc<Host>>>,
}

/// What a request is sent with.
#[derive(Clone, Copy, Debug)]
pub struct Sending {
    /// How long a connection may take to come about.
    pub connect: Duration,
    /// Whether it may be sent again although it may have been carried out.
    pub repeatable: bool,
}

/// Why there is no transport.
#[derive(Debug, thiserror::Error)]
pub enum SetUp {
    #[error("load certificates: {0}")]
    Certificates(String),
    #[error("set up resolver: {0}")]
    Resolver(String),
}

/// Why there is no answer at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The connection took too long to come about.
    ConnectTimeout,
    /// No connection came about; nothing was sent.
    Unreachable,
    /// It broke after something was sent and before the answer's head.
    Reset,
    /// The answer's head is none, or longer than anybody needs.
    Garbled,
    /// The request is none that can be sent.
    Unsendable,
}

/// The head of an answer, and its body piece by piece.
pub struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Body,
    /// After the body, so that an unread one is seen to be unread.
    _seat: Seat,
}

/// How a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Broken,
    /// It is compressed, and not as it says.
    Garbled,
}

/// What became of a request on one connection.
enum Fate {
    /// The provider has not seen it, or says that it has not looked at it.
    Undone(Box<Request>),
    Lost(Lost),
}

impl Transport {
    /// `patience` is the longest that any provider's connection may take.
    pub fn new(network: &Network, patience: Duration) -> Result<Self, SetUp> {
        // For those who bring no cryptography of their own, such as the client of
        // object storage. A second one is refused, and then the first is ours too.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let connector = Arc::new(Connector::new(network, patience)?);
        Ok(Self { connector, network: network.clone(), hosts: Mutex::default() })
    }

    /// Opens a connection ahead of the first call, and keeps one. Only to where
    /// TLS makes a first call slow.
    pub fn warm(&self, uri: &http::Uri, connect: Duration) {
        let origin = Origin::of(uri).filter(|origin| origin.scheme == http::uri::Scheme::HTTPS);
        if let Some(origin) = origin {
            self.host(origin).warm(connect);
        }
    }

    /// Waits for the answer's head, for as long as its caller likes.
    pub async fn send(&self, request: http::Request<Bytes>, how: Sending) -> Result<Reply, Lost> {
        let origin = Origin::of(request.uri()).ok_or(Lost::Unsendable)?;
        let host = self.host(origin);
        let repeatable = how.repeatable || matches!(*request.method(), Method::GET | Method::HEAD);
        let mut request = request.map(Full::new);
        let headers = request.headers_mut();
        headers.entry(header::USER_AGENT).or_insert(AGENT);
        headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        headers.entry(header::ACCEPT_ENCODING).or_insert(GZIP);
        let (seat, reused) = host.seat(how.connect, false).await?;
        let request = match attempt(seat, request, reused && repeatable).await {
            Ok(reply) => return Ok(reply),
            Err(Fate::Lost(lost)) => return Err(lost),
            Err(Fate::Undone(request)) => *request,
        };
        host.gauges.resent();
        let (seat, _) = host.seat(how.connect, true).await?;
        attempt(seat, request, false).await.map_err(|fate| match fate {
            Fate::Lost(lost) => lost,
            Fate::Undone(_) => Lost::Reset,
        })
    }

    fn host(&self, origin: Origin) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= MOST_HOSTS {
            hosts.retain(|_, host| host.is_used());
        }
        let known = hosts.len();
        let host = hosts.entry(origin).or_insert_with_key(|origin| {
            let label = if known < gauge::HOSTS { origin.authority.host() } else { "other" };
            let connector = Arc::clone(&self.connector);
            Arc::new(Host::new(origin.clone(), connector, &self.network, label))
        });
        Arc::clone(host)
    }
}

/// `stale`: whether the connection may have been closed before this request
/// came, and the request may be repeated if so.
async fn attempt(mut seat: Seat, request: Request, stale: bool) -> Result<Reply, Fate> {
    let begun = Instant::now();
    let copy = request.clone();
    let sent = match &mut seat {
        Seat::Place(place) => place.send().try_send_request(request).await,
        Seat::Held(held) => {
            let Some((send, request)) = held.prepare(request) else {
                return Err(Fate::Undone(Box::new(copy)));
            };
            send.try_send_request(request).await
        }
    };
    match sent {
        Ok(response) => {
            let (head, body) = response.into_parts();
            let body = Body::new(&head.headers, body);
            Ok(Reply { status: head.status.as_u16(), headers: head.headers, body, _seat: seat })
        }
        Err(error) => Err(fate(error, copy, stale && begun.elapsed() < STALE)),
    }
}

fn fate(mut failed: TrySendError<Request>, copy: Request, stale: bool) -> Fate {
    let unsent = failed.take_message().is_some();
    let error = failed.into_error();
    tracing::debug!(%error, unsent, stale, "a connection to a provider broke");
    let cause = protocol(&error);
    // A GOAWAY that names an earlier stream, or a stream that was refused: the
    // peer says that it has not looked at it (RFC 9113, 6.8 and 8.7).
    let refused = cause.is_some_and(|cause| {
        let goodbye = cause.is_go_away() && cause.reason() == Some(h2::Reason::NO_ERROR);
        cause.is_remote() && (goodbye || cause.reason() == Some(h2::Reason::REFUSED_STREAM))
    });
    let ours = cause.is_some_and(h2::Error::is_library);
    if unsent || refused {
        Fate::Undone(Box::new(copy))
    } else if error.is_parse() || ours {
        Fate::Lost(Lost::Garbled)
    } else if stale && !error.is_user() {
        Fate::Undone(Box::new(copy))
    } else {
        Fate::Lost(Lost::Reset)
    }
}

/// What HTTP/2 itself says.
fn protocol(error: &hyper::Error) -> Option<&h2::Error> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        source = cause.source();
    }
    None
}

impl Reply {
    pub const fn status(&self) -> u16 {
        self.status
    }

    pub const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The next bytes of the body, `None` at its proper end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Cut> {
        self.body.chunk().await
    }
}
