//! Messages of a conversation in this dialect's words.
//!
//! Invariants:
//! - Passages become one system message of numbered sources, after the
//!   caller's own system messages.
//! - What the caller's dialect has and ours has not comes back at its place:
//!   fields of messages, parts and calls, and whole parts of other kinds. What
//!   only Anthropic understands is left out.

use super::vendor::{Reasoning, Vendor};
use crate::{
    error::Error,
    provider::{extra, sources},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use skein_proto::model::v1::{
    ContentPart, GenerateRequest, Image, Message, Role, ToolCall, content_part::Part, image::Source,
};

/// Of Anthropic's own: signed thoughts and the like.
const FOREIGN: &str = "anthropic";

pub(super) fn of(
    request: &GenerateRequest,
    vendor: &Vendor,
    mut notes: Vec<String>,
) -> Result<Value, Error> {
    let messages = request.messages.iter().enumerate();
    let messages = messages.map(|(at, message)| self::message(at, message, vendor));
    let mut messages: Vec<Value> = messages.collect::<Result<_, _>>()?;
    if !request.passages.is_empty() {
        notes.push(sources::instruction(&request.passages));
    }
    let leading = |message: &&Message| matches!(message.role(), Role::System | Role::Developer);
    let at = request.messages.iter().take_while(leading).count();
    for note in notes.into_iter().rev() {
        messages.insert(at, json!({"role": "system", "content": note}));
    }
    Ok(messages.into())
}

fn message(at: usize, message: &Message, vendor: &Vendor) -> Result<Value, Error> {
    let mut object = Map::new();
    let role = match message.role() {
        Role::Developer if vendor.developer => "developer",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
        Role::System | Role::Developer | Role::Unspecified => "system",
    };
    object.insert("role".into(), role.into());
    object.insert("content".into(), content(at, message)?);
    for (name, value) in [("name", &message.name), ("refusal", &message.refusal)] {
        if !value.is_empty() {
            object.insert(name.into(), value.as_str().into());
        }
    }
    if !message.tool_call_id.is_empty() {
        object.insert("tool_call_id".into(), id(&message.tool_call_id, vendor).into());
    }
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().enumerate();
        let calls = calls.map(|(index, call)| {
            tool_call(call, &format!("messages[{at}].tool_calls[{index}].extra_json"), vendor)
        });
        object.insert("tool_calls".into(), calls.collect::<Result<Vec<_>, _>>()?.into());
    }
    let mut own = extra::object(&format!("messages[{at}].extra_json"), &message.extra_json)?;
    own.shift_remove(FOREIGN);
    reasoning(&mut own, vendor);
    extra::merge(&mut object, own, &[]);
    Ok(object.into())
}

/// Under the name that the vendor reads, if it reads any.
fn reasoning(own: &mut Map<String, Value>, vendor: &Vendor) {
    if vendor.reasoning == Reasoning::AsGiven {
        return;
    }
    let given = ["reasoning_content", "reasoning"].map(|name| own.shift_remove(name));
    if let Reasoning::As(name) = vendor.reasoning {
        let text = given.into_iter().flatten().next();
        own.extend(text.map(|text| (name.to_owned(), text)));
    }
}

/// One text is a string, which every server takes; only more is a list.
fn content(at: usize, message: &Message) -> Result<Value, Error> {
    Ok(match message.content.as_slice() {
        [] if !message.tool_calls.is_empty() => Value::Null,
        [] => "".into(),
        [ContentPart { part: Some(Part::Text(text)), extra_json }] if extra_json.is_empty() => {
            text.as_str().into()
        }
        parts => {
            let parts = parts.iter().enumerate();
            let parts = parts.map(|(index, part)| content_part(at, index, part));
            parts.collect::<Result<Vec<_>, _>>()?.into()
        }
    })
}

fn content_part(at: usize, index: usize, part: &ContentPart) -> Result<Value, Error> {
    let field = format!("messages[{at}].content[{index}].extra_json");
    let own = extra::object(&field, &part.extra_json)?;
    let ours = match &part.part {
        None => return Ok(own.into()),
        Some(Part::Text(text)) => json!({"type": "text", "text": text}),
        Some(Part::Image(image)) => {
            let mut url = json!({"url": image_url(image)});
            if !image.detail.is_empty() {
                url["detail"] = image.detail.as_str().into();
            }
            json!({"type": "image_url", "image_url": url})
        }
        Some(Part::Audio(audio)) => json!({
            "type": "input_audio",
            "input_audio": {"data": STANDARD.encode(&audio.data), "format": audio.format},
        }),
    };
    Ok(with(ours, own, &["image_url", "input_audio"]))
}

/// An object of ours with the caller's fields.
fn with(ours: Value, own: Map<String, Value>, shared: &[&str]) -> Value {
    let Value::Object(mut ours) = ours else { return ours };
    extra::merge(&mut ours, own, shared);
    ours.into()
}

fn image_url(image: &Image) -> String {
    match &image.source {
        Some(Source::Url(url)) => url.clone(),
        Some(Source::Data(data)) => {
            format!("data:{};base64,{}", image.media_type, STANDARD.encode(data))
        }
        None => String::new(),
    }
}

fn tool_call(call: &ToolCall, field: &str, vendor: &Vendor) -> Result<Value, Error> {
    let own = extra::object(field, &call.extra_json)?;
    if call.name.is_empty() && !own.is_empty() {
        let ours = json!({"id": id(&call.id, vendor)});
        return Ok(with(ours, own, &[]));
    }
    let ours = json!({
        "id": id(&call.id, vendor),
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments_json},
    });
    Ok(with(ours, own, &["function"]))
}

/// As it is, or nine letters and digits made of it: the same for the same.
fn id(id: &str, vendor: &Vendor) -> String {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let short = id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !vendor.short_ids || short {
        return id.to_owned();
    }
    // FNV-1a; 62^9 is a little less than 2^54.
    let mut hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut letter = || {
        let at = usize::try_from(hash % 62).unwrap_or_default();
        hash /= 62;
        char::from(LETTERS[at])
    };
    std::iter::repeat_with(&mut letter).take(9).collect()
}
