//! One message of a chat request, with its parts and tool calls.
//!
//! Invariants:
//! - What we have no name for travels at its place: fields of a message, of a
//!   part or of a call, and whole parts and calls of other kinds. Only what
//!   clients echo from our own answers and no provider reads is dropped
//!   ([`ECHOED`]).

use super::{
    error::Refusal,
    fields::{Fields, extra, nest, wrong},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};
use skein_proto::model::v1::{
    Audio, ContentPart, Image, Message, Role, ToolCall, content_part::Part, image::Source,
};

/// Fields of answers that come back with the conversation.
const ECHOED: [&str; 4] = ["annotations", "citations", "logprobs", "index"];

pub(super) fn read(value: Value, path: &str) -> Result<Message, Refusal> {
    let mut fields = Fields::of(value, path)?;
    let role = match fields.required_text("role")?.as_str() {
        "system" => Role::System,
        "developer" => Role::Developer,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        other => {
            let wanted = "system, developer, user, assistant or tool";
            return Err(fields.out_of_range("role", &format!("{other:?}"), wanted));
        }
    };
    let tool_calls = tool_calls(&mut fields)?;
    let refusal = fields.text("refusal")?.unwrap_or_default();
    let content = match fields.take("content") {
        Some(content) => content_parts(content, &fields.path("content"))?,
        // An assistant may have called tools or refused instead of speaking.
        None if role == Role::Assistant => Vec::new(),
        None => return Err(fields.missing("content")),
    };
    let tool_call_id = fields.text("tool_call_id")?.unwrap_or_default();
    if role == Role::Tool && tool_call_id.is_empty() {
        return Err(fields.missing("tool_call_id"));
    }
    let name = fields.text("name")?.unwrap_or_default();
    let mut rest = fields.rest();
    rest.retain(|name, _| !ECHOED.contains(&name.as_str()));
    let extra_json = extra(rest);
    Ok(Message { role: role.into(), content, name, tool_calls, tool_call_id, refusal, extra_json })
}

fn content_parts(content: Value, path: &str) -> Result<Vec<ContentPart>, Refusal> {
    match content {
        Value::String(text) => {
            Ok(vec![ContentPart { part: Some(Part::Text(text)), ..ContentPart::default() }])
        }
        Value::Array(parts) => parts
            .into_iter()
            .enumerate()
            .map(|(index, value)| content_part(value, &format!("{path}[{index}]")))
            .collect(),
        other => Err(wrong(path, "a string or an array of parts", &other)),
    }
}

fn content_part(value: Value, path: &str) -> Result<ContentPart, Refusal> {
    let mut fields = Fields::of(value, path)?;
    let kind = fields.required_text("type")?;
    let mut rest = Map::new();
    let part = match kind.as_str() {
        "text" => Part::Text(fields.required_text("text")?),
        "refusal" => Part::Text(fields.required_text("refusal")?),
        "image_url" => {
            let (image, inner) = image(&mut fields)?;
            nest(&mut rest, "image_url", inner);
            Part::Image(image)
        }
        "input_audio" => {
            let (audio, inner) = audio(&mut fields)?;
            nest(&mut rest, "input_audio", inner);
            Part::Audio(audio)
        }
        _ => {
            fields.put_back("type", kind.into());
            return Ok(ContentPart { part: None, extra_json: fields.extra() });
        }
    };
    rest.extend(fields.rest());
    Ok(ContentPart { part: Some(part), extra_json: extra(rest) })
}

type Rest = Map<String, Value>;

fn image(fields: &mut Fields) -> Result<(Image, Rest), Refusal> {
    let value = fields.take("image_url").ok_or_else(|| fields.missing("image_url"))?;
    let mut image = Fields::of(value, &fields.path("image_url"))?;
    let url = image.required_text("url")?;
    if !url.starts_with("https://") && !url.starts_with("http://") && !url.starts_with("data:") {
        return Err(image.out_of_range("url", "something else", "an https: or data: URL"));
    }
    let detail = image.text("detail")?.unwrap_or_default();
    let media_type = String::new();
    Ok((Image { source: Some(Source::Url(url)), media_type, detail }, image.rest()))
}

fn audio(fields: &mut Fields) -> Result<(Audio, Rest), Refusal> {
    let value = fields.take("input_audio").ok_or_else(|| fields.missing("input_audio"))?;
    let mut audio = Fields::of(value, &fields.path("input_audio"))?;
    let data = STANDARD
        .decode(audio.required_text("data")?)
        .map_err(|_| audio.out_of_range("data", "something else", "base64"))?;
    let format = audio.required_text("format")?;
    Ok((Audio { data: data.into(), format }, audio.rest()))
}

fn tool_calls(fields: &mut Fields) -> Result<Vec<ToolCall>, Refusal> {
    let calls = fields.list("tool_calls")?.unwrap_or_default();
    let path = fields.path("tool_calls");
    let calls = calls.into_iter().enumerate();
    calls.map(|(index, value)| tool_call(value, &format!("{path}[{index}]"))).collect()
}

fn tool_call(value: Value, path: &str) -> Result<ToolCall, Refusal> {
    let mut call = Fields::of(value, path)?;
    let kind = call.text("type")?.unwrap_or_else(|| "function".to_owned());
    let id = call.required_text("id")?;
    call.take("index"); // of a stream's pieces
    if kind != "function" {
        call.put_back("type", kind.into());
        return Ok(ToolCall { id, extra_json: call.extra(), ..ToolCall::default() });
    }
    let value = call.take("function").ok_or_else(|| call.missing("function"))?;
    let mut function = Fields::of(value, &call.path("function"))?;
    let name = function.required_text("name")?;
    let arguments_json = function.required_text("arguments")?;
    let mut rest = call.rest();
    nest(&mut rest, "function", function.rest());
    Ok(ToolCall { id, name, arguments_json, extra_json: extra(rest) })
}
