//! The one HTTPS client: connections, the four timers, errors by status.
//!
//! Invariants:
//! - Every wait on a provider has a timer, each with its own reason.
//! - An error is classified by transport and status before its body is read.
//! - Nobody's stream: when the caller drops it, the provider's connection is
//!   closed at once, because a provider bills what it goes on generating.
//! - The first event is awaited before the stream is handed out, so an early
//!   error is a status and not a broken stream.
//!
//! Providers are spoken to in HTTP/1.1: HTTP/2 clients keep one connection to
//! a host, and the hundredth stream then waits in silence.

use crate::{
    config::Timers,
    error::{Error, Failure},
    provider::{Decoder, Event, Provider, retry_after},
    sse,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use std::{collections::VecDeque, pin::Pin, time::Duration};
use tokio::time::{Instant, timeout_at};

/// Events of one call; dropping it ends the call.
pub type Events = Pin<Box<dyn Stream<Item = Result<Event, Error>> + Send>>;

/// Below every provider's own idle limit, so that we never write into a
/// connection that the other side is closing.
const POOL_IDLE: Duration = Duration::from_secs(20);
/// Largest answer taken whole: 2048 embeddings of 3072 floats in base64.
const MAX_BODY: usize = 64 << 20;
/// Largest error answer that is read for its message.
const MAX_ERROR: usize = 64 << 10;

pub struct Transport {
    client: reqwest::Client,
    timers: Timers,
}

impl Transport {
    pub fn new(timers: Timers) -> Result<Self, reqwest::Error> {
        // A second installation is refused, and then the first one is ours too.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .http1_only()
            .tcp_nodelay(true)
            .connect_timeout(timers.connect)
            .pool_idle_timeout(POOL_IDLE)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { client, timers })
    }

    /// Sends a request whose answer is a stream, and waits for its first event.
    pub async fn stream(
        &self,
        provider: &dyn Provider,
        request: http::Request<Bytes>,
        decoder: Box<dyn Decoder>,
    ) -> Result<Events, Error> {
        let begun = Instant::now();
        let clock = Clock {
            provider: provider.name(),
            first: begun + self.timers.first_token,
            total: begun + self.timers.total,
            idle: self.timers.idle,
        };
        let response = self.send(provider, request, &clock).await?;
        let streamed = is_event_stream(&response);
        let mut reading = Reading {
            response,
            clock,
            parser: sse::Parser::default(),
            decoder,
            ready: VecDeque::new(),
            error: None,
            ended: false,
        };
        if !streamed {
            reading.read_whole().await?;
        }
        let first = reading.next(true).await;
        let first =
            first.unwrap_or_else(|| Err(reading.clock.error(Failure::Cut, "nothing came")))?;
        let rest = stream::unfold(reading, |mut reading| async move {
            let event = reading.next(false).await?;
            Some((event, reading))
        });
        Ok(Box::pin(stream::iter([Ok(first)]).chain(rest)))
    }

    /// Sends a request whose answer is one document; `limit` shortens the
    /// timers for calls that somebody waits for by the way.
    pub async fn whole(
        &self,
        provider: &dyn Provider,
        request: http::Request<Bytes>,
        limit: Option<Duration>,
    ) -> Result<Bytes, Error> {
        let begun = Instant::now();
        let within = |timer: Duration| begun + limit.map_or(timer, |limit| limit.min(timer));
        let clock = Clock {
            provider: provider.name(),
            first: within(self.timers.first_token),
            total: within(self.timers.total),
            idle: self.timers.idle,
        };
        let mut response = self.send(provider, request, &clock).await?;
        read_body(&mut response, &clock, MAX_BODY).await
    }

    async fn send(
        &self,
        provider: &dyn Provider,
        request: http::Request<Bytes>,
        clock: &Clock,
    ) -> Result<reqwest::Response, Error> {
        let request = reqwest::Request::try_from(request)
            .map_err(|_| clock.error(Failure::BadRequest, "the provider's address is not a URL"))?;
        let sent = timeout_at(clock.first, self.client.execute(request));
        let mut response = match sent.await {
            Err(_) => return Err(clock.expired(Failure::FirstTokenTimeout)),
            Ok(Err(error)) => return Err(clock.broken(&error)),
            Ok(Ok(response)) => response,
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let failure = Failure::of_status(status.as_u16(), retry_after(response.headers()));
        // A body that does not come changes the message, never the failure.
        let body = read_body(&mut response, clock, MAX_ERROR).await.unwrap_or_default();
        Err(provider.refusal(failure, &body))
    }
}

/// When a call's patience ends.
struct Clock {
    provider: &'static str,
    first: Instant,
    total: Instant,
    idle: Duration,
}

impl Clock {
    fn error(&self, failure: Failure, message: &str) -> Error {
        Error::provider(self.provider, failure, message)
    }

    fn expired(&self, failure: Failure) -> Error {
        let message = match failure {
            Failure::ConnectTimeout => "cannot connect in time",
            Failure::FirstTokenTimeout => "no first token in time",
            Failure::IdleTimeout => "fell silent in mid-stream",
            _ => "the whole call took too long",
        };
        self.error(failure, message)
    }

    fn broken(&self, error: &reqwest::Error) -> Error {
        if error.is_connect() && error.is_timeout() {
            return self.expired(Failure::ConnectTimeout);
        }
        let message = if error.is_connect() {
            "cannot connect: is the address right and the network there"
        } else {
            "the connection broke"
        };
        self.error(Failure::Unavailable, message)
    }

    /// The next deadline and what it means when it passes.
    fn deadline(&self, waiting_for_first: bool) -> (Instant, Failure) {
        let next = if waiting_for_first {
            (self.first, Failure::FirstTokenTimeout)
        } else {
            (Instant::now() + self.idle, Failure::IdleTimeout)
        };
        if self.total <= next.0 { (self.total, Failure::TotalTimeout) } else { next }
    }
}

struct Reading {
    response: reqwest::Response,
    clock: Clock,
    parser: sse::Parser,
    decoder: Box<dyn Decoder>,
    ready: VecDeque<Event>,
    /// Goes out after what is ready: what was said before it is real.
    error: Option<Error>,
    ended: bool,
}

impl Reading {
    /// The next event, or `None` after the last one or an error.
    async fn next(&mut self, first: bool) -> Option<Result<Event, Error>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                // What a provider says after its last word is nobody's business.
                if matches!(event, Event::Finished(_)) {
                    self.ended = true;
                    self.ready.clear();
                }
                return Some(Ok(event));
            }
            if let Some(error) = self.error.take() {
                self.ended = true;
                return Some(Err(error));
            }
            if self.ended {
                return None;
            }
            self.error = self.read(first).await.err();
        }
    }

    async fn read(&mut self, first: bool) -> Result<(), Error> {
        let (deadline, failure) = self.clock.deadline(first);
        let piece = match timeout_at(deadline, self.response.chunk()).await {
            Err(_) => return Err(self.clock.expired(failure)),
            Ok(Err(_)) => None,
            Ok(Ok(piece)) => piece,
        };
        let mut events = Vec::new();
        let outcome = match piece {
            Some(bytes) => self.feed(&bytes, &mut events),
            None => self.decoder.end(&mut events),
        };
        self.ready.extend(events);
        outcome
    }

    fn feed(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), Error> {
        let mut data = Vec::new();
        let parsed = self.parser.push(bytes, &mut data);
        for data in data {
            self.decoder.push(&data, events)?;
        }
        parsed.map_err(|error| self.clock.error(Failure::Malformed, &error.to_string()))
    }

    async fn read_whole(&mut self) -> Result<(), Error> {
        let body = read_body(&mut self.response, &self.clock, MAX_BODY).await?;
        let mut events = Vec::new();
        self.decoder.whole(&body, &mut events)?;
        self.ready.extend(events);
        Ok(())
    }
}

fn is_event_stream(response: &reqwest::Response) -> bool {
    let kind = response.headers().get(http::header::CONTENT_TYPE);
    // Some servers forget the header; then it is what we asked for.
    kind.and_then(|kind| kind.to_str().ok()).is_none_or(|kind| !kind.contains("application/json"))
}

async fn read_body(
    response: &mut reqwest::Response,
    clock: &Clock,
    limit: usize,
) -> Result<Bytes, Error> {
    let mut body = Vec::new();
    loop {
        let (deadline, failure) = clock.deadline(body.is_empty());
        match timeout_at(deadline, response.chunk()).await {
            Err(_) => return Err(clock.expired(failure)),
            Ok(Err(_)) => return Err(clock.error(Failure::Unavailable, "the answer was cut")),
            Ok(Ok(None)) => return Ok(body.into()),
            Ok(Ok(Some(bytes))) if body.len() + bytes.len() <= limit => {
                body.extend_from_slice(&bytes);
            }
            Ok(Ok(Some(_))) => {
                return Err(clock.error(Failure::Malformed, "the answer is too large"));
            }
        }
    }
}
