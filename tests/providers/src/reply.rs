//! What one call gets: the usual answer, changed or broken, or another one.
//!
//! Invariants:
//! - Faults combine: each method changes one thing and leaves the rest.

mod change;

use crate::{
    replay::Chunking,
    step::{End, Role},
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::time::Duration;

/// See the methods; [`Reply::usual`] is where most begin.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub(crate) base: Base,
    pub(crate) say: Say,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) late: Duration,
    pub(crate) edits: Vec<Edit>,
}

#[derive(Clone, Debug, Default)]
pub(crate) enum Base {
    #[default]
    Usual,
    Failure(Failure),
    Body {
        status: u16,
        kind: &'static str,
        body: Bytes,
    },
    Recording(Bytes),
    /// The connection ends without an answer.
    Broken(End),
    /// Bytes that are not HTTP, then the connection ends.
    Raw(Bytes),
    /// No answer, ever.
    Silence,
}

/// An error in the provider's own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// What the provider says with this status.
    Status(u16),
    /// OpenAI's `insufficient_quota`; elsewhere the nearest.
    Quota,
    /// Anthropic's `enforced_spend_limit_reached`: a 429 not to be repeated.
    SpendLimit,
    /// OpenAI's `slow_down`.
    SlowDown,
    ContextLength,
    /// A request refused for its content.
    ContentFilter,
}

/// What the usual answer says; whatever is unset is as usual.
#[derive(Clone, Debug, Default)]
pub(crate) struct Say {
    pub(crate) text: Option<String>,
    pub(crate) thinking: Option<String>,
    pub(crate) refusal: Option<String>,
    /// Names and arguments.
    pub(crate) tools: Vec<(String, String)>,
    pub(crate) tools_whole: bool,
    pub(crate) finish: Option<String>,
    pub(crate) usage: Option<Value>,
    pub(crate) no_usage: bool,
    /// Not streamed although a stream was asked.
    pub(crate) whole: bool,
    /// A word each so often, for ever.
    pub(crate) endless: Option<Duration>,
    /// A chunk without choices comes first.
    pub(crate) empty_first: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Edit {
    /// So many pieces of content, and then this.
    After(usize, Then),
    /// After so many pieces of content these bytes come too.
    Insert(usize, Bytes),
    /// These bytes first.
    Prefix(Bytes),
    Without(Role),
    Pace(Duration),
    FirstLate(Duration),
    Gzip(Gzip),
    Cut(Chunking),
    /// A ping before each piece.
    Pings,
    Newline(&'static str),
}

#[derive(Clone, Debug)]
pub(crate) enum Then {
    End(End),
    Stall,
    Pings(Duration),
    Error,
    Flood(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gzip {
    Good,
    /// Half of what it should be, though the body ends cleanly.
    Truncated,
    /// Announced, but not what comes.
    Garbage,
}

impl Reply {
    /// What the call would get without a script.
    pub fn usual() -> Self {
        Self::default()
    }

    fn of(base: Base) -> Self {
        Self { base, ..Self::default() }
    }

    /// The provider's own error for `status`; without `Retry-After`.
    pub fn status(status: u16) -> Self {
        Self::failure(Failure::Status(status))
    }

    pub fn failure(failure: Failure) -> Self {
        Self::of(Base::Failure(failure))
    }

    /// Any status with any JSON.
    pub fn json(status: u16, body: &Value) -> Self {
        let body = Bytes::from(body.to_string());
        Self::of(Base::Body { status, kind: "application/json", body })
    }

    /// A page for people, as proxies send it.
    pub fn html(status: u16) -> Self {
        let body = Bytes::from_static(b"<html><body><h1>Bad gateway</h1></body></html>");
        Self::of(Base::Body { status, kind: "text/html", body })
    }

    /// A 429 in Google's words: the wait (`34.4s`) is in the body alone.
    pub fn retry_info(delay: &str) -> Self {
        let info =
            json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay});
        let error = json!({"code": 429, "message": "You exceeded your current quota",
            "status": "RESOURCE_EXHAUSTED", "details": [info]});
        Self::json(429, &json!({"error": error}))
    }

    /// The connection is reset before any header.
    pub fn reset() -> Self {
        Self::of(Base::Broken(End::Reset))
    }

    /// The connection is closed before any header.
    pub fn close() -> Self {
        Self::of(Base::Broken(End::Close))
    }

    /// Bytes that are not HTTP, then the connection ends.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self::of(Base::Raw(bytes.into()))
    }

    /// Accepted, and never answered.
    pub fn silence() -> Self {
        Self::of(Base::Silence)
    }

    /// Headers, then nothing.
    pub fn silent_body() -> Self {
        Self::usual().edit(Edit::Without(Role::Begin)).then(0, Then::Stall)
    }

    /// A recording as the body of a stream: SSE byte for byte, or one JSON a
    /// line in the provider's framing.
    pub fn recording(recording: impl Into<Bytes>, chunking: Chunking) -> Self {
        Self::of(Base::Recording(recording.into())).chunked(chunking)
    }

    /// The usual answer with this text.
    pub fn text(text: &str) -> Self {
        let mut reply = Self::usual();
        reply.say.text = Some(text.to_owned());
        reply
    }

    fn edit(mut self, edit: Edit) -> Self {
        self.edits.push(edit);
        self
    }

    /// Whether it shapes a stream's body, not the answer as such.
    pub(crate) fn is_of_stream(&self) -> bool {
        let usual = matches!(self.base, Base::Usual);
        matches!(self.base, Base::Recording(_)) || usual && !self.edits.is_empty()
    }
}
