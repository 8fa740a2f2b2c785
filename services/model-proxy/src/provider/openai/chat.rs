//! Our request in the words of `POST /chat/completions`.
//!
//! Invariants:
//! - Nothing that the request says is left out; what was not said is not sent,
//!   so that the provider's own defaults hold.
//! - Passages become one system message of numbered sources, after the
//!   caller's own system messages.

use super::merge_extra;
use crate::{error::Error, provider::sources};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use skein_proto::model::v1::{
    ContentPart, GenerateRequest, Image, Message, ResponseFormat, Role, Sampling, ToolCall,
    ToolChoice, ToolDefinition, content_part::Part, image::Source, response_format::Format,
    tool_choice,
};

pub(super) fn body(
    model: &str,
    request: &GenerateRequest,
    max_tokens_field: &str,
) -> Result<Map<String, Value>, Error> {
    let mut body = Map::new();
    body.insert("model".into(), model.into());
    body.insert("messages".into(), messages(request)?);
    body.insert("stream".into(), true.into());
    body.insert("stream_options".into(), json!({"include_usage": true}));
    sampling(request.sampling.as_ref(), max_tokens_field, &mut body);
    if !request.tools.is_empty() {
        let tools: Result<Vec<_>, _> = request.tools.iter().enumerate().map(tool).collect();
        body.insert("tools".into(), tools?.into());
    }
    if let Some(choice) = &request.tool_choice {
        tool_choice(choice, &mut body);
    }
    if let Some(format) =
        request.response_format.as_ref().map(response_format).transpose()?.flatten()
    {
        body.insert("response_format".into(), format);
    }
    merge_extra(&mut body, &request.extra_json)?;
    Ok(body)
}

fn messages(request: &GenerateRequest) -> Result<Value, Error> {
    let mut messages: Vec<Value> = request.messages.iter().map(message).collect();
    if !request.passages.is_empty() {
        let leading = |message: &&Message| matches!(message.role(), Role::System | Role::Developer);
        let at = request.messages.iter().take_while(leading).count();
        messages.insert(
            at,
            json!({"role": "system", "content": sources::instruction(&request.passages)}),
        );
    }
    Ok(messages.into())
}

fn message(message: &Message) -> Value {
    let mut object = Map::new();
    let role = match message.role() {
        Role::Developer => "developer",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
        Role::System | Role::Unspecified => "system",
    };
    object.insert("role".into(), role.into());
    object.insert("content".into(), content(&message.content, !message.tool_calls.is_empty()));
    for (name, value) in [
        ("name", &message.name),
        ("tool_call_id", &message.tool_call_id),
        ("refusal", &message.refusal),
    ] {
        if !value.is_empty() {
            object.insert(name.into(), value.as_str().into());
        }
    }
    if !message.tool_calls.is_empty() {
        let calls: Vec<_> = message.tool_calls.iter().map(tool_call).collect();
        object.insert("tool_calls".into(), calls.into());
    }
    object.into()
}

/// One text is a string, which every server takes; only more is a list.
fn content(parts: &[ContentPart], has_calls: bool) -> Value {
    match parts {
        [] if has_calls => Value::Null,
        [] => "".into(),
        [ContentPart { part: Some(Part::Text(text)), .. }] => text.as_str().into(),
        parts => parts.iter().filter_map(|part| Some(content_part(part.part.as_ref()?))).collect(),
    }
}

fn content_part(part: &Part) -> Value {
    match part {
        Part::Text(text) => json!({"type": "text", "text": text}),
        Part::Image(image) => {
            let mut url = json!({"url": image_url(image)});
            if !image.detail.is_empty() {
                url["detail"] = image.detail.as_str().into();
            }
            json!({"type": "image_url", "image_url": url})
        }
        Part::Audio(audio) => json!({
            "type": "input_audio",
            "input_audio": {"data": STANDARD.encode(&audio.data), "format": audio.format},
        }),
    }
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

fn tool_call(call: &ToolCall) -> Value {
    json!({
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments_json},
    })
}

fn tool((index, tool): (usize, &ToolDefinition)) -> Result<Value, Error> {
    let mut function = json!({"name": tool.name});
    if !tool.description.is_empty() {
        function["description"] = tool.description.as_str().into();
    }
    if !tool.parameters_json.is_empty() {
        let field = || format!("tools[{index}].parameters_json");
        function["parameters"] = schema(&tool.parameters_json, field)?;
    }
    if tool.strict {
        function["strict"] = true.into();
    }
    Ok(json!({"type": "function", "function": function}))
}

fn tool_choice(choice: &ToolChoice, body: &mut Map<String, Value>) {
    let value: Option<Value> = match &choice.choice {
        Some(tool_choice::Choice::Tool(name)) => {
            Some(json!({"type": "function", "function": {"name": name}}))
        }
        Some(tool_choice::Choice::Mode(mode)) => match tool_choice::Mode::try_from(*mode) {
            Ok(tool_choice::Mode::None) => Some("none".into()),
            Ok(tool_choice::Mode::Auto) => Some("auto".into()),
            Ok(tool_choice::Mode::Required) => Some("required".into()),
            Ok(tool_choice::Mode::Unspecified) | Err(_) => None,
        },
        None => None,
    };
    body.extend(value.map(|value| ("tool_choice".into(), value)));
    body.extend(choice.parallel.map(|parallel| ("parallel_tool_calls".into(), parallel.into())));
}

fn response_format(format: &ResponseFormat) -> Result<Option<Value>, Error> {
    Ok(match &format.format {
        Some(Format::Text(true)) => Some(json!({"type": "text"})),
        Some(Format::JsonObject(true)) => Some(json!({"type": "json_object"})),
        Some(Format::JsonSchema(wanted)) => {
            let field = || "response_format.json_schema.schema_json".to_owned();
            let mut inner = json!({"name": wanted.name});
            if !wanted.schema_json.is_empty() {
                inner["schema"] = schema(&wanted.schema_json, field)?;
            }
            if !wanted.description.is_empty() {
                inner["description"] = wanted.description.as_str().into();
            }
            if wanted.strict {
                inner["strict"] = true.into();
            }
            Some(json!({"type": "json_schema", "json_schema": inner}))
        }
        Some(Format::Text(false) | Format::JsonObject(false)) | None => None,
    })
}

fn schema(text: &str, field: impl Fn() -> String) -> Result<Value, Error> {
    serde_json::from_str(text)
        .map_err(|error| Error::invalid(field(), format!("is not JSON: {error}")))
}

fn sampling(sampling: Option<&Sampling>, max_tokens_field: &str, body: &mut Map<String, Value>) {
    let Some(sampling) = sampling else { return };
    let mut set = |name: &str, value: Option<Value>| {
        body.extend(value.map(|value| (name.to_owned(), value)));
    };
    set(max_tokens_field, sampling.max_tokens.map(Value::from));
    set("temperature", sampling.temperature.map(Value::from));
    set("top_p", sampling.top_p.map(Value::from));
    set("stop", (!sampling.stop.is_empty()).then(|| json!(sampling.stop)));
    set("seed", sampling.seed.map(Value::from));
    set("frequency_penalty", sampling.frequency_penalty.map(Value::from));
    set("presence_penalty", sampling.presence_penalty.map(Value::from));
    set("n", sampling.n.map(Value::from));
    let effort = &sampling.reasoning_effort;
    set("reasoning_effort", (!effort.is_empty()).then(|| effort.as_str().into()));
}
