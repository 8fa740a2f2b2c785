//! Events of a message, read one at a time.
//!
//! Invariants:
//! - Ends with one `Finished`, after the message said why it stopped; a stream
//!   that stops before is an error, and so is an `error` event in it.
//! - One answer comes out. A second beginning before anything was said is the
//!   same beginning; one after that is another answer, which is an error and
//!   not a continuation. What follows the end belongs to nobody.
//! - Calls are numbered from 0 in the order they begin, whatever their blocks'
//!   numbers; joined, their arguments are a JSON object, or are told as broken.
//!
//! Blocks that have to come back unchanged for the next turn and are no piece
//! of ours (signed or redacted thinking, what tools of the provider's own did)
//! are given out together, in one delta before `Finished`, as `extra_json`
//! `{"anthropic":{"content_blocks":[{"index":0,"content_block":{…}}]}}`: the
//! provider's blocks, each with its place among all of the message. The same
//! object as `extra_json` of the assistant's message puts them back there.

use super::{
    NAME,
    blocks::{Block, Kept},
    malformed, refusal_in_stream,
    usage::Counts,
};
use crate::{
    error::{Error, Failure},
    provider::{
        Decoder, Event,
        arguments::{self, Arguments},
    },
    sse,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use skein_proto::model::v1::{Choice, Delta, FinishReason, Finished, Usage, delta::Piece};
use std::{borrow::Cow, collections::BTreeMap};

#[derive(Default)]
pub(super) struct Stream {
    /// Those that have not stopped.
    open: BTreeMap<u64, Block>,
    kept: Vec<Kept>,
    /// In the order they began.
    calls: Vec<Arguments>,
    /// Whether anything of the message was said.
    said: bool,
    stop: Option<String>,
    counts: Counts,
    extra: Map<String, Value>,
    finished: bool,
}

/// The event that most events are, read without building a tree of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    index: u64,
    #[serde(borrow)]
    delta: PlainDelta<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainDelta<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

impl Stream {
    fn event(&mut self, mut event: Value, out: &mut Vec<Event>) -> Result<(), Error> {
        let index = event["index"].as_u64().unwrap_or_default();
        match event["type"].as_str() {
            Some("message_start") => self.message(event["message"].take(), out),
            Some("content_block_start") => self.start(index, event["content_block"].take(), out),
            Some("content_block_delta") => self.delta(index, &mut event["delta"], out),
            Some("content_block_stop") => {
                self.stop_block(index, out);
                Ok(())
            }
            Some("message_delta") => {
                self.message_delta(event, true);
                Ok(())
            }
            Some("message_stop") => self.finish(out),
            Some("error") => Err(refusal_in_stream(&event)),
            // Pings, and what there may be one day.
            Some(_) => Ok(()),
            None => Err(malformed("an event without a type")),
        }
    }

    fn message(&mut self, mut message: Value, out: &mut Vec<Event>) -> Result<(), Error> {
        if self.said {
            return Err(malformed("a second answer began within the first"));
        }
        self.counts = Counts::default();
        if !message.is_object() {
            return Err(malformed("a message that is not a JSON object"));
        }
        let content = message["content"].take();
        let whole = message["stop_reason"].is_string();
        let stop = json!({"stop_reason": message["stop_reason"].take(),
            "stop_sequence": message["stop_sequence"].take(),
            "stop_details": message["stop_details"].take(),
            "container": message["container"].take()});
        let event = json!({"delta": stop, "usage": message["usage"].take(),
            "context_management": message["context_management"].take()});
        self.message_delta(event, whole);
        let Value::Array(blocks) = content else { return Ok(()) };
        for (index, block) in (0..).zip(blocks) {
            self.start(index, block, out)?;
            self.stop_block(index, out);
        }
        Ok(())
    }

    fn start(&mut self, index: u64, block: Value, out: &mut Vec<Event>) -> Result<(), Error> {
        if self.open.contains_key(&index) {
            return Err(malformed("a block of the answer began twice"));
        }
        self.said = true;
        let (block, piece) = Block::start(block, &mut self.calls);
        self.open.insert(index, block);
        say(piece, out);
        Ok(())
    }

    fn delta(&mut self, index: u64, delta: &mut Value, out: &mut Vec<Event>) -> Result<(), Error> {
        let block = self.open.get_mut(&index);
        let block = block.ok_or_else(|| malformed("a piece of a block that is not open"))?;
        say(block.delta(delta, &mut self.calls), out);
        Ok(())
    }

    fn stop_block(&mut self, index: u64, out: &mut Vec<Event>) {
        let Some(block) = self.open.remove(&index) else { return };
        let (kept, piece) = block.stop(&mut self.calls);
        say(piece, out);
        self.kept.extend(kept.map(|block| Kept { index, block }));
    }

    /// `last`: said when the answer was complete.
    fn message_delta(&mut self, mut event: Value, last: bool) {
        self.counts.update(event["usage"].take(), last);
        for fields in [event["delta"].take(), event] {
            let Value::Object(mut fields) = fields else { continue };
            if let Some(Value::String(reason)) = fields.remove("stop_reason") {
                self.stop = Some(reason);
            }
            let said = |(name, value): &(String, Value)| name != "type" && !value.is_null();
            self.extra.extend(fields.into_iter().filter(said));
        }
    }

    fn finish(&mut self, out: &mut Vec<Event>) -> Result<(), Error> {
        let Some(stop) = self.stop.take() else {
            let message = "the stream ended without a stop reason";
            return Err(Error::provider(NAME, Failure::Cut, message));
        };
        while let Some(index) = self.open.keys().next().copied() {
            self.stop_block(index, out);
        }
        if !self.kept.is_empty() {
            let blocks: Vec<_> =
                std::mem::take(&mut self.kept).into_iter().map(Value::from).collect();
            let extra_json = json!({NAME: {"content_blocks": blocks}}).to_string();
            out.push(Event::Delta(Delta { extra_json, ..Delta::default() }));
        }
        let (reason, exact) = finish_reason(&stop);
        let explanation = self.extra.get("stop_details").map(|details| &details["explanation"]);
        if let ("refusal", Some(Value::String(why))) = (stop.as_str(), explanation) {
            say(Some(Piece::Refusal(why.clone())), out);
        }
        let counts = std::mem::take(&mut self.counts);
        let (usage, rest) = (counts.usage(), counts.rest());
        let mut extra = std::mem::take(&mut self.extra);
        if !exact {
            extra.insert("stop_reason".into(), stop.into());
        }
        if !rest.is_empty() {
            extra.insert("usage".into(), rest.into());
        }
        let extra_json =
            if extra.is_empty() { String::new() } else { json!({NAME: extra}).to_string() };
        let finish_reason = reason.into();
        let broken_tool_calls = arguments::broken(&self.calls);
        let choice = Choice { finish_reason, broken_tool_calls, ..Choice::default() };
        self.finished = true;
        out.push(Event::Finished(Finished { choices: vec![choice], usage, extra_json }));
        Ok(())
    }

    /// What [`Self::event`] makes of the same event.
    fn plain(&self, data: &str) -> Option<Event> {
        let plain: Plain<'_> = serde_json::from_str(data).ok()?;
        let text = plain.kind == "content_block_delta" && plain.delta.kind == "text_delta";
        let open = matches!(self.open.get(&plain.index), Some(Block::Text { .. }));
        let said = text && open && !plain.delta.text.is_empty();
        said.then(|| event(Piece::Text(plain.delta.text.into_owned())))
    }
}

impl Decoder for Stream {
    fn push(&mut self, event: &sse::Event, out: &mut Vec<Event>) -> Result<(), Error> {
        let data = event.data.trim();
        if self.finished || data.is_empty() {
            return Ok(());
        }
        if let Some(plain) = self.plain(data) {
            out.push(plain);
            return Ok(());
        }
        self.event(super::parse(data.as_bytes())?, out)
    }

    fn end(&mut self, out: &mut Vec<Event>) -> Result<(), Error> {
        if self.finished { Ok(()) } else { self.finish(out) }
    }

    fn used(&self) -> Option<Usage> {
        self.counts.so_far()
    }

    fn whole(&mut self, body: &[u8], out: &mut Vec<Event>) -> Result<(), Error> {
        let answer = super::parse(body)?;
        match answer["type"].as_str() {
            Some("error") => Err(refusal_in_stream(&answer)),
            _ if answer.is_object() => {
                self.message(answer, out)?;
                self.finish(out)
            }
            _ => Err(malformed("the answer is not a JSON object")),
        }
    }
}

fn event(piece: Piece) -> Event {
    Event::Delta(Delta { piece: Some(piece), ..Delta::default() })
}

fn say(piece: Option<Piece>, out: &mut Vec<Event>) {
    out.extend(piece.map(event));
}

/// Ours, and whether it says all that theirs does.
fn finish_reason(word: &str) -> (FinishReason, bool) {
    match word {
        "end_turn" => (FinishReason::Stop, true),
        "tool_use" => (FinishReason::ToolCalls, true),
        "max_tokens" => (FinishReason::Length, true),
        // The rest of the answer is still to come, or has no room.
        "pause_turn" | "model_context_window_exceeded" => (FinishReason::Length, false),
        "refusal" => (FinishReason::ContentFilter, false),
        _ => (FinishReason::Stop, false),
    }
}
