//! One try at one provider: requests, the timers, decoding.
//!
//! Invariants:
//! - Every wait on a provider has a timer, each with its own reason.
//! - An error is classified by transport and status before its body is read.
//! - Events come until `Finished` or one error, and nothing comes after. Only
//!   the decoder says that an answer is whole; the end of the bytes does not.
//! - Whoever drops an exchange has ended it: the connection is closed, and a
//!   provider that must be told is told.

use crate::{
    config::Timers,
    error::{Error, Failure},
    provider::{Ask, Decoder, Event, Follow, Key, Provider, Quota, refused},
    sse,
    transport::{Cut, Lost, Reply, Sending, Transport},
    upstream::{Inside, Upstream},
};
use bytes::Bytes;
use mesh::error::ServiceError;
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout, timeout_at},
};

/// Largest answer taken whole: 2048 embeddings of 3072 floats in base64.
pub const MAX_BODY: usize = 64 << 20;
/// Largest error answer that is read for its message.
const MAX_ERROR: usize = 64 << 10;
/// How long the words of an error may take that is known by its status.
const WORDS: Duration = Duration::from_secs(2);
/// How long a provider may take to hear that nobody waits any more.
const ABANDON: Duration = Duration::from_secs(10);

/// Who is asked, how, and until when.
#[derive(Clone)]
pub struct Path {
    pub transport: Arc<Transport>,
    pub provider: Arc<dyn Provider>,
    pub key: Key,
    pub timers: Timers,
    pub upstream: Arc<Upstream>,
    /// When the whole call, with all its tries, is over.
    pub total: Instant,
}

impl Path {
    fn sending(&self) -> Sending {
        let repeatable = self.provider.repeats_blindly();
        Sending { connect: self.timers.connect, repeatable }
    }
}

impl Path {
    /// An error without any of our keys in it: some servers repeat what they
    /// were sent.
    fn hide(&self, error: Error) -> Error {
        self.provider.keys().iter().fold(error, |error, key| key.hide(error))
    }
}

pub struct Exchange {
    path: Path,
    /// Where the key may go.
    home: Home,
    decoder: Box<dyn Decoder>,
    reply: Option<Reply>,
    streamed: bool,
    parser: sse::Parser,
    first: Instant,
    ready: VecDeque<Event>,
    /// Goes out after what is ready: what was said before it is real.
    error: Option<Error>,
    ended: bool,
    /// The last event has come: there is nothing to call off.
    finished: bool,
    /// Of the answer's head.
    pub quota: Quota,
    request_id: String,
    /// Until the try is over.
    inside: Option<Inside>,
}

/// Asks for one document and takes it whole.
pub async fn document(path: Path, request: http::Request<Bytes>) -> Result<(Bytes, Quota), Error> {
    let mut exchange = Exchange::sent(path, Ask { request, decoder: Box::new(Undecoded) }).await?;
    let Some(mut reply) = exchange.reply.take() else {
        return Err(exchange.error(Failure::Cut, "nothing came"));
    };
    let body = exchange.body(&mut reply, MAX_BODY).await;
    exchange.close(body.as_ref().err());
    Ok((body?, exchange.quota))
}

