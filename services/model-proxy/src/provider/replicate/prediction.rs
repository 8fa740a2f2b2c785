//! A prediction from its creation to its end, over as many bodies as it takes.
//!
//! Invariants:
//! - Text comes once: over the stream, or from the prediction itself, and of
//!   that only what the stream has not said.
//! - Follows are bounded: a broken stream is resumed a few times and then
//!   polled; polls end with the call's own time, and failed ones soon.
//! - An answer is whole when the prediction says `succeeded`, or its stream did
//!   and the prediction cannot be asked.

use super::{
    NAME, malformed,
    output::{self, Wanted},
};
use crate::{
    error::{Error, Failure},
    provider::{Decoder, Event, Follow},
    sse,
};
use bytes::Bytes;
use serde_json::Value;
use skein_proto::model::v1::{Delta, ImageProgress, Usage, delta::Piece};
use std::{sync::Arc, time::Duration};

/// How often a stream that broke is taken up again.
const RESUMES: u32 = 3;
/// How often in a row a look at the prediction may fail.
const MISSES: u32 = 3;
/// How often an ended prediction is looked at before it says so.
const LOOKS: u32 = 5;
/// The first pause before a poll; each is half as long again as the last…
const PAUSE: Duration = Duration::from_millis(250);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

pub(super) struct Prediction {
    base: Arc<str>,
    wanted: Wanted,
    prompt: String,
    id: Option<String>,
    stream: Option<http::Uri>,
    /// The body under way, or the last one, is the stream's.
    streaming: bool,
    last_id: String,
    said: String,
    progress: f64,
    resumes: u32,
    misses: u32,
    polls: u32,
    /// What the stream said of its end: the reason, empty for success.
    done: Option<String>,
    /// Nothing runs there any more.
    over: bool,
    /// Of a success: it is paid for, whatever becomes of its output.
    used: Option<Usage>,
}

impl Prediction {
    pub(super) fn new(base: Arc<str>, wanted: Wanted, prompt: String) -> Self {
        Self {
            base,
            wanted,
            prompt,
            id: None,
            stream: None,
            streaming: false,
            last_id: String::new(),
            said: String::new(),
            progress: -1.0,
            resumes: 0,
            misses: 0,
            polls: 0,
            done: None,
            over: false,
            used: None,
        }
    }

    fn created(&mut self, prediction: &Value) -> Result<(), Error> {
        let id = prediction["id"].as_str().unwrap_or_default();
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(malformed("the answer is no prediction"));
        }
        self.id = Some(id.to_owned());
        self.stream = prediction["urls"]["stream"].as_str().and_then(|url| url.parse().ok());
        Ok(())
    }

    fn seen(&mut self, prediction: &Value, out: &mut Vec<Event>) -> Result<(), Error> {
        let status = prediction["status"].as_str().unwrap_or_default();
        match status {
            "succeeded" => {
                self.over = true;
                let finished = output::finished(self.wanted, prediction);
                self.used = finished.usage;
                match self.wanted {
                    Wanted::Text { .. } => self.rest(&output::text(&prediction["output"]), out)?,
                    Wanted::Pictures => output::pictures(&prediction["output"], out)?,
                }
                out.push(Event::Finished(finished));
            }
            "failed" | "canceled" | "aborted" => {
                self.over = true;
                return Err(output::failed(status, &prediction["error"], &self.prompt));
            }
            "starting" | "processing" => match self.wanted {
                // Where there is a stream, it says this better.
                Wanted::Text { .. } if self.stream.is_none() => {
                    self.rest(&output::text(&prediction["output"]), out)?;
                }
                Wanted::Text { .. } => {}
                Wanted::Pictures => {
                    self.progress(prediction["logs"].as_str().unwrap_or_default(), out);
                }
            },
            other => return Err(malformed(format!("its status is {other:?}"))),
        }
        Ok(())
    }

    /// Says what of `whole` has not been said.
    fn rest(&mut self, whole: &str, out: &mut Vec<Event>) -> Result<(), Error> {
        let Some(rest) = whole.strip_prefix(self.said.as_str()) else {
            let same = |a: &str, b: &str| a.split_whitespace().eq(b.split_whitespace());
            // It may be told late, or with other blanks, never with other words.
            let late = !self.over && self.said.starts_with(whole);
            if late || whole.is_empty() || same(whole, &self.said) {
                return Ok(());
            }
            return Err(if self.resumes > 0 {
                let message = "a part of the answer was lost when its stream broke";
                Error::provider(NAME, Failure::Cut, message)
            } else {
                malformed("what was said before is not in the answer any more")
            });
        };
        self.say(rest, out);
        Ok(())
    }

    fn say(&mut self, text: &str, out: &mut Vec<Event>) {
        if !text.is_empty() {
            self.said.push_str(text);
            let piece = Some(Piece::Text(text.to_owned()));
            out.push(Event::Delta(Delta { piece, ..Delta::default() }));
        }
    }

    fn progress(&mut self, logs: &str, out: &mut Vec<Event>) {
        let done = output::progress(logs);
        if done > self.progress {
            self.progress = done;
            out.push(Event::Progress(ImageProgress { done, ..ImageProgress::default() }));
        }
    }

    /// The next look at the prediction itself.
    fn poll(&mut self, id: &str, lost: Option<Failure>) -> Option<Follow> {
        let pause = PAUSE.mul_f64(1.5_f64.powi(i32::try_from(self.polls.min(20)).unwrap_or(20)));
        let pause = match lost {
            Some(Failure::RateLimited { retry_after: Some(wait) }) => wait,
            _ => pause.min(LONGEST_PAUSE),
        };
        // What has ended is looked at without a wait, the first time.
        let after = if self.done.is_some() && self.polls == 0 { Duration::ZERO } else { pause };
        self.polls += 1;
        self.streaming = false;
        self.stream = None; // its words come from the prediction from here on
        let request = http::Request::get(format!("{}/predictions/{id}", self.base));
        Some(Follow { request: request.body(Bytes::new()).ok()?, after })
    }

    /// The stream from where it broke, while that is worth a try.
    fn resume(&mut self) -> Option<Follow> {
        let stream = self.stream.clone()?;
        let lost_place = !self.said.is_empty() && self.last_id.is_empty();
        if self.done.is_some() || lost_place || self.resumes > RESUMES {
            return None;
        }
        let after = if self.resumes == 0 { Duration::ZERO } else { PAUSE * self.resumes };
        self.resumes += 1;
        self.streaming = true;
        let mut request = http::Request::get(stream)
            .header(http::header::ACCEPT, "text/event-stream")
            .header(http::header::CACHE_CONTROL, "no-store");
        if !self.last_id.is_empty() {
            request = request.header("last-event-id", self.last_id.as_str());
        }
        Some(Follow { request: request.body(Bytes::new()).ok()?, after })
    }

    /// The stream's own word on its end, where the prediction gives none.
    fn ended(&mut self, out: &mut Vec<Event>) {
        let succeeded = self.done.as_deref() == Some("");
        if succeeded && matches!(self.wanted, Wanted::Text { .. }) {
            self.over = true;
            out.push(Event::Finished(output::finished(self.wanted, &Value::Null)));
        }
    }
}

