//! A response body that can be ended from outside: its key was revoked, or its
//! reader stopped reading. Neither is seen by polling the body: a quiet one
//! waits for its next event, an unread one is not polled at all.
//!
//! Invariants:
//! - A call's guards (slot, room) are dropped with its last frame, before that
//!   frame is handed out, whatever ends it.
//! - A body that nobody has taken a frame from for `unread`, not even the first,
//!   gives up the work behind it within a second, and its memory with it.
//! - A revoked or expired key's streams end within a second of this gateway
//!   hearing of it.
//! - An ending is told in the dialect of the answer: gRPC trailers, or a last
//!   event and a broken stream.

use crate::{
    keys::{Denied, Key},
    openai::{chunks, error::Refusal},
    sse::LAST_WORDS,
    store::Store,
};
use axum::body::Body;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{HeaderMap, HeaderValue, header};
use http_body::{Body as _, Frame, SizeHint};
use mesh::{
    clock,
    error::{self, Kind},
};
use std::{
    any::Any,
    collections::HashMap,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep};
use tonic::Status;

const LOOK: Duration = Duration::from_millis(500);

/// Why a body was ended.
#[derive(Clone, Debug)]
enum Why {
    Denied(Denied),
    Unread,
    TooLarge(u64),
}

/// How an answer can be ended.
#[derive(Clone, Copy)]
enum Dialect {
    Grpc,
    Events,
    Plain,
}

/// All bodies that are being sent.
#[derive(Clone)]
pub struct Leashes {
    all: Arc<Mutex<HashMap<u64, Weak<Leash>>>>,
    next: Arc<AtomicU64>,
    unread: Duration,
    longest: u64,
    began: Instant,
}

struct Leash {
    key: Arc<Key>,
    held: Mutex<Held>,
    waker: AtomicWaker,
    /// Milliseconds since the beginning at which a frame was handed out; 0
    /// while the reader waits for us.
    handed: AtomicU64,
}

struct Held {
    /// `None` after the end.
    body: Option<Body>,
    guards: Option<Box<dyn Any + Send>>,
    why: Option<Why>,
}

impl Leash {
    fn cut(&self, why: Why) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.body.is_none() {
            return;
        }
        let (body, guards) = (held.body.take(), held.guards.take());
        held.why = Some(why);
        drop(held);
        drop((body, guards));
        self.waker.wake();
    }
}

impl Leashes {
    /// `unread`: how long a reader may not read; `longest`: bytes of one answer.
    pub fn new(unread: Duration, longest: u64) -> Self {
        let (all, next) = (Arc::default(), Arc::default());
        Self { all, next, unread, longest, began: Instant::now() }
    }

