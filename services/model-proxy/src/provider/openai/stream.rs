//! Chunks of a chat completion, read one at a time.
//!
//! Invariants:
//! - Ends with one `Finished`, after every choice said why it finished; a
//!   stream that stops before is an error, and so is an error object in it.
//! - Pieces of one tool call share an index, the first carries id and name, and
//!   joined they are a JSON object, however the provider cut or numbered them;
//!   where they are not, `broken_tool_calls` says so.
//! - Classes of tokens do not overlap: input without what came from the cache,
//!   output with the reasoning in it.

use super::{malformed, parse, plain, refusal_in_stream};
use crate::{
    error::{Error, Failure},
    provider::{
        Decoder, Event,
        arguments::{self, Arguments},
    },
    sse,
};
use serde_json::{Map, Value};
use skein_proto::model::v1::{
    Choice, Delta, FinishReason, Finished, ToolCallPiece, Usage, delta::Piece,
};
use std::collections::BTreeMap;

/// Fields of a chunk that we have names for, or that only serve the wire.
const CHUNK_FIELDS: [&str; 7] =
    ["id", "object", "created", "model", "choices", "usage", "obfuscation"];
/// Fields of a choice and of its delta that become fields of ours.
const CHOICE_FIELDS: [&str; 4] = ["index", "delta", "message", "finish_reason"];
const DELTA_FIELDS: [&str; 6] =
    ["role", "content", "refusal", "reasoning_content", "reasoning", "tool_calls"];

#[derive(Default)]
pub(super) struct Stream {
    choices: BTreeMap<u32, State>,
    usage: Option<Usage>,
    extra: Map<String, Value>,
    finished: bool,
}

#[derive(Default)]
struct State {
    finish: Option<FinishReason>,
    calls: Vec<Call>,
}

/// A tool call under way; its place in the list is the index that we give it.
struct Call {
    index: Option<u64>,
    id: String,
    arguments: Arguments,
}

impl Stream {
    fn chunk(&mut self, mut chunk: Value, out: &mut Vec<Event>) -> Result<(), Error> {
        if !chunk["error"].is_null() {
            return Err(refusal_in_stream(&chunk["error"]));
        }
        if chunk["usage"].is_object() {
            self.usage = Some(usage(&chunk["usage"]));
        }
        for mut choice in take_list(&mut chunk["choices"]) {
            self.choice(&mut choice, out);
        }
        if let Value::Object(fields) = chunk {
            let unnamed = |(name, value): &(String, Value)| {
                !CHUNK_FIELDS.contains(&name.as_str()) && !value.is_null()
            };
            self.extra.extend(fields.into_iter().filter(unnamed));
        }
        Ok(())
    }

    /// What [`Self::chunk`] makes of the same chunk.
    fn plain(&mut self, chunk: plain::Chunk, out: &mut Vec<Event>) {
        for choice in chunk.choices {
            self.choices.entry(choice.index).or_default();
            let Some(text) = choice.delta.content.filter(|text| !text.is_empty()) else { continue };
            let extra_json = String::new();
            out.push(Event::Delta(Delta {
                choice: choice.index,
                piece: Some(Piece::Text(text)),
                extra_json,
            }));
        }
        let kept = [
            ("service_tier", chunk.service_tier),
            ("system_fingerprint", chunk.system_fingerprint),
        ];
        for (name, value) in kept {
            self.extra.extend(value.map(|value| (name.to_owned(), value.into())));
        }
    }

    fn choice(&mut self, choice: &mut Value, out: &mut Vec<Event>) {
        let index = choice["index"].as_u64().and_then(|index| u32::try_from(index).ok());
        let index = index.unwrap_or_default();
        let state = self.choices.entry(index).or_default();
        // A whole answer has `message` where a chunk has `delta`.
        let mut delta = match choice["delta"].take() {
            Value::Null => choice["message"].take(),
            delta => delta,
        };
        let mut pieces = Vec::new();
        for (name, piece) in [
            ("reasoning_content", Piece::Reasoning as fn(String) -> Piece),
            ("reasoning", Piece::Reasoning),
            ("content", Piece::Text),
            ("refusal", Piece::Refusal),
        ] {
            let text = text(delta[name].take());
            if !text.is_empty() {
                pieces.push(piece(text));
            }
        }
        for call in take_list(&mut delta["tool_calls"]) {
            let piece = state.tool_call(&call);
            pieces.push(Piece::ToolCall(piece));
        }
        if let Some(word) = choice["finish_reason"].as_str() {
            state.finish.get_or_insert_with(|| finish_reason(word));
            pieces.extend(state.empty_calls().map(Piece::ToolCall));
        }
        let mut extra_json = unnamed(choice, &delta);
        for piece in pieces {
            let extra_json = std::mem::take(&mut extra_json);
            out.push(Event::Delta(Delta { choice: index, piece: Some(piece), extra_json }));
        }
        if !extra_json.is_empty() {
            out.push(Event::Delta(Delta { choice: index, piece: None, extra_json }));
        }
    }

