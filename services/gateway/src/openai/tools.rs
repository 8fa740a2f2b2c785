//! Tools, tool choice and response format of a chat request.
//!
//! Invariants:
//! - A choice or format of a kind we do not know stays in the request's extras
//!   and reaches a provider of the same dialect; an unknown kind of tool beside
//!   known ones cannot, and is refused.

use super::{
    error::Refusal,
    fields::{Fields, wrong},
};
use serde_json::Value;
use skein_proto::model::v1::{
    JsonSchema, ResponseFormat, ToolChoice, ToolDefinition,
    response_format::Format,
    tool_choice::{Choice, Mode},
};

pub(super) fn tools(fields: &mut Fields) -> Result<Vec<ToolDefinition>, Refusal> {
    let tools = fields.list("tools")?.unwrap_or_default();
    let path = |index| format!("tools[{index}]");
    tools.into_iter().enumerate().map(|(index, value)| tool(value, &path(index))).collect()
}

fn tool(value: Value, path: &str) -> Result<ToolDefinition, Refusal> {
    let mut tool = Fields::of(value, path)?;
    let kind = tool.required_text("type")?;
    if kind != "function" {
        return Err(tool.out_of_range("type", &format!("{kind:?}"), "function"));
    }
    let value = tool.take("function").ok_or_else(|| tool.missing("function"))?;
    let mut function = Fields::of(value, &tool.path("function"))?;
    let name = function.required_text("name")?;
    let description = function.text("description")?.unwrap_or_default();
    let parameters_json = match function.take("parameters") {
        None => String::new(),
        Some(Value::Object(schema)) => Value::Object(schema).to_string(),
        Some(other) => return Err(wrong(&function.path("parameters"), "an object", &other)),
    };
    let strict = function.flag("strict")?.unwrap_or_default();
    function.nothing_else(&[])?;
    tool.nothing_else(&[])?;
    Ok(ToolDefinition { name, description, parameters_json, strict, ..ToolDefinition::default() })
}

pub(super) fn choice(fields: &mut Fields) -> Result<Option<ToolChoice>, Refusal> {
    let parallel = fields.flag("parallel_tool_calls")?;
    let choice = match fields.take("tool_choice") {
        None => None,
        Some(Value::String(word)) => Some(Choice::Mode(match word.as_str() {
            "none" => Mode::None.into(),
            "auto" => Mode::Auto.into(),
            "required" => Mode::Required.into(),
            other => {
                let wanted = "none, auto, required or an object";
                return Err(fields.out_of_range("tool_choice", &format!("{other:?}"), wanted));
            }
        })),
        Some(object) => match object["function"]["name"].as_str() {
            Some(name) => Some(Choice::Tool(name.to_owned())),
            None => {
                fields.put_back("tool_choice", object);
                None
            }
        },
    };
    Ok((choice.is_some() || parallel.is_some()).then_some(ToolChoice { choice, parallel }))
}

pub(super) fn format(fields: &mut Fields) -> Result<Option<ResponseFormat>, Refusal> {
    let Some(value) = fields.take("response_format") else { return Ok(None) };
    let format = match value["type"].as_str() {
        Some("text") => Format::Text(true),
        Some("json_object") => Format::JsonObject(true),
        Some("json_schema") => Format::JsonSchema(schema(value)?),
        Some(_) => {
            fields.put_back("response_format", value);
            return Ok(None);
        }
        None => {
            let path = "response_format.type";
            let message = format!("missing required parameter: {path}");
            return Err(Refusal::invalid(path, "missing_required_parameter", message));
        }
    };
    Ok(Some(ResponseFormat { format: Some(format) }))
}

fn schema(value: Value) -> Result<JsonSchema, Refusal> {
    let mut format = Fields::of(value, "response_format")?;
    let inner = format.take("json_schema").ok_or_else(|| format.missing("json_schema"))?;
    let mut inner = Fields::of(inner, "response_format.json_schema")?;
    let name = inner.required_text("name")?;
    let schema_json = inner.take("schema").map(|schema| schema.to_string()).unwrap_or_default();
    let strict = inner.flag("strict")?.unwrap_or_default();
    let description = inner.text("description")?.unwrap_or_default();
    inner.nothing_else(&[])?;
    Ok(JsonSchema { name, schema_json, strict, description })
}
