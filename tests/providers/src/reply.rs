//! What one call gets: the usual answer, changed or broken, or another one.
//!
//! Invariants:
//! - Faults combine: each method changes one thing and leaves the rest.

use crate::{
    replay::Chunking,
    step::{End, Role},
    time,
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

    pub fn thinking(mut self, thinking: &str) -> Self {
        self.say.thinking = Some(thinking.to_owned());
        self
    }

    pub fn refusal(mut self, refusal: &str) -> Self {
        self.say.refusal = Some(refusal.to_owned());
        self
    }

    /// Calls this tool; `arguments` comes in pieces, valid JSON or not.
    pub fn tool(mut self, name: &str, arguments: &str) -> Self {
        self.say.tools.push((name.to_owned(), arguments.to_owned()));
        self
    }

    /// Each tool call comes in one chunk.
    pub fn tools_whole(mut self) -> Self {
        self.say.tools_whole = true;
        self
    }

    /// The finish reason, in the provider's word.
    pub fn finish(mut self, reason: &str) -> Self {
        self.say.finish = Some(reason.to_owned());
        self
    }

    /// The usage, in the provider's fields.
    pub fn usage(mut self, usage: Value) -> Self {
        self.say.usage = Some(usage);
        self
    }

    /// As one JSON although a stream was asked.
    pub fn whole(mut self) -> Self {
        self.say.whole = true;
        self
    }

    /// A word each so often, for ever.
    pub fn endless(mut self, every: Duration) -> Self {
        self.say.endless = Some(every);
        self
    }

    /// A chunk without choices comes first, as Azure's router sends it.
    pub fn empty_first(mut self) -> Self {
        self.say.empty_first = true;
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `Retry-After` as it is given: `1`, `0.5`.
    pub fn retry_after(self, value: &str) -> Self {
        self.header("retry-after", value)
    }

    /// `Retry-After` as a date so far from now; HTTP's dates have whole seconds.
    pub fn retry_after_date(self, from_now: Duration) -> Self {
        let date = time::http_date(time::now() + from_now);
        self.header("retry-after", &date)
    }

    pub fn retry_after_ms(self, value: &str) -> Self {
        self.header("retry-after-ms", value)
    }

    /// OpenAI's rate-limit headers with nothing left until `reset` (`6m0s`).
    pub fn resets_in(self, reset: &str) -> Self {
        self.header("x-ratelimit-remaining-requests", "0")
            .header("x-ratelimit-reset-requests", reset)
            .header("x-ratelimit-reset-tokens", reset)
    }

    /// Headers of so many bytes beside the usual.
    pub fn huge_headers(mut self, bytes: usize) -> Self {
        const EACH: usize = 4096;
        for count in 0..bytes.div_ceil(EACH) {
            self.headers.push((format!("x-huge-{count}"), "h".repeat(EACH)));
        }
        self
    }

    /// The headers come so late, and all else after them.
    pub fn late(mut self, late: Duration) -> Self {
        self.late = late;
        self
    }

    fn edit(mut self, edit: Edit) -> Self {
        self.edits.push(edit);
        self
    }

    fn then(self, pieces: usize, then: Then) -> Self {
        self.edit(Edit::After(pieces, then))
    }

    /// Headers at once, the first piece so late.
    pub fn late_first(self, late: Duration) -> Self {
        self.edit(Edit::FirstLate(late))
    }

    /// So long before each piece of content.
    pub fn paced(self, pause: Duration) -> Self {
        self.edit(Edit::Pace(pause))
    }

    /// Ends after so many pieces of content, without a finish reason. An answer
    /// that is no stream has two pieces.
    pub fn cut(self, pieces: usize, end: End) -> Self {
        self.then(pieces, Then::End(end))
    }

    /// Nothing more after so many pieces of content.
    pub fn stall(self, pieces: usize) -> Self {
        self.then(pieces, Then::Stall)
    }

    /// Nothing but pings after so many pieces of content.
    pub fn stall_with_pings(self, pieces: usize, every: Duration) -> Self {
        self.then(pieces, Then::Pings(every))
    }

    /// An error object inside the stream, after so many pieces of content.
    pub fn error_after(self, pieces: usize) -> Self {
        self.then(pieces, Then::Error)
    }

    /// A line that does not end, after so many pieces of content; it is made
    /// while it is sent.
    pub fn flood(self, pieces: usize, bytes: u64) -> Self {
        self.then(pieces, Then::Flood(bytes))
    }

    /// These bytes come too, after so many pieces of content: what is not JSON,
    /// not UTF-8, or not known.
    pub fn insert(self, pieces: usize, bytes: impl Into<Bytes>) -> Self {
        self.edit(Edit::Insert(pieces, bytes.into()))
    }

    /// No `[DONE]`, no `message_stop`, no `done`.
    pub fn without_done(self) -> Self {
        self.edit(Edit::Without(Role::Done))
    }

    pub fn without_finish(self) -> Self {
        self.edit(Edit::Without(Role::Finish))
    }

    /// No usage chunk; Anthropic, whose events must have one, says 0.
    pub fn without_usage(mut self) -> Self {
        self.say.no_usage = true;
        self.edit(Edit::Without(Role::Usage))
    }

    /// A ping (OpenAI: a comment) before each piece.
    pub fn pings(self) -> Self {
        self.edit(Edit::Pings)
    }

    /// Lines end with `newline` instead of `\n`.
    pub fn newline(self, newline: &'static str) -> Self {
        self.edit(Edit::Newline(newline))
    }

    pub fn gzip(self, gzip: Gzip) -> Self {
        self.edit(Edit::Gzip(gzip))
    }

    /// The body in other pieces than the usual.
    pub fn chunked(self, chunking: Chunking) -> Self {
        self.edit(Edit::Cut(chunking))
    }

    /// Whether it shapes a stream's body, not the answer as such.
    pub(crate) fn is_of_stream(&self) -> bool {
        let usual = matches!(self.base, Base::Usual);
        matches!(self.base, Base::Recording(_)) || usual && !self.edits.is_empty()
    }
}
