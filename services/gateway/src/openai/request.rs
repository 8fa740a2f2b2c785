//! `POST /v1/chat/completions`: from the body to a [`GenerateRequest`].
//!
//! Invariants:
//! - Every field we name is checked here, so that a client hears OpenAI's own
//!   parameter name; all other fields pass in `extra_json`.
//! - `stream` and `stream_options.include_usage` say how *we* answer; they do
//!   not travel.

use super::{
    error::Refusal,
    fields::{Fields, wrong},
    message, tools,
};
use serde_json::Value;
use skein_proto::model::v1::{GenerateRequest, Sampling};
use std::collections::HashMap;

/// A parsed chat request.
#[derive(Debug)]
pub struct Chat {
    pub generate: GenerateRequest,
    pub stream: bool,
    pub include_usage: bool,
}

pub fn parse(body: &[u8]) -> Result<Chat, Refusal> {
    let body: Value = serde_json::from_slice(body).map_err(|error| Refusal::bad_json(&error))?;
    let mut fields = Fields::of(body, "")?;
    let model = fields.required_text("model")?;
    if model.is_empty() {
        return Err(fields.out_of_range("model", "empty", "the name of a model"));
    }
    let messages = fields.list("messages")?.ok_or_else(|| fields.missing("messages"))?;
    if messages.is_empty() {
        return Err(fields.out_of_range("messages", "empty", "at least one message"));
    }
    let messages = messages
        .into_iter()
        .enumerate()
        .map(|(index, value)| message::read(value, &format!("messages[{index}]")))
        .collect::<Result<Vec<_>, _>>()?;
    let stream = fields.flag("stream")?.unwrap_or_default();
    let include_usage = stream_options(&mut fields)?;
    let sampling = sampling(&mut fields)?;
    let tools = tools::tools(&mut fields)?;
    let tool_choice = tools::choice(&mut fields)?;
    let response_format = tools::format(&mut fields)?;
    let metadata = metadata(&mut fields)?;
    let generate = GenerateRequest {
        call_id: uuid::Uuid::now_v7().to_string(),
        model,
        messages,
        sampling: Some(sampling),
        tools,
        tool_choice,
        response_format,
        metadata,
        include_usage,
        extra_json: fields.extra(),
        ..GenerateRequest::default()
    };
    Ok(Chat { generate, stream, include_usage })
}

fn stream_options(fields: &mut Fields) -> Result<bool, Refusal> {
    let Some(options) = fields.take("stream_options") else { return Ok(false) };
    let mut options = Fields::of(options, "stream_options")?;
    let include_usage = options.flag("include_usage")?.unwrap_or_default();
    // Padding against eavesdroppers; the edge of Fly ends TLS, so it adds nothing.
    options.flag("include_obfuscation")?;
    let rest = options.rest();
    if !rest.is_empty() {
        fields.put_back("stream_options", rest.into());
    }
    Ok(include_usage)
}

fn sampling(fields: &mut Fields) -> Result<Sampling, Refusal> {
    let old = fields.integer_in("max_tokens", 1, i64::MAX)?;
    let max_tokens = fields.integer_in("max_completion_tokens", 1, i64::MAX)?.or(old);
    let n = fields.integer_in("n", 1, 8)?.and_then(|n| i32::try_from(n).ok());
    Ok(Sampling {
        max_tokens,
        temperature: fields.number_in("temperature", 0.0, 2.0)?,
        top_p: fields.number_in("top_p", 0.0, 1.0)?,
        stop: stop(fields)?,
        seed: fields.integer("seed")?,
        frequency_penalty: fields.number_in("frequency_penalty", -2.0, 2.0)?,
        presence_penalty: fields.number_in("presence_penalty", -2.0, 2.0)?,
        n,
        reasoning_effort: fields.text("reasoning_effort")?.unwrap_or_default(),
    })
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, Refusal> {
    let list = match fields.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => return Ok(vec![text]),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(wrong("stop", "a string or an array of strings", &other)),
    };
    if list.len() > 4 {
        return Err(fields.out_of_range("stop", &format!("{} long", list.len()), "at most 4 long"));
    }
    list.into_iter()
        .enumerate()
        .map(|(index, value)| match value {
            Value::String(text) => Ok(text),
            other => Err(wrong(&format!("stop[{index}]"), "a string", &other)),
        })
        .collect()
}

fn metadata(fields: &mut Fields) -> Result<HashMap<String, String>, Refusal> {
    let Some(value) = fields.take("metadata") else { return Ok(HashMap::new()) };
    let Value::Object(entries) = value else {
        return Err(wrong("metadata", "an object of strings", &value));
    };
    if entries.len() > 16 {
        let found = format!("{} entries", entries.len());
        return Err(fields.out_of_range("metadata", &found, "at most 16 entries"));
    }
    entries
        .into_iter()
        .map(|(name, value)| match value {
            Value::String(text) => Ok((name, text)),
            other => Err(wrong(&format!("metadata.{name}"), "a string", &other)),
        })
        .collect()
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
