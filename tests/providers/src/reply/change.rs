//! What a reply may change in the answer it begins with.
//!
//! Invariants:
//! - Faults combine: each method changes one thing and leaves the rest.

use super::{Edit, Gzip, Reply, Then};
use crate::{
    replay::Chunking,
    step::{End, Role},
    time,
};
use bytes::Bytes;
use serde_json::Value;
use std::time::Duration;

impl Reply {
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

    pub(super) fn then(self, pieces: usize, then: Then) -> Self {
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

    /// These bytes come before all others: a BOM, a comment.
    pub fn prefixed(self, bytes: impl Into<Bytes>) -> Self {
        self.edit(Edit::Prefix(bytes.into()))
    }
}
