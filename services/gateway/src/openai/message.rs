//! One message of a chat request, with its parts and tool calls.
//!
//! Invariants:
//! - What the contract cannot carry is refused by name. Only what clients echo
//!   from our own answers and no provider reads is dropped ([`ECHOED`]).

use super::{
    error::Refusal,
    fields::{Fields, wrong},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use skein_proto::model::v1::{
    Audio, ContentPart, Image, Message, Role, ToolCall, content_part::Part, image::Source,
};

/// Fields of answers that come back with the conversation.
const ECHOED: [&str; 6] =
    ["annotations", "citations", "reasoning", "reasoning_content", "logprobs", "index"];

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
    fields.nothing_else(&ECHOED)?;
    let extra_json = String::new();
    Ok(Message { role: role.into(), content, name, tool_calls, tool_call_id, refusal, extra_json })
}

fn content_parts(content: Value, path: &str) -> Result<Vec<ContentPart>, Refusal> {
    let part = |part| ContentPart { part: Some(part), ..ContentPart::default() };
    match content {
        Value::String(text) => Ok(vec![part(Part::Text(text))]),
        Value::Array(parts) => parts
            .into_iter()
            .enumerate()
            .map(|(index, value)| Ok(part(content_part(value, &format!("{path}[{index}]"))?)))
            .collect(),
        other => Err(wrong(path, "a string or an array of parts", &other)),
    }
}

fn content_part(value: Value, path: &str) -> Result<Part, Refusal> {
    let mut fields = Fields::of(value, path)?;
    let part = match fields.required_text("type")?.as_str() {
        "text" => Part::Text(fields.required_text("text")?),
        "refusal" => Part::Text(fields.required_text("refusal")?),
        "image_url" => Part::Image(image(&mut fields)?),
        "input_audio" => Part::Audio(audio(&mut fields)?),
        other => {
            let wanted = "text, image_url, input_audio or refusal";
            return Err(fields.out_of_range("type", &format!("{other:?}"), wanted));
        }
    };
    fields.nothing_else(&[])?;
    Ok(part)
}

fn image(fields: &mut Fields) -> Result<Image, Refusal> {
    let value = fields.take("image_url").ok_or_else(|| fields.missing("image_url"))?;
    let mut image = Fields::of(value, &fields.path("image_url"))?;
    let url = image.required_text("url")?;
    if !url.starts_with("https://") && !url.starts_with("http://") && !url.starts_with("data:") {
        return Err(image.out_of_range("url", "something else", "an https: or data: URL"));
    }
    let detail = image.text("detail")?.unwrap_or_default();
    image.nothing_else(&[])?;
    Ok(Image { source: Some(Source::Url(url)), media_type: String::new(), detail })
}

fn audio(fields: &mut Fields) -> Result<Audio, Refusal> {
    let value = fields.take("input_audio").ok_or_else(|| fields.missing("input_audio"))?;
    let mut audio = Fields::of(value, &fields.path("input_audio"))?;
    let data = STANDARD
        .decode(audio.required_text("data")?)
        .map_err(|_| audio.out_of_range("data", "something else", "base64"))?;
    let format = audio.required_text("format")?;
    audio.nothing_else(&[])?;
    Ok(Audio { data: data.into(), format })
}

fn tool_calls(fields: &mut Fields) -> Result<Vec<ToolCall>, Refusal> {
    let calls = fields.list("tool_calls")?.unwrap_or_default();
    let path = fields.path("tool_calls");
    calls
        .into_iter()
        .enumerate()
        .map(|(index, value)| {
            let mut call = Fields::of(value, &format!("{path}[{index}]"))?;
            let kind = call.text("type")?.unwrap_or_else(|| "function".to_owned());
            if kind != "function" {
                return Err(call.out_of_range("type", &format!("{kind:?}"), "function"));
            }
            let id = call.required_text("id")?;
            let value = call.take("function").ok_or_else(|| call.missing("function"))?;
            let mut function = Fields::of(value, &call.path("function"))?;
            let name = function.required_text("name")?;
            let arguments_json = function.required_text("arguments")?;
            function.nothing_else(&[])?;
            call.nothing_else(&["index"])?;
            Ok(ToolCall { id, name, arguments_json, ..ToolCall::default() })
        })
        .collect()
}