impl Exchange {
    /// Sends the request and waits for the head of the answer.
    pub async fn begin(path: Path, ask: Ask) -> Result<Self, Error> {
        if path.provider.repeats_blindly() {
            return Self::sent(path, ask).await;
        }
        // What is begun there is known by its answer alone. A task of its own
        // hears it out although the caller leaves, and calls it off then.
        let name = Arc::clone(path.provider.name());
        let (mut tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let begun = tokio::select! {
                begun = Self::heard(path, ask) => begun,
                () = left(&mut tell) => return,
            };
            let _ = tell.send(begun); // where nobody waits, it is dropped
        });
        let lost = || Error::provider(&name, Failure::Cut, "the answer was lost");
        told.await.map_err(|_| lost())?
    }

    /// With its first body, where that is a document.
    async fn heard(path: Path, ask: Ask) -> Result<Self, Error> {
        let mut exchange = Self::sent(path, ask).await?;
        if !exchange.streamed {
            exchange.error = exchange.read().await.err();
        }
        Ok(exchange)
    }

    async fn sent(path: Path, ask: Ask) -> Result<Self, Error> {
        let first = Instant::now() + path.timers.first_token;
        let home = Home::of(ask.request.uri());
        let inside = Some(path.upstream.enter(home.host.as_deref()));
        let mut exchange = Self {
            home,
            decoder: ask.decoder,
            reply: None,
            streamed: false,
            parser: sse::Parser::default(),
            first,
            ready: VecDeque::new(),
            error: None,
            ended: false,
            finished: false,
            quota: Quota::default(),
            request_id: String::new(),
            inside,
            path,
        };
        let sent = exchange.send(ask.request).await;
        let sent = sent.map_err(|error| exchange.path.hide(error));
        sent.inspect_err(|error| exchange.close(Some(error)))?;
        Ok(exchange)
    }

    /// The try is over.
    fn close(&mut self, error: Option<&Error>) {
        let Some(inside) = self.inside.take() else { return };
        inside.said(self.decoder.used());
        error.and_then(ServiceError::reason).inspect(|reason| inside.failed(reason));
    }

    /// The next event, or `None` after the last one or an error.
    pub async fn next(&mut self) -> Option<Result<Event, Error>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                // What a provider says after its last word is nobody's business.
                if matches!(event, Event::Finished(_)) {
                    (self.ended, self.finished) = (true, true);
                    self.ready.clear();
                    self.close(None);
                }
                return Some(Ok(event));
            }
            if let Some(error) = self.error.take() {
                let error = self.path.hide(error);
                self.ended = true;
                self.close(Some(&error));
                return Some(Err(error));
            }
            if self.ended {
                return None;
            }
            self.error = self.read().await.err();
        }
    }

    /// The provider's own name for the call.
    pub fn request_id(&self) -> String {
        self.decoder.request_id().unwrap_or(&self.request_id).to_owned()
    }

    async fn send(&mut self, mut request: http::Request<Bytes>) -> Result<(), Error> {
        if self.home.trusts(request.uri()) {
            self.path.key.put(request.headers_mut());
        }
        let (deadline, failure) = self.deadline(true);
        let sent = timeout_at(deadline, self.path.transport.send(request, self.path.sending()));
        let mut reply = match sent.await {
            Err(_) => return Err(self.expired(failure)),
            Ok(Err(lost)) => return Err(self.lost(lost)),
            Ok(Ok(reply)) => reply,
        };
        let status = reply.status();
        self.quota = self.path.provider.quota(reply.headers());
        self.request_id = request_id(reply.headers());
        if !(200..300).contains(&status) {
            let headers = reply.headers().clone();
            // A body that does not come changes the message, never the failure,
            // and nobody waits long for words.
            let body = timeout(WORDS, self.body(&mut reply, MAX_ERROR)).await;
            let body = body.ok().and_then(Result::ok).unwrap_or_default();
            return Err(refused(self.path.provider.as_ref(), status, &headers, &body));
        }
        self.streamed = match kind(reply.headers()) {
            "text/html" => {
                return Err(self.error(Failure::Malformed, "a web page came instead of an answer"));
            }
            json if json.ends_with("json") => false,
            // Some servers forget the header; then it is what we asked for.
            _ => true,
        };
        self.parser = sse::Parser::default();
        self.reply = Some(reply);
        Ok(())
    }

    async fn read(&mut self) -> Result<(), Error> {
        let mut events = Vec::new();
        let outcome = self.read_into(&mut events).await;
        if !events.is_empty() {
            // The first token is there; from now on silence is what ends it.
            self.first = self.path.total;
        }
        self.ready.extend(events);
        outcome
    }

    async fn read_into(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        let Some(mut reply) = self.reply.take() else { return self.go_on(events).await };
        if !self.streamed {
            let body = self.body(&mut reply, MAX_BODY).await?;
            if let Some(inside) = &mut self.inside {
                inside.heard(&body);
            }
            return self.decoder.whole(&body, events);
        }
        let (deadline, failure) = self.deadline(false);
        match timeout_at(deadline, reply.chunk()).await {
            Err(_) => Err(self.expired(failure)),
            Ok(Ok(Some(bytes))) => {
                self.feed(&bytes, events)?;
                self.reply = (!self.decoder.is_through()).then_some(reply);
                Ok(())
            }
            Ok(Ok(None) | Err(Cut::Broken)) => self.decoder.end(events),
            Ok(Err(Cut::Garbled)) => Err(self.garbled()),
        }
    }

    fn feed(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), Error> {
        let mut parsed = Vec::new();
        let outcome = self.parser.push(bytes, &mut parsed);
        for event in parsed {
            if let Some(inside) = &mut self.inside {
                inside.heard(event.data.as_bytes());
            }
            self.decoder.push(&event, events)?;
        }
        outcome.map_err(|error| {
            let failure = match error {
                sse::Broken::TooLong => Failure::TooLarge,
                sse::Broken::NotUtf8 => Failure::Malformed,
            };
            self.error(failure, &error.to_string())
        })
    }

    /// The body has ended without the last event. How often a follow that fails
    /// is tried again is the decoder's word.
    async fn go_on(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        let mut lost: Option<Error> = None;
        loop {
            let failure = lost.as_ref().and_then(Error::failure);
            let Some(Follow { request, after }) = self.decoder.follow(failure, events) else {
                return match lost {
                    _ if !events.is_empty() => Ok(()),
                    // It has begun there: no failure of a later request makes it
                    // look as if nothing had been sent.
                    Some(lost) if !self.path.provider.repeats_blindly() => {
                        Err(self.error(Failure::Cut, &format!("lost sight of what began: {lost}")))
                    }
                    Some(lost) => Err(lost),
                    None => Err(self.error(Failure::Cut, "the answer ended before its last event")),
                };
            };
            if !after.is_zero() {
                let (deadline, failure) = self.deadline(true);
                timeout_at(deadline, sleep(after)).await.map_err(|_| self.expired(failure))?;
            }
            match self.send(request).await {
                Ok(()) => return Ok(()),
                Err(error) if error.failure().is_none_or(is_timer) => return Err(error),
                Err(error) => lost = Some(error),
            }
        }
    }

    async fn body(&mut self, reply: &mut Reply, limit: usize) -> Result<Bytes, Error> {
        let mut body = Vec::new();
        loop {
            let (deadline, failure) = self.deadline(body.is_empty());
            match timeout_at(deadline, reply.chunk()).await {
                Err(_) => return Err(self.expired(failure)),
                Ok(Err(Cut::Broken)) => return Err(self.error(Failure::Cut, "the answer was cut")),
                Ok(Err(Cut::Garbled)) => return Err(self.garbled()),
                Ok(Ok(None)) => return Ok(body.into()),
                Ok(Ok(Some(bytes))) if body.len() + bytes.len() <= limit => {
                    body.extend_from_slice(&bytes);
                }
                Ok(Ok(Some(_))) => {
                    return Err(self.error(Failure::TooLarge, "the answer is too large"));
                }
            }
        }
    }

    /// The next deadline and what it means when it passes. Before the first
    /// event both the first token and any sign of life are waited for.
    fn deadline(&self, waiting_for_head: bool) -> (Instant, Failure) {
        let idle = Instant::now() + self.path.timers.idle;
        let next = if waiting_for_head || self.first <= idle {
            (self.first, Failure::FirstTokenTimeout)
        } else {
            (idle, Failure::IdleTimeout)
        };
        if self.path.total <= next.0 { (self.path.total, Failure::TotalTimeout) } else { next }
    }

    fn error(&self, failure: Failure, message: &str) -> Error {
        Error::provider(self.path.provider.name(), failure, message)
    }

    fn garbled(&self) -> Error {
        self.error(Failure::Malformed, "the answer is compressed, and not as it says")
    }

    fn expired(&self, failure: Failure) -> Error {
        let message = match failure {
            Failure::FirstTokenTimeout => "no first token in time",
            Failure::IdleTimeout => "fell silent in mid-stream",
            _ => "the whole call took too long",
        };
        self.error(failure, message)
    }

    fn lost(&self, lost: Lost) -> Error {
        let (failure, message) = match lost {
            Lost::ConnectTimeout => (Failure::ConnectTimeout, "cannot connect in time"),
            Lost::Unreachable => {
                (Failure::Unreachable, "cannot connect: is the address right and the network there")
            }
            Lost::Garbled => (Failure::Malformed, "the answer's head is none, or too long"),
            Lost::Reset => (Failure::Reset, "the connection broke before an answer came"),
            Lost::Unsendable => (Failure::BadRequest, "the provider's address is not a URL"),
        };
        self.error(failure, message)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.close(None);
        if self.finished {
            return;
        }
        let Some(mut request) = self.decoder.abandon() else { return };
        if self.home.trusts(request.uri()) {
            self.path.key.put(request.headers_mut());
        }
        let transport = Arc::clone(&self.path.transport);
        let sending = Sending { repeatable: true, ..self.path.sending() };
        // Outlives its call, because the call is what has ended.
        tokio::spawn(async move {
            let told = timeout(ABANDON, transport.send(request, sending)).await;
            if !matches!(told, Ok(Ok(reply)) if reply.status() < 400) {
                tracing::warn!("could not tell a provider to stop; it may bill the rest");
            }
        });
    }
}