    /// `body` on a leash; `guards` live as long as it does.
    pub fn tie(
        &self,
        key: Arc<Key>,
        headers: &HeaderMap,
        body: Body,
        guards: impl Any + Send,
    ) -> Body {
        if body.is_end_stream() {
            return body;
        }
        let held = Held { body: Some(body), guards: Some(Box::new(guards)), why: None };
        let leash = Arc::new(Leash {
            key,
            held: Mutex::new(held),
            waker: AtomicWaker::new(),
            // As if handed out now: a reader without a window is never polled for.
            handed: AtomicU64::new(self.now()),
        });
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(id, Arc::downgrade(&leash));
        Body::new(Leashed {
            leash,
            id,
            all: self.clone(),
            dialect: dialect(headers),
            sent: 0,
            last_words: None,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Weak<Leash>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the largest answer.
    pub const fn longest(&self) -> u64 {
        self.longest
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Ends what has to end, for ever.
    pub async fn watch(self, store: Store) {
        let unread = u64::try_from(self.unread.as_millis()).unwrap_or(u64::MAX);
        loop {
            tokio::time::sleep(LOOK).await;
            let all: Vec<_> = self.lock().values().filter_map(Weak::upgrade).collect();
            let (keys, wall, now) = (store.keys(), clock::now_micros(), self.now());
            for leash in all {
                let handed = leash.handed.load(Ordering::Relaxed);
                if let Err(denied) = keys.still(&leash.key, wall) {
                    leash.cut(Why::Denied(denied));
                } else if handed > 0 && now.saturating_sub(handed) > unread {
                    metrics::counter!("skein_gateway_unread_total").increment(1);
                    leash.cut(Why::Unread);
                }
            }
        }
    }
}

fn dialect(headers: &HeaderMap) -> Dialect {
    let media_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if media_type.starts_with(b"application/grpc") {
        Dialect::Grpc
    } else if media_type.starts_with(b"text/event-stream") {
        Dialect::Events
    } else {
        Dialect::Plain
    }
}

/// What an answer above the limit is answered with.
pub fn too_large(limit: u64) -> Status {
    let limit = mesh::config::Size(limit);
    let message = format!("the answer is larger than this gateway's limit of {limit}");
    let kind = Kind::RateLimited { retry_after: None };
    error::status(kind, Some("ANSWER_TOO_LARGE"), None, message)
}

impl Why {
    fn status(&self) -> Status {
        match self {
            Self::Denied(denied) => error::to_status(denied),
            Self::Unread => {
                let message = "nobody read this answer for too long".to_owned();
                error::status(Kind::DeadlineExceeded, Some("READER_TOO_SLOW"), None, message)
            }
            Self::TooLarge(limit) => too_large(*limit),
        }
    }

    fn refusal(&self) -> Refusal {
        match self {
            Self::Denied(denied) => Refusal::of(denied),
            Self::Unread | Self::TooLarge(_) => Refusal::from_status(&self.status()),
        }
    }
}

struct Leashed {
    leash: Arc<Leash>,
    id: u64,
    all: Leashes,
    dialect: Dialect,
    sent: u64,
    /// Between the last event of a broken stream and its reset.
    last_words: Option<Pin<Box<Sleep>>>,
}

impl Drop for Leashed {
    fn drop(&mut self) {
        self.all.lock().remove(&self.id);
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, axum::Error>>>;

impl Leashed {
    /// The end that was made from outside, in the dialect of the answer.
    fn end(&mut self, why: &Why, cx: &mut Context<'_>) -> Polled {
        let broken = || axum::Error::new(io::Error::other("the answer was ended"));
        if let Some(sleep) = &mut self.last_words {
            ready!(sleep.as_mut().poll(cx));
            return Poll::Ready(Some(Err(broken())));
        }
        Poll::Ready(match self.dialect {
            Dialect::Grpc => {
                let mut trailers = HeaderMap::new();
                let _ = why.status().add_header(&mut trailers);
                self.leash.lock().why = None;
                Some(Ok(Frame::trailers(trailers)))
            }
            Dialect::Events => {
                self.last_words = Some(Box::pin(tokio::time::sleep(LAST_WORDS)));
                Some(Ok(Frame::data(chunks::failure(&why.refusal()).into())))
            }
            Dialect::Plain => Some(Err(broken())),
        })
    }
}

impl Leash {
    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl http_body::Body for Leashed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let this = &mut *self;
        let leash = Arc::clone(&this.leash);
        leash.waker.register(cx.waker());
        let mut held = leash.lock();
        let Some(body) = held.body.as_mut() else {
            let why = held.why.clone();
            drop(held);
            return why.map_or(Poll::Ready(None), |why| this.end(&why, cx));
        };
        let frame = Pin::new(&mut *body).poll_frame(cx);
        let over = match &frame {
            Poll::Pending => {
                leash.handed.store(0, Ordering::Relaxed);
                return Poll::Pending;
            }
            Poll::Ready(Some(Ok(frame))) => {
                this.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                frame.is_trailers() || body.is_end_stream()
            }
            Poll::Ready(Some(Err(_)) | None) => true,
        };
        let too_large = this.sent > this.all.longest;
        if over || too_large {
            let ended = (held.body.take(), held.guards.take());
            held.why = too_large.then_some(Why::TooLarge(this.all.longest));
            let why = held.why.clone();
            drop(held);
            drop(ended);
            if let Some(why) = why {
                return this.end(&why, cx);
            }
        } else {
            leash.handed.store(this.all.now(), Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        let held = self.leash.lock();
        held.body.is_none() && held.why.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.leash.lock();
        held.body.as_ref().map_or_else(SizeHint::default, http_body::Body::size_hint)
    }
}
