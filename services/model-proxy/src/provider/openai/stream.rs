//! Chunks of a chat completion, read one at a time.
//!
//! Invariants:
//! - Ends with one `Finished`, after every choice said why it finished; a
//!   stream that stops before is an error, and so is an error object in it.
//! - Pieces of one tool call share an index, the first carries id and name, and
//!   joined they are a JSON object, however the provider cut or numbered them;
//!   where they are not, `broken_tool_calls` says so.
//! - What has no field here is told in `extra_json`, at the place it came from.
//! - Memory is bounded, however long the stream is.

use super::{calls::Calls, plain, refusal::Voice, usage};
use crate::{
    error::{Error, Failure},
    provider::{Decoder, Event, extra::take},
    sse,
};
use serde_json::{Map, Value};
use skein_proto::model::v1::{Choice, Delta, FinishReason, Finished, Usage, delta::Piece};
use std::{collections::BTreeMap, sync::Arc};

/// Fields of a chunk that we have names for, or that only serve the wire.
const CHUNK_FIELDS: [&str; 7] =
    ["id", "object", "created", "model", "choices", "usage", "obfuscation"];
/// Fields of a choice and of its delta that become fields of ours.
const CHOICE_FIELDS: [&str; 5] = ["index", "delta", "message", "finish_reason", "usage"];
const DELTA_FIELDS: [&str; 7] =
    ["role", "index", "content", "refusal", "reasoning_content", "reasoning", "tool_calls"];

/// Choices of one answer; nobody asks for so many.
const MOST_CHOICES: usize = 128;
/// Fields of chunks that are kept to the end.
const MOST_EXTRA: usize = 256;

pub(super) struct Stream {
    voice: Arc<Voice>,
    /// Choices that were asked for.
    asked: i32,
    choices: BTreeMap<u32, State>,
    usage: Option<Usage>,
    extra: Map<String, Value>,
    finished: bool,
}

#[derive(Default)]
struct State {
    finish: Option<FinishReason>,
    calls: Calls,
}

impl Stream {
    pub(super) fn new(voice: Arc<Voice>, asked: i32) -> Self {
        let (choices, extra) = (BTreeMap::new(), Map::new());
        Self { voice, asked, choices, usage: None, extra, finished: false }
    }

    fn chunk(&mut self, mut chunk: Value, out: &mut Vec<Event>) -> Result<(), Error> {
        if !chunk.is_object() {
            return Err(self.voice.malformed("what came is not a JSON object"));
        }
        let wrong = !chunk["error"].is_null()
            || chunk["object"] == "error"
            || (chunk["choices"].is_null() && !chunk["detail"].is_null());
        if wrong {
            return Err(self.voice.refusal_inside(&chunk));
        }
        if let Some(usage) = usage::find(&chunk) {
            self.usage = Some(usage);
        }
        for mut choice in take_list(&mut chunk, "choices") {
            self.choice(&mut choice, out)?;
        }
        if let Value::Object(fields) = chunk {
            let unnamed = |(name, value): &(String, Value)| {
                !CHUNK_FIELDS.contains(&name.as_str()) && !value.is_null()
            };
            self.keep(fields.into_iter().filter(unnamed));
        }
        Ok(())
    }

    /// What [`Self::chunk`] makes of the same chunk.
    fn plain(&mut self, chunk: plain::Chunk, out: &mut Vec<Event>) -> Result<(), Error> {
        for choice in chunk.choices {
            self.state(choice.index)?;
            let Some(text) = choice.delta.content.filter(|text| !text.is_empty()) else { continue };
            let piece = Some(Piece::Text(text));
            out.push(Event::Delta(Delta { choice: choice.index, piece, ..Delta::default() }));
        }
        let kept = [
            ("service_tier", chunk.service_tier),
            ("system_fingerprint", chunk.system_fingerprint),
        ];
        self.keep(kept.into_iter().filter_map(|(name, value)| Some((name.into(), value?.into()))));
        Ok(())
    }