/// Completes some time after nobody waits any more.
async fn left<T>(tell: &mut oneshot::Sender<T>) {
    tell.closed().await;
    sleep(ABANDON).await;
}

/// For documents, which their callers read.
struct Undecoded;

impl Decoder for Undecoded {
    fn push(&mut self, _: &sse::Event, _: &mut Vec<Event>) -> Result<(), Error> {
        Ok(())
    }
    fn end(&mut self, _: &mut Vec<Event>) -> Result<(), Error> {
        Ok(())
    }
    fn whole(&mut self, _: &[u8], _: &mut Vec<Event>) -> Result<(), Error> {
        Ok(())
    }
}

const fn is_timer(failure: Failure) -> bool {
    matches!(failure, Failure::FirstTokenTimeout | Failure::IdleTimeout | Failure::TotalTimeout)
}

/// Where the first request of a call went.
struct Home {
    host: Option<String>,
    secure: bool,
}

impl Home {
    fn of(uri: &http::Uri) -> Self {
        let secure = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
        Self { host: uri.host().map(str::to_owned), secure }
    }

    /// Whether the key may go there too, and not in clear if it did not.
    fn trusts(&self, uri: &http::Uri) -> bool {
        let secure = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
        related(self.host.as_deref(), uri.host()) && (secure || !self.secure)
    }
}

