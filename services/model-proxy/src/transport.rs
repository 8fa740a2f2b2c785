//! The one HTTPS client: connections to providers, and what breaks on them.
//!
//! Invariants:
//! - An error says whether anything was sent: what was not may always be sent
//!   again.
//! - Dropping a [`Reply`] closes its stream or its connection at once, because a
//!   provider bills what it goes on generating.
//!
//! Providers are spoken to in HTTP/1.1: HTTP/2 clients keep one connection to
//! a host, and the hundredth stream then waits in silence.

use bytes::Bytes;
use std::{error::Error as _, time::Duration};

/// Below every provider's own idle limit, so that we never write into a
/// connection that the other side is closing.
const POOL_IDLE: Duration = Duration::from_secs(20);

pub struct Transport {
    client: reqwest::Client,
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
    /// The request is none that can be sent.
    Unsendable,
}

/// The head of an answer, and its body piece by piece.
pub struct Reply(reqwest::Response);

impl Transport {
    /// `connect` is how long a connection may take to come about.
    pub fn new(connect: Duration) -> Result<Self, reqwest::Error> {
        // A second installation is refused, and then the first one is ours too.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .http1_only()
            .tcp_nodelay(true)
            .connect_timeout(connect)
            .pool_idle_timeout(POOL_IDLE)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { client })
    }

    /// Waits for the answer's head, for as long as its caller likes.
    pub async fn send(&self, request: http::Request<Bytes>) -> Result<Reply, Lost> {
        let request = reqwest::Request::try_from(request).map_err(|_| Lost::Unsendable)?;
        self.client.execute(request).await.map(Reply).map_err(|error| {
            if error.is_connect() && error.is_timeout() {
                Lost::ConnectTimeout
            } else if error.is_connect() {
                Lost::Unreachable
            } else {
                Lost::Reset
            }
        })
    }
}

impl Reply {
    pub fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    pub fn headers(&self) -> &http::HeaderMap {
        self.0.headers()
    }

    /// The next bytes of the body, `None` at its proper end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Cut> {
        let cut = |error| if is_connection(&error) { Cut::Broken } else { Cut::Garbled };
        self.0.chunk().await.map_err(cut)
    }
}

/// Whether the connection failed, and not the unpacking of what came over it.
fn is_connection(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<hyper::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// How a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Broken,
    /// It is compressed, and not as it says.
    Garbled,
}