    fn state(&mut self, index: u32) -> Result<&mut State, Error> {
        if self.choices.len() == MOST_CHOICES && !self.choices.contains_key(&index) {
            return Err(self.voice.malformed("the answer has more choices than anybody asks for"));
        }
        Ok(self.choices.entry(index).or_default())
    }

    fn keep(&mut self, fields: impl Iterator<Item = (String, Value)>) {
        for (name, value) in fields {
            if self.extra.len() < MOST_EXTRA || self.extra.contains_key(&name) {
                self.extra.insert(name, value);
            }
        }
    }

    fn choice(&mut self, choice: &mut Value, out: &mut Vec<Event>) -> Result<(), Error> {
        let index = choice["index"].as_u64().and_then(|index| u32::try_from(index).ok());
        let index = index.unwrap_or_default();
        let voice = Arc::clone(&self.voice);
        let state = self.state(index)?;
        // A whole answer has `message` where a chunk has `delta`.
        let mut delta = match take(choice, "delta") {
            Value::Null => take(choice, "message"),
            delta => delta,
        };
        let mut pieces = texts(&mut delta);
        for mut call in take_list(&mut delta, "tool_calls") {
            let piece = state.calls.piece(&mut call);
            let piece = piece.ok_or_else(|| voice.malformed("the answer has too many calls"))?;
            pieces.push(Piece::ToolCall(piece));
        }
        let reason = choice["finish_reason"].as_str().filter(|word| !word.is_empty());
        let ended = reason.map(finish_reason);
        if let Some(Ok(reason)) = ended {
            state.finish.get_or_insert(reason);
            pieces.extend(state.calls.end_empty().map(Piece::ToolCall));
        }
        let mut extra_json = unnamed(choice, &delta);
        for piece in pieces {
            let extra_json = std::mem::take(&mut extra_json);
            out.push(Event::Delta(Delta { choice: index, piece: Some(piece), extra_json }));
        }
        if !extra_json.is_empty() {
            out.push(Event::Delta(Delta { choice: index, piece: None, extra_json }));
        }
        match ended {
            Some(Err(failure)) => {
                let word = reason.unwrap_or_default();
                Err(voice.error(failure, format!("the provider ended the answer with {word:?}")))
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, out: &mut Vec<Event>) -> Result<(), Error> {
        let choices: Option<Vec<_>> = self
            .choices
            .iter()
            .map(|(index, state)| {
                let finish_reason = state.finish?.into();
                let broken_tool_calls = state.calls.broken();
                Some(Choice { index: *index, finish_reason, broken_tool_calls })
            })
            .collect();
        let choices = choices.filter(|choices| !choices.is_empty()).ok_or_else(|| {
            self.voice.error(Failure::Cut, "the stream ended without a finish reason")
        })?;
        let extra_json = object(std::mem::take(&mut self.extra));
        self.finished = true;
        out.push(Event::Finished(Finished { choices, usage: self.usage.take(), extra_json }));
        Ok(())
    }
}

impl Decoder for Stream {
    fn push(&mut self, event: &sse::Event, out: &mut Vec<Event>) -> Result<(), Error> {
        if self.finished {
            return Ok(());
        }
        let data = event.data.trim();
        if event.name == "error" {
            let said = serde_json::from_str(data).unwrap_or_default();
            return Err(self.voice.refusal_inside(&said));
        }
        match data {
            "[DONE]" => self.finish(out),
            "" => Ok(()),
            data => match plain::read(data) {
                Some(plain) => self.plain(plain, out),
                None => self.chunk(self.voice.parse(data.as_bytes())?, out),
            },
        }
    }

    fn end(&mut self, out: &mut Vec<Event>) -> Result<(), Error> {
        if self.finished {
            return Ok(());
        }
        // Servers that write one choice after the other have more to say.
        let fewer = usize::try_from(self.asked).is_ok_and(|asked| self.choices.len() < asked);
        if fewer && self.asked > 1 {
            let message = format!("the stream ended before all {} choices", self.asked);
            return Err(self.voice.error(Failure::Cut, message));
        }
        self.finish(out)
    }

    fn whole(&mut self, body: &[u8], out: &mut Vec<Event>) -> Result<(), Error> {
        let answer = self.voice.parse(body)?;
        if !answer.is_object() {
            return Err(self.voice.malformed("the answer is not a JSON object"));
        }
        self.chunk(answer, out)?;
        self.finish(out)
    }

    fn used(&self) -> Option<Usage> {
        self.usage
    }
}

fn take_list(value: &mut Value, name: &str) -> Vec<Value> {
    match take(value, name) {
        Value::Array(list) => list,
        _ => Vec::new(),
    }
}

/// What a delta says in words. Parts of a kind nobody knows stay in it.
fn texts(delta: &mut Value) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut add = |piece: fn(String) -> Piece, text: String| {
        if !text.is_empty() {
            pieces.push(piece(text));
        }
    };
    // Some say the same under both names.
    let reasoning = match take(delta, "reasoning_content") {
        Value::Null => take(delta, "reasoning"),
        reasoning => reasoning,
    };
    add(Piece::Reasoning, joined(reasoning));
    let mut unknown = Vec::new();
    match take(delta, "content") {
        Value::String(text) => add(Piece::Text, text),
        Value::Array(parts) => {
            for mut part in parts {
                match part["type"].as_str() {
                    // Mistral's models think in parts of the content.
                    Some("thinking") => {
                        add(Piece::Reasoning, joined(take(&mut part, "thinking")));
                    }
                    Some("refusal") => add(Piece::Refusal, joined(take(&mut part, "refusal"))),
                    _ if part["text"].is_string() => {
                        add(Piece::Text, joined(take(&mut part, "text")));
                    }
                    _ => unknown.push(part),
                }
            }
        }
        _ => {}
    }
    add(Piece::Refusal, joined(take(delta, "refusal")));
    if let Value::Object(delta) = delta
        && !unknown.is_empty()
    {
        delta.insert("content_parts".to_owned(), unknown.into());
    }
    pieces
}

/// A string, or the texts of a list of parts.
fn joined(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

/// What a choice says that we have no field for; fields of the choice itself go
/// into `choice`, all but the `logprobs` of the old days.
fn unnamed(choice: &Value, delta: &Value) -> String {
    let rest = |value: &Value, named: &[&str]| -> Map<String, Value> {
        let fields = value.as_object().into_iter().flatten();
        let fields = fields.filter(|(name, value)| {
            !named.contains(&name.as_str()) && !value.is_null() && *value != &Value::Array(vec![])
        });
        fields.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let mut outer = rest(choice, &CHOICE_FIELDS);
    let logprobs = outer.shift_remove("logprobs");
    let mut extra = rest(delta, &DELTA_FIELDS);
    extra.extend(logprobs.map(|logprobs| ("logprobs".to_owned(), logprobs)));
    if !outer.is_empty() {
        extra.insert("choice".to_owned(), outer.into());
    }
    object(extra)
}

/// Nothing is an empty text.
fn object(fields: Map<String, Value>) -> String {
    if fields.is_empty() { String::new() } else { Value::Object(fields).to_string() }
}

/// Some ends are none.
fn finish_reason(word: &str) -> Result<FinishReason, Failure> {
    Ok(match word {
        "length" | "model_length" | "max_tokens" | "max_output_tokens" => FinishReason::Length,
        "tool_calls" | "function_call" | "tool_use" => FinishReason::ToolCalls,
        "content_filter" | "sensitive" | "safety" => FinishReason::ContentFilter,
        "error" | "network_error" => return Err(Failure::Unavailable),
        "insufficient_system_resource" => return Err(Failure::Overloaded),
        "abort" | "cancelled" => return Err(Failure::Cut),
        _ => FinishReason::Stop,
    })
}