impl Decoder for Prediction {
    fn push(&mut self, event: &sse::Event, out: &mut Vec<Event>) -> Result<(), Error> {
        if self.done.is_some() {
            return Ok(());
        }
        if !event.id.is_empty() {
            if is_old(&event.id, &self.last_id) {
                return Ok(()); // it was said before the stream broke
            }
            self.last_id.clone_from(&event.id);
        }
        match (event.name.as_str(), self.wanted) {
            ("output", Wanted::Text { .. }) => self.say(&event.data, out),
            ("logs", Wanted::Pictures) => self.progress(&event.data, out),
            ("error", _) => {
                let said: Value = serde_json::from_str(&event.data).unwrap_or_default();
                return Err(output::failed("failed", &said["detail"], &self.prompt));
            }
            ("done", _) => {
                let said: Value = serde_json::from_str(&event.data).unwrap_or_default();
                self.done = Some(said["reason"].as_str().unwrap_or_default().to_owned());
                self.polls = 0;
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, _: &mut Vec<Event>) -> Result<(), Error> {
        Ok(()) // the stream may go on elsewhere
    }

    fn whole(&mut self, body: &[u8], out: &mut Vec<Event>) -> Result<(), Error> {
        let prediction: Value = serde_json::from_slice(body)
            .map_err(|error| malformed(format!("the answer is not JSON: {error}")))?;
        if self.id.is_none() {
            self.created(&prediction)?;
        }
        self.misses = 0;
        self.seen(&prediction, out)
    }

    fn is_through(&self) -> bool {
        self.done.is_some()
    }

    fn follow(&mut self, lost: Option<Failure>, out: &mut Vec<Event>) -> Option<Follow> {
        let id = self.id.clone().filter(|_| !self.over)?;
        // A stream that cannot be had is no loss: the prediction can be asked.
        self.misses += u32::from(lost.is_some() && !self.streaming);
        if self.misses > MISSES || self.done.is_some() && self.polls > LOOKS {
            self.ended(out);
            return None;
        }
        if self.polls == 0
            && let Some(follow) = self.resume()
        {
            return Some(follow);
        }
        self.poll(&id, lost)
    }

    fn abandon(&self) -> Option<http::Request<Bytes>> {
        let id = self.id.as_ref().filter(|_| !self.over)?;
        let request = http::Request::post(format!("{}/predictions/{id}/cancel", self.base));
        request.body(Bytes::new()).ok()
    }

    fn request_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    fn used(&self) -> Option<Usage> {
        self.used
    }
}

/// Whether an event comes before or at `last`: ids are `<epoch>:<number>`.
fn is_old(id: &str, last: &str) -> bool {
    let parts = |id: &str| {
        let (epoch, number) = id.rsplit_once(':')?;
        Some((epoch.to_owned(), number.parse::<u64>().ok()?))
    };
    match (parts(id), parts(last)) {
        (Some((epoch, number)), Some((last_epoch, last))) => epoch == last_epoch && number <= last,
        _ => false,
    }
}

#[cfg(test)]
#[path = "prediction_tests.rs"]
mod tests;
