//! Tools, tool choice and response format of a chat request.
//!
//! Invariants:
//! - What is of a kind we do not know reaches a provider of the same dialect:
//!   a tool as its own extra, a choice or a format as one of the request.
//! - So do unknown fields of known kinds, at their place.

use super::{
    error::Refusal,
    fields::{Fields, extra, nest, wrong},
};
use serde_json::{Map, Value};
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
        tool.put_back("type", kind.into());
        return Ok(ToolDefinition { extra_json: tool.extra(), ..ToolDefinition::default() });
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
    let mut rest = tool.rest();
    nest(&mut rest, "function", function.rest());
    Ok(ToolDefinition { name, description, parameters_json, strict, extra_json: extra(rest) })
}

pub(super) fn choice(fields: &mut Fields) -> Result<Option<ToolChoice>, Refusal> {
    let parallel = fields.flag("parallel_tool_calls")?;
    let choice = match fields.take("tool_choice") {
        None => None,
        Some(Value::String(word)) => Some(Choice::Mode(match word.as_str() {
            "none" => Mode::None.into(),
            "auto" => Mode::Auto.into(),
            "required" | "any" => Mode::Required.into(),
            other => {
                let wanted = "none, auto, required or an object";
                return Err(fields.out_of_range("tool_choice", &format!("{other:?}"), wanted));
            }
        })),
        Some(object) => match object["function"]["name"].as_str() {
            Some(name) => {
                let name = name.to_owned();
                let rest = beside_the_name(object);
                if !rest.is_empty() {
                    fields.put_back("tool_choice", rest.into());
                }
                Some(Choice::Tool(name))
            }
            None => {
                fields.put_back("tool_choice", object);
                None
            }
        },
    };
    Ok((choice.is_some() || parallel.is_some()).then_some(ToolChoice { choice, parallel }))
}

/// What a choice of one function says beyond its name.
fn beside_the_name(object: Value) -> Map<String, Value> {
    let Value::Object(mut choice) = object else { return Map::new() };
    choice.shift_remove("type");
    let function = choice.shift_remove("function");
    if let Some(Value::Object(mut function)) = function {
        function.shift_remove("name");
        nest(&mut choice, "function", function);
    }
    choice
}

pub(super) fn format(fields: &mut Fields) -> Result<Option<ResponseFormat>, Refusal> {
    let Some(value) = fields.take("response_format") else { return Ok(None) };
    let mut format = Fields::of(value, "response_format")?;
    let kind = format.required_text("type")?;
    let mut rest = Map::new();
    let known = match kind.as_str() {
        "text" => Format::Text(true),
        "json_object" => Format::JsonObject(true),
        "json_schema" => {
            let (schema, inner) = schema(&mut format)?;
            nest(&mut rest, "json_schema", inner);
            Format::JsonSchema(schema)
        }
        _ => {
            format.put_back("type", kind.into());
            fields.put_back("response_format", format.rest().into());
            return Ok(None);
        }
    };
    rest.extend(format.rest());
    if !rest.is_empty() {
        fields.put_back("response_format", rest.into());
    }
    Ok(Some(ResponseFormat { format: Some(known) }))
}

/// A schema, and what else was said beside it.
fn schema(format: &mut Fields) -> Result<(JsonSchema, Map<String, Value>), Refusal> {
    let inner = format.take("json_schema").ok_or_else(|| format.missing("json_schema"))?;
    let mut inner = Fields::of(inner, "response_format.json_schema")?;
    let name = inner.required_text("name")?;
    let schema_json = inner.take("schema").map(|schema| schema.to_string()).unwrap_or_default();
    let strict = inner.flag("strict")?.unwrap_or_default();
    let description = inner.text("description")?.unwrap_or_default();
    Ok((JsonSchema { name, schema_json, strict, description }, inner.rest()))
}
