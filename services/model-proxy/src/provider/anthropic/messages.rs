//! A conversation of ours in Anthropic's words.
//!
//! Invariants:
//! - Instructions, wherever they stood, come first, in their order, and
//!   passages as numbered sources after them.
//! - Results of calls that follow each other are one message, as the API wants
//!   them, and nothing empty is sent, which it refuses.
//! - Blocks that only Anthropic understands (`anthropic.content_blocks` of a
//!   message's `extra_json`) go back unchanged to the places they came from.

use super::NAME;
use crate::{
    error::Error,
    provider::{extra, sources},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use skein_proto::model::v1::{
    ContentPart, GenerateRequest, Image, Message, Role, ToolCall, content_part::Part, image::Source,
};

pub(super) struct Conversation {
    pub(super) system: Vec<Value>,
    pub(super) messages: Vec<Value>,
}

pub(super) fn conversation(request: &GenerateRequest) -> Result<Conversation, Error> {
    let (mut system, mut messages): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    let mut results: Vec<Value> = Vec::new();
    for (index, message) in request.messages.iter().enumerate() {
        let field = format!("messages[{index}]");
        if message.role() != Role::Tool && !results.is_empty() {
            messages.push(turn("user", std::mem::take(&mut results)));
        }
        match message.role() {
            Role::System | Role::Developer | Role::Unspecified => {
                system.extend(instructions(message, &field)?);
            }
            Role::Tool => results.push(result(message, &field)?),
            Role::User => messages.push(turn("user", said(message, &field)?)),
            Role::Assistant => {
                let blocks = answered(message, &field)?;
                // An assistant who said nothing says nothing.
                messages.extend((!blocks.is_empty()).then(|| turn("assistant", blocks)));
            }
        }
    }
    messages.extend((!results.is_empty()).then(|| turn("user", results)));
    if !request.passages.is_empty() {
        system.push(text(&sources::instruction(&request.passages)));
    }
    Ok(Conversation { system, messages })
}

fn turn(role: &str, blocks: Vec<Value>) -> Value {
    let mut turn = Map::new();
    turn.insert("role".into(), role.into());
    turn.insert("content".into(), blocks.into());
    turn.into()
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn instructions(message: &Message, field: &str) -> Result<Vec<Value>, Error> {
    let worded = |part: &ContentPart| !matches!(part.part, Some(Part::Image(_) | Part::Audio(_)));
    match message.content.iter().position(|part| !worded(part)) {
        Some(at) => {
            Err(Error::invalid(format!("{field}.content[{at}]"), "instructions are text alone"))
        }
        None => said(message, field),
    }
}

/// The parts of a message, the last one with the message's own mark for caches.
fn said(message: &Message, field: &str) -> Result<Vec<Value>, Error> {
    let mut blocks = parts(&message.content, field)?;
    let mut extra = extra::object(&format!("{field}.extra_json"), &message.extra_json)?;
    if let (Some(mark), Some(Value::Object(last))) =
        (extra.remove("cache_control"), blocks.last_mut())
    {
        last.entry("cache_control").or_insert(mark);
    }
    Ok(blocks)
}

fn parts(content: &[ContentPart], field: &str) -> Result<Vec<Value>, Error> {
    let mut blocks = Vec::new();
    for (at, part) in content.iter().enumerate() {
        let field = format!("{field}.content[{at}]");
        let extra = extra::object(&format!("{field}.extra_json"), &part.extra_json)?;
        let block = match &part.part {
            Some(Part::Text(words)) if words.is_empty() => continue,
            Some(Part::Text(words)) => text(words),
            Some(Part::Image(image)) => json!({"type": "image", "source": source(image, &field)?}),
            Some(Part::Audio(_)) => {
                return Err(Error::invalid(field, format!("{NAME} takes no audio")));
            }
            // Of a kind of the dialect's own, such as `document`.
            None => json!({}),
        };
        let Value::Object(mut block) = block else { continue };
        extra::merge(&mut block, extra, &[]);
        blocks.push(block.into());
    }
    Ok(blocks)
}

fn source(image: &Image, field: &str) -> Result<Value, Error> {
    let base64 = |media_type: &str, data: &str| json!({"type": "base64", "media_type": media_type, "data": data});
    match &image.source {
        Some(Source::Url(url)) => match url.strip_prefix("data:") {
            None => Ok(json!({"type": "url", "url": url})),
            Some(data) => {
                let (kind, data) = data.split_once(";base64,").ok_or_else(|| {
                    Error::invalid(field, "a data: url must be data:<media type>;base64,<data>")
                })?;
                Ok(base64(kind, data))
            }
        },
        Some(Source::Data(bytes)) => {
            let given = (!image.media_type.is_empty()).then_some(image.media_type.as_str());
            let kind = given.or_else(|| media_type(bytes)).ok_or_else(|| {
                Error::invalid(field, "an image's data needs its media_type, such as image/png")
            })?;
            Ok(base64(kind, &STANDARD.encode(bytes)))
        }
        None => Err(Error::invalid(field, "an image needs a url or data")),
    }
}

/// Of the four kinds that are taken, by their first bytes.
fn media_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xFF, 0xD8, 0xFF, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

fn result(message: &Message, field: &str) -> Result<Value, Error> {
    let mut block = Map::new();
    block.insert("type".into(), "tool_result".into());
    block.insert("tool_use_id".into(), message.tool_call_id.as_str().into());
    let content = parts(&message.content, field)?;
    if !content.is_empty() {
        block.insert("content".into(), content.into());
    }
    let extra = extra::object(&format!("{field}.extra_json"), &message.extra_json)?;
    let known = |name: &str| ["is_error", "cache_control", "toolset_name"].contains(&name);
    block.extend(extra.into_iter().filter(|(name, _)| known(name)));
    Ok(block.into())
}

fn answered(message: &Message, field: &str) -> Result<Vec<Value>, Error> {
    let mut blocks = said(message, field)?;
    if !message.refusal.is_empty() {
        blocks.push(text(&message.refusal));
    }
    for (at, call) in message.tool_calls.iter().enumerate() {
        blocks.push(tool_use(call, &format!("{field}.tool_calls[{at}]"))?);
    }
    let extra = extra::object(&format!("{field}.extra_json"), &message.extra_json)?;
    put_back(&mut blocks, &extra.get(NAME).unwrap_or(&Value::Null)["content_blocks"]);
    Ok(blocks)
}

fn tool_use(call: &ToolCall, field: &str) -> Result<Value, Error> {
    let input = extra::object(&format!("{field}.arguments_json"), &call.arguments_json)?;
    Ok(json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input}))
}

/// `kept` is what [`super::stream`] gave out: each block with its index.
fn put_back(blocks: &mut Vec<Value>, kept: &Value) {
    let mut kept: Vec<_> = kept.as_array().into_iter().flatten().collect();
    kept.sort_by_key(|entry| entry["index"].as_u64());
    for entry in kept {
        let block = &entry["content_block"];
        match block["type"].as_str() {
            // Its citations; the text itself is in the message.
            None | Some("text") => {}
            Some("tool_use") => {
                let same = |known: &&mut Value| known["id"] == block["id"];
                if let Some(known) = blocks.iter_mut().find(same) {
                    known.clone_from(block);
                }
            }
            Some(_) => {
                let at = entry["index"].as_u64().and_then(|index| usize::try_from(index).ok());
                blocks.insert(at.unwrap_or_default().min(blocks.len()), block.clone());
            }
        }
    }
}
