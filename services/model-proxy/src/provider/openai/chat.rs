//! Our request in the words of `POST /chat/completions`.
//!
//! Invariants:
//! - Nothing that the request says is left out; what was not said is not sent,
//!   so that the provider's own defaults hold.
//! - Where a vendor has another word or none for something, its row says so.

use super::{messages, vendor::Vendor};
use crate::{error::Error, provider::extra};
use serde_json::{Map, Value, json};
use skein_proto::model::v1::{
    GenerateRequest, JsonSchema, ResponseFormat, Sampling, ToolChoice, ToolDefinition,
    response_format::Format, tool_choice,
};

/// Objects that may hold fields of ours and of the caller's side by side.
const SHARED: [&str; 3] = ["stream_options", "response_format", "tool_choice"];

pub(super) fn body(
    model: &str,
    request: &GenerateRequest,
    vendor: &Vendor,
) -> Result<Map<String, Value>, Error> {
    let mut body = Map::new();
    let mut notes = Vec::new();
    let format = match &request.response_format {
        Some(format) => response_format(format, vendor, &mut notes)?,
        None => None,
    };
    body.insert("model".into(), model.into());
    body.insert("messages".into(), messages::of(request, vendor, notes)?);
    body.insert("stream".into(), true.into());
    body.insert("stream_options".into(), json!({"include_usage": true}));
    sampling(request.sampling.as_ref(), vendor, &mut body);
    if !request.tools.is_empty() {
        let tools: Result<Vec<_>, _> = request.tools.iter().enumerate().map(tool).collect();
        body.insert("tools".into(), tools?.into());
    }
    if let Some(choice) = &request.tool_choice {
        tool_choice(choice, vendor, &mut body);
    }
    body.extend(format.map(|format| ("response_format".into(), format)));
    extra::merge(&mut body, extra::object("extra_json", &request.extra_json)?, &SHARED);
    if !vendor.stream_options {
        body.shift_remove("stream_options");
    }
    Ok(body)
}

fn tool((index, tool): (usize, &ToolDefinition)) -> Result<Value, Error> {
    let own = extra::object(&format!("tools[{index}].extra_json"), &tool.extra_json)?;
    if tool.name.is_empty() {
        return Ok(own.into());
    }
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
    let function = [("type".to_owned(), "function".into()), ("function".to_owned(), function)];
    let mut object = Map::from_iter(function);
    extra::merge(&mut object, own, &["function"]);
    Ok(object.into())
}

fn tool_choice(choice: &ToolChoice, vendor: &Vendor, body: &mut Map<String, Value>) {
    let value: Option<Value> = match &choice.choice {
        Some(tool_choice::Choice::Tool(name)) => {
            Some(json!({"type": "function", "function": {"name": name}}))
        }
        Some(tool_choice::Choice::Mode(mode)) => match tool_choice::Mode::try_from(*mode) {
            Ok(tool_choice::Mode::None) => Some("none".into()),
            Ok(tool_choice::Mode::Auto) => Some("auto".into()),
            Ok(tool_choice::Mode::Required) => Some(vendor.required.into()),
            Ok(tool_choice::Mode::Unspecified) | Err(_) => None,
        },
        None => None,
    };
    body.extend(value.map(|value| ("tool_choice".into(), value)));
    body.extend(choice.parallel.map(|parallel| ("parallel_tool_calls".into(), parallel.into())));
}

/// `notes` are added to the instructions.
fn response_format(
    format: &ResponseFormat,
    vendor: &Vendor,
    notes: &mut Vec<String>,
) -> Result<Option<Value>, Error> {
    Ok(match &format.format {
        Some(Format::Text(true)) => Some(json!({"type": "text"})),
        Some(Format::JsonObject(true)) => Some(json!({"type": "json_object"})),
        Some(Format::JsonSchema(wanted)) if vendor.json_schema => {
            Some(json!({"type": "json_schema", "json_schema": json_schema(wanted)?}))
        }
        Some(Format::JsonSchema(wanted)) => {
            let wanted = json_schema(wanted)?;
            let schema = wanted.get("schema").unwrap_or(&Value::Null);
            notes.push(format!("Answer with a JSON object that fits this JSON Schema: {schema}"));
            Some(json!({"type": "json_object"}))
        }
        Some(Format::Text(false) | Format::JsonObject(false)) | None => None,
    })
}

fn json_schema(wanted: &JsonSchema) -> Result<Value, Error> {
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
    Ok(inner)
}

fn schema(text: &str, field: impl Fn() -> String) -> Result<Value, Error> {
    serde_json::from_str(text)
        .map_err(|error| Error::invalid(field(), format!("is not JSON: {error}")))
}

fn sampling(sampling: Option<&Sampling>, vendor: &Vendor, body: &mut Map<String, Value>) {
    let Some(sampling) = sampling else { return };
    let mut set = |name: &str, value: Option<Value>| {
        body.extend(value.map(|value| (name.to_owned(), value)));
    };
    set(vendor.max_tokens, sampling.max_tokens.map(Value::from));
    set("temperature", sampling.temperature.map(Value::from));
    set("top_p", sampling.top_p.map(Value::from));
    set("stop", (!sampling.stop.is_empty()).then(|| json!(sampling.stop)));
    set(vendor.seed, sampling.seed.map(Value::from));
    set("frequency_penalty", sampling.frequency_penalty.map(Value::from));
    set("presence_penalty", sampling.presence_penalty.map(Value::from));
    set("n", sampling.n.map(Value::from));
    let effort = &sampling.reasoning_effort;
    set("reasoning_effort", (!effort.is_empty()).then(|| effort.as_str().into()));
}
