//! A streamed answer: from our events to OpenAI's server-sent chunks.
//!
//! Invariants:
//! - Each choice begins with its role, once; a tool call's id and name come
//!   with its first piece alone; the finish reason comes last.
//! - `usage` appears only if it was asked for: null on every chunk, then one
//!   chunk without choices.
//! - `[DONE]` follows `finished` and nothing else.

use super::{
    error::Refusal,
    extra,
    usage::{self, Citation, Usage},
};
use serde::Serialize;
use serde_json::{Map, Value};
use skein_proto::model::v1::{
    Delta, Finished, Started, ToolCallPiece, delta::Piece, generate_response::Event,
};
use std::collections::BTreeSet;

/// Comment lines keep intermediaries from cutting a silent stream.
pub const KEEP_ALIVE: &str = ": keep-alive\n\n";

pub struct Encoder {
    id: String,
    model: String,
    degraded: String,
    created: i64,
    include_usage: bool,
    begun: BTreeSet<u32>,
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    #[serde(flatten)]
    extra: Map<String, Value>,
    choices: &'a [ChunkChoice],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

#[derive(Default, Serialize)]
struct ChunkChoice {
    index: u32,
    delta: Fields,
    logprobs: Option<Value>,
    finish_reason: Option<&'static str>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

/// `Some(None)` is written as null, `None` is left out.
#[derive(Default, Serialize)]
struct Fields {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[ToolCall; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    citations: Option<[Citation; 1]>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

#[derive(Serialize)]
struct ToolCall {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<Function>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

#[derive(Serialize)]
struct Function {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

impl Encoder {
    pub fn new(started: &Started, created: i64, include_usage: bool) -> Self {
        Self {
            id: format!("chatcmpl-{}", started.call_id),
            model: started.model.clone(),
            degraded: started.degraded_reason.clone(),
            created,
            include_usage,
            begun: BTreeSet::new(),
        }
    }

    /// Appends what `event` is on the wire.
    pub fn push(&mut self, event: Event, out: &mut String) {
        match event {
            Event::Started(_) => {}
            Event::Delta(delta) => self.delta(delta, out),
            Event::Finished(finished) => self.finish(&finished, out),
        }
    }

    fn delta(&mut self, delta: Delta, out: &mut String) {
        let mut extra = extra::read(&delta.extra_json);
        let logprobs = extra.shift_remove("logprobs");
        let outer = extra::inner(&mut extra, "choice");
        let mut fields = Fields { extra, ..Fields::default() };
        self.begin(delta.choice, delta.piece.as_ref(), &mut fields, out);
        match delta.piece {
            Some(Piece::Text(text)) => fields.content = Some(Some(text)),
            Some(Piece::Refusal(text)) => fields.refusal = Some(Some(text)),
            Some(Piece::Reasoning(text)) => fields.reasoning_content = Some(text),
            Some(Piece::ToolCall(piece)) => fields.tool_calls = Some([tool_call(piece)]),
            Some(Piece::Citation(citation)) => fields.citations = Some([usage::citation(citation)]),
            None => {}
        }
        let index = delta.choice;
        let choice =
            ChunkChoice { index, delta: fields, logprobs, extra: outer, ..Default::default() };
        self.chunk(&[choice], out);
    }

    /// The role: on the chunk of a tool call itself, before anything else on a
    /// chunk of its own.
    fn begin(&mut self, index: u32, piece: Option<&Piece>, fields: &mut Fields, out: &mut String) {
        if !self.begun.insert(index) {
            return;
        }
        let role = Some("assistant");
        let delta = match piece {
            Some(Piece::ToolCall(_)) => {
                fields.role = role;
                fields.content = Some(None);
                fields.refusal = Some(None);
                return;
            }
            Some(Piece::Refusal(_)) => Fields {
                role,
                content: Some(None),
                refusal: Some(Some(String::new())),
                ..Fields::default()
            },
            _ => Fields {
                role,
                content: Some(Some(String::new())),
                refusal: Some(None),
                ..Fields::default()
            },
        };
        self.chunk(&[ChunkChoice { index, delta, ..ChunkChoice::default() }], out);
    }

    fn finish(&mut self, finished: &Finished, out: &mut String) {
        let extra = extra::read(&finished.extra_json);
        for choice in &finished.choices {
            self.begin(choice.index, None, &mut Fields::default(), out);
            let reason = Some(usage::finish_reason(choice));
            let last =
                ChunkChoice { index: choice.index, finish_reason: reason, ..Default::default() };
            self.write(extra.clone(), &[last], None, out);
        }
        if self.include_usage {
            let mut usage = usage::usage(&finished.usage.unwrap_or_default());
            usage.degraded = std::mem::take(&mut self.degraded);
            self.write(Map::new(), &[], Some(usage), out);
        }
        out.push_str("data: [DONE]\n\n");
    }

    fn chunk(&self, choices: &[ChunkChoice], out: &mut String) {
        self.write(Map::new(), choices, None, out);
    }

    fn write(
        &self,
        extra: Map<String, Value>,
        choices: &[ChunkChoice],
        usage: Option<Usage>,
        out: &mut String,
    ) {
        let chunk = Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            extra,
            choices,
            usage: self.include_usage.then_some(usage),
        };
        data(&chunk, out);
    }
}

/// A failure after the head was sent: the last thing on a stream that is then
/// broken off, without `[DONE]`.
pub fn failure(refusal: &Refusal) -> String {
    let mut out = String::new();
    data(&refusal.body(), &mut out);
    out
}

fn data(value: &impl Serialize, out: &mut String) {
    // Strings, numbers and maps with string keys always serialise.
    if let Ok(json) = serde_json::to_string(value) {
        out.push_str("data: ");
        out.push_str(&json);
        out.push_str("\n\n");
    }
}

fn tool_call(piece: ToolCallPiece) -> ToolCall {
    let first = !piece.id.is_empty() || !piece.name.is_empty();
    let mut extra = extra::read(&piece.extra_json);
    let inner = extra::inner(&mut extra, "function");
    // A call of another kind says so itself, and has no function.
    let foreign = extra.contains_key("type");
    let name = first.then_some(piece.name);
    ToolCall {
        index: piece.index,
        id: (!piece.id.is_empty()).then_some(piece.id),
        kind: (first && !foreign).then_some("function"),
        function: (!foreign).then_some(Function { name, arguments: piece.arguments, extra: inner }),
        extra,
    }
}

#[cfg(test)]
#[path = "chunks_tests.rs"]
mod tests;