    fn finish(&mut self, out: &mut Vec<Event>) -> Result<(), Error> {
        let choices: Option<Vec<_>> = self
            .choices
            .iter()
            .map(|(index, state)| {
                let finish_reason = state.finish?.into();
                let broken_tool_calls =
                    arguments::broken(state.calls.iter().map(|call| &call.arguments));
                Some(Choice { index: *index, finish_reason, broken_tool_calls })
            })
            .collect();
        let choices = choices.filter(|choices| !choices.is_empty()).ok_or_else(|| {
            Error::provider(super::NAME, Failure::Cut, "the stream ended without a finish reason")
        })?;
        let extra = std::mem::take(&mut self.extra);
        let extra_json =
            if extra.is_empty() { String::new() } else { Value::Object(extra).to_string() };
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
        match event.data.trim() {
            "[DONE]" => self.finish(out),
            "" => Ok(()),
            data => match plain::read(data) {
                Some(plain) => {
                    self.plain(plain, out);
                    Ok(())
                }
                None => self.chunk(parse(data.as_bytes())?, out),
            },
        }
    }

    fn end(&mut self, out: &mut Vec<Event>) -> Result<(), Error> {
        if self.finished { Ok(()) } else { self.finish(out) }
    }

    fn whole(&mut self, body: &[u8], out: &mut Vec<Event>) -> Result<(), Error> {
        let answer = parse(body)?;
        if !answer.is_object() {
            return Err(malformed("the answer is not a JSON object"));
        }
        self.chunk(answer, out)?;
        self.finish(out)
    }
}

impl State {
    fn tool_call(&mut self, call: &Value) -> ToolCallPiece {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (given, id) = (call["index"].as_u64(), word(&call["id"]));
        let known = match given {
            Some(_) => self.calls.iter().position(|known| known.index == given),
            // Without an index a new id is a new call, and none the last one.
            None if id.is_empty() => self.calls.len().checked_sub(1),
            None => self.calls.iter().position(|known| known.id == id),
        };
        let arguments = match &call["function"]["arguments"] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            object => object.to_string(),
        };
        let (at, id, name) = match known {
            Some(at) => (at, String::new(), String::new()),
            None => {
                let arguments = Arguments::default();
                self.calls.push(Call { index: given, id: id.clone(), arguments });
                (self.calls.len() - 1, id, word(&call["function"]["name"]))
            }
        };
        self.calls[at].arguments.push(&arguments);
        ToolCallPiece { index: position(at), id, name, arguments }
    }

    /// A call without arguments means an empty object, and must say so.
    fn empty_calls(&mut self) -> impl Iterator<Item = ToolCallPiece> {
        self.calls.iter_mut().enumerate().filter_map(|(at, call)| {
            call.arguments.is_empty().then(|| {
                call.arguments.push("{}");
                let arguments = "{}".to_owned();
                ToolCallPiece { index: position(at), arguments, ..ToolCallPiece::default() }
            })
        })
    }
}

fn position(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn take_list(value: &mut Value) -> Vec<Value> {
    match value.take() {
        Value::Array(list) => list,
        _ => Vec::new(),
    }
}

/// A string, or the texts of a list of parts.
fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

/// What a choice says that we have no field for, such as `logprobs`.
fn unnamed(choice: &Value, delta: &Value) -> String {
    let rest = |value: &Value, named: &[&str]| -> Map<String, Value> {
        let fields = value.as_object().into_iter().flatten();
        let fields = fields.filter(|(name, value)| {
            !named.contains(&name.as_str()) && !value.is_null() && *value != &Value::Array(vec![])
        });
        fields.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let mut extra = rest(choice, &CHOICE_FIELDS);
    extra.extend(rest(delta, &DELTA_FIELDS));
    if extra.is_empty() { String::new() } else { Value::Object(extra).to_string() }
}

fn finish_reason(word: &str) -> FinishReason {
    match word {
        "length" | "model_length" | "max_tokens" => FinishReason::Length,
        "tool_calls" | "function_call" => FinishReason::ToolCalls,
        "content_filter" => FinishReason::ContentFilter,
        _ => FinishReason::Stop,
    }
}

fn usage(usage: &Value) -> Usage {
    let count = |value: &Value| value.as_i64().unwrap_or_default().max(0);
    let (input, output) = (count(&usage["prompt_tokens"]), count(&usage["completion_tokens"]));
    let input_details = &usage["prompt_tokens_details"];
    let output_details = &usage["completion_tokens_details"];
    let read = count(&input_details["cached_tokens"]).min(input);
    let write = count(&input_details["cache_write_tokens"]).min(input - read);
    let reasoning = count(&output_details["reasoning_tokens"]);
    // xAI counts reasoning beside the completion, everybody else inside.
    let beside = reasoning > 0 && count(&usage["total_tokens"]) >= input + output + reasoning;
    Usage {
        input_uncached: input - read - write,
        input_cache_read: read,
        input_cache_write: write,
        output: if beside { output + reasoning } else { output },
        output_reasoning: reasoning,
        input_audio: count(&input_details["audio_tokens"]),
        output_audio: count(&output_details["audio_tokens"]),
        ..Usage::default()
    }
}
