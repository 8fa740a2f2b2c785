//! The blocks that a message is made of, from their start to their stop.
//!
//! Invariants:
//! - What is a piece of ours goes out at once, and is not kept.
//! - What only the provider understands is kept whole, with every field that
//!   came, known or not, so that it can be sent back unchanged.

use crate::provider::arguments::Arguments;
use serde_json::{Map, Value, json};
use skein_proto::model::v1::{ToolCallPiece, delta::Piece};

pub(super) enum Block {
    Text {
        citations: Vec<Value>,
    },
    /// A call of a tool of the caller's; `at` is its place among the calls.
    Call {
        at: usize,
        whole: Map<String, Value>,
    },
    /// Thinking, and what tools of the provider's own are asked and answer;
    /// `json` is the input of one that comes in pieces.
    Other {
        whole: Map<String, Value>,
        json: String,
    },
}

/// A block that goes back as it came.
pub(super) struct Kept {
    pub(super) index: u64,
    pub(super) block: Value,
}

impl From<Kept> for Value {
    fn from(kept: Kept) -> Self {
        json!({"index": kept.index, "content_block": kept.block})
    }
}

impl Block {
    pub(super) fn start(mut block: Value, calls: &mut Vec<Arguments>) -> (Self, Option<Piece>) {
        let kind = block["type"].as_str().unwrap_or_default().to_owned();
        let text = |value: Value| match value {
            Value::String(text) if !text.is_empty() => Some(text),
            _ => None,
        };
        match kind.as_str() {
            "text" => {
                let citations = match block["citations"].take() {
                    Value::Array(citations) => citations,
                    _ => Vec::new(),
                };
                (Self::Text { citations }, text(block["text"].take()).map(Piece::Text))
            }
            "tool_use" => {
                let at = calls.len();
                calls.push(Arguments::default());
                let word = |name: &str| block[name].as_str().unwrap_or_default().to_owned();
                let (id, name, index) = (word("id"), word("name"), position(at));
                let piece = ToolCallPiece { index, id, name, ..ToolCallPiece::default() };
                (Self::Call { at, whole: fields(block) }, Some(Piece::ToolCall(piece)))
            }
            _ => {
                let thought = text(block["thinking"].clone()).map(Piece::Reasoning);
                (Self::Other { whole: fields(block), json: String::new() }, thought)
            }
        }
    }

    pub(super) fn delta(&mut self, delta: &mut Value, calls: &mut [Arguments]) -> Option<Piece> {
        let kind = delta["type"].as_str().unwrap_or_default().to_owned();
        let piece = |name: &str| delta[name].as_str().unwrap_or_default().to_owned();
        match (self, kind.as_str()) {
            (Self::Text { .. }, "text_delta") => {
                let text = piece("text");
                (!text.is_empty()).then_some(Piece::Text(text))
            }
            (Self::Text { citations }, "citations_delta") => {
                citations.push(delta["citation"].take());
                None
            }
            (Self::Call { at, .. }, "input_json_delta") => {
                let arguments = piece("partial_json");
                calls.get_mut(*at)?.push(&arguments);
                let index = position(*at);
                let piece = ToolCallPiece { index, arguments, ..ToolCallPiece::default() };
                (!piece.arguments.is_empty()).then_some(Piece::ToolCall(piece))
            }
            (Self::Other { json, .. }, "input_json_delta") => {
                json.push_str(&piece("partial_json"));
                None
            }
            (Self::Other { whole, .. }, kind) => {
                let thought = (kind == "thinking_delta").then(|| piece("thinking"));
                append(whole, delta.take());
                thought.filter(|text| !text.is_empty()).map(Piece::Reasoning)
            }
            (Self::Text { .. } | Self::Call { .. }, _) => None,
        }
    }

    pub(super) fn stop(self, calls: &mut [Arguments]) -> (Option<Value>, Option<Piece>) {
        match self {
            Self::Text { citations } if citations.is_empty() => (None, None),
            Self::Text { citations } => {
                (Some(json!({"type": "text", "citations": citations})), None)
            }
            Self::Call { at, whole } => {
                let piece = calls.get_mut(at).and_then(|call| rest(at, &whole, call));
                // Only with fields that a call of ours has no place for.
                let known = ["type", "id", "name", "input"];
                let more = whole.keys().any(|name| !known.contains(&name.as_str()));
                let kept = calls.get(at).filter(|_| more).map(|call| {
                    let mut whole = whole;
                    whole.insert("input".into(), call.value());
                    whole.into()
                });
                (kept, piece)
            }
            Self::Other { mut whole, json } => {
                if let Ok(input) = serde_json::from_str(&json) {
                    whole.insert("input".into(), input);
                }
                (Some(whole.into()), None)
            }
        }
    }
}

/// The input that came with a call's start instead of in pieces: an empty one
/// too must be said.
fn rest(at: usize, whole: &Map<String, Value>, call: &mut Arguments) -> Option<Piece> {
    if !call.is_empty() {
        return None;
    }
    let input = whole.get("input").filter(|input| input.is_object());
    let arguments = input.map_or_else(|| "{}".to_owned(), Value::to_string);
    call.push(&arguments);
    let index = position(at);
    Some(Piece::ToolCall(ToolCallPiece { index, arguments, ..ToolCallPiece::default() }))
}

/// Texts are pieces of the block's field of that name; anything else is new.
fn append(whole: &mut Map<String, Value>, delta: Value) {
    for (name, value) in fields(delta) {
        match (whole.get_mut(&name), value) {
            _ if name == "type" => {}
            (Some(Value::String(text)), Value::String(piece)) => text.push_str(&piece),
            (_, value) => drop(whole.insert(name, value)),
        }
    }
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn position(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