/// Whether a key for `ours` may go to `theirs`: the same host, or another one
/// below the same domain (`api.replicate.com`, `stream.replicate.com`).
pub(crate) fn related(ours: Option<&str>, theirs: Option<&str>) -> bool {
    let (Some(ours), Some(theirs)) = (ours, theirs) else { return false };
    let parent = |host: &str| {
        let (_, parent) = host.split_once('.')?;
        let named = parent.contains('.') && !parent.ends_with(|last: char| last.is_ascii_digit());
        named.then(|| parent.to_ascii_lowercase())
    };
    ours.eq_ignore_ascii_case(theirs)
        || parent(ours).is_some_and(|ours| parent(theirs) == Some(ours))
}

fn request_id(headers: &http::HeaderMap) -> String {
    let read = |name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
    ["x-request-id", "request-id"].into_iter().find_map(read).unwrap_or_default()
}

/// The media type without its parameters.
fn kind(headers: &http::HeaderMap) -> &str {
    let kind = headers.get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.unwrap_or_default().split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::related;

    #[test]
    fn a_key_stays_with_its_provider() {
        let host = Some("api.replicate.com");
        assert!(related(host, host) && related(host, Some("Stream.Replicate.com")));
        assert!(!related(host, Some("evil.com")) && !related(host, Some("replicate.com.evil.com")));
        assert!(!related(Some("a.com"), Some("b.com")), "nobody owns com");
        assert!(!related(Some("10.0.0.1"), Some("11.0.0.1")) && !related(host, None));
    }
}
