//! Our request in the words of `POST /v1/messages`.
//!
//! Invariants:
//! - Nothing that changes the meaning of the answer is left out silently: what
//!   Anthropic has no notion of is refused by name. Hints (a seed, a participant's
//!   name, how closely to look at a picture) are left out.
//! - What was not said is not sent, but for `max_tokens`, which must be there:
//!   the most that the model can give, or [`SOME_TOKENS`] where that is unknown.
//! - The caller's own fields never replace ours.

use super::{
    NAME, messages,
    traits::{self, Thinks},
};
use crate::{error::Error, provider::extra};
use serde_json::{Map, Value, json};
use skein_proto::model::v1::{
    GenerateRequest, JsonSchema, ResponseFormat, Sampling, ToolChoice, ToolDefinition,
    response_format::Format, tool_choice,
};

/// `max_tokens` for a model whose limit nobody knows.
const SOME_TOKENS: i64 = 4096;
/// The least that a model thinks with.
const LEAST_THINKING: i64 = 1024;

/// Fields of OpenAI's dialect that change what an answer is.
const REFUSED: [&str; 9] = [
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "modalities",
    "audio",
    "web_search_options",
    "functions",
    "function_call",
    "moderation",
];
/// Fields of OpenAI's dialect that an answer is the same without.
const HINTS: [&str; 8] = [
    "store",
    "verbosity",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "stream_options",
    "safety_identifier",
    "user",
];
/// Holds fields of ours and of the caller's.
const SHARED: [&str; 1] = ["output_config"];

/// `most` is the model's limit on what it says, where it is known.
pub(super) fn body(
    model: &str,
    request: &GenerateRequest,
    most: Option<i64>,
) -> Result<Map<String, Value>, Error> {
    let mut extra = extra::object("extra_json", &request.extra_json)?;
    let traits = traits::of(model);
    let sampling = request.sampling.clone().unwrap_or_default();
    refuse(&sampling, &extra)?;
    let conversation = messages::conversation(request)?;
    let mut body = Map::new();
    body.insert("model".into(), model.into());
    let most = sampling.max_tokens.or(most).unwrap_or(SOME_TOKENS);
    body.insert("max_tokens".into(), most.into());
    if !conversation.system.is_empty() {
        body.insert("system".into(), conversation.system.into());
    }
    body.insert("messages".into(), conversation.messages.into());
    body.insert("stream".into(), true.into());
    if !sampling.stop.is_empty() {
        body.insert("stop_sequences".into(), json!(sampling.stop));
    }
    tools(request, &mut body)?;
    output(request.response_format.as_ref(), &mut body)?;
    // Who configures thinking in Anthropic's own words is left alone.
    let thinks = match extra.get("thinking") {
        Some(own) => own["type"] != "disabled",
        None => think(&sampling.reasoning_effort, traits.thinks, most, &mut body)?,
    };
    if traits.sampling && !thinks {
        choose(&sampling, &mut body)?;
    }
    user(&mut extra, &mut body);
    extra.retain(|name, _| !HINTS.contains(&name.as_str()) && !REFUSED.contains(&name.as_str()));
    // OpenAI's tiers are others.
    if !matches!(extra.get("service_tier").and_then(Value::as_str), Some("auto" | "standard_only"))
    {
        extra.remove("service_tier");
    }
    extra::merge(&mut body, extra, &SHARED);
    Ok(body)
}

fn refuse(sampling: &Sampling, extra: &Map<String, Value>) -> Result<(), Error> {
    let nothing = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(list) => list.is_empty() || list == &[json!("text")],
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::String(_) => false,
    };
    let asked =
        REFUSED.into_iter().find(|name| extra.get(*name).is_some_and(|value| !nothing(value)));
    let nonzero = |value: Option<f64>| value.is_some_and(|value| value != 0.0);
    let asked = asked
        .or_else(|| sampling.n.is_some_and(|n| n > 1).then_some("sampling.n"))
        .or_else(|| nonzero(sampling.frequency_penalty).then_some("sampling.frequency_penalty"))
        .or_else(|| nonzero(sampling.presence_penalty).then_some("sampling.presence_penalty"));
    match asked {
        Some(field) => Err(Error::invalid(
            field,
            format!("{NAME} has nothing like it: leave it out, or ask another provider"),
        )),
        None => Ok(()),
    }
}

fn tools(request: &GenerateRequest, body: &mut Map<String, Value>) -> Result<(), Error> {
    if request.tools.is_empty() {
        return Ok(());
    }
    let tools: Result<Vec<_>, _> = request.tools.iter().enumerate().map(tool).collect();
    body.insert("tools".into(), tools?.into());
    body.extend(
        request.tool_choice.as_ref().and_then(choice).map(|choice| ("tool_choice".into(), choice)),
    );
    Ok(())
}

fn tool((index, tool): (usize, &ToolDefinition)) -> Result<Value, Error> {
    let extra = extra::object(&format!("tools[{index}].extra_json"), &tool.extra_json)?;
    // Without a name it is one that Anthropic runs, in its own words.
    if tool.name.is_empty() {
        return Ok(extra.into());
    }
    let mut object = Map::new();
    object.insert("name".into(), tool.name.as_str().into());
    if !tool.description.is_empty() {
        object.insert("description".into(), tool.description.as_str().into());
    }
    let mut schema =
        extra::object(&format!("tools[{index}].parameters_json"), &tool.parameters_json)?;
    schema.entry("type").or_insert_with(|| "object".into());
    object.insert("input_schema".into(), schema.into());
    if tool.strict {
        object.insert("strict".into(), true.into());
    }
    extra::merge(&mut object, extra, &[]);
    Ok(object.into())
}

fn choice(choice: &ToolChoice) -> Option<Value> {
    use tool_choice::{Choice, Mode};
    let one_at_a_time = choice.parallel == Some(false);
    let mut object = match &choice.choice {
        Some(Choice::Tool(name)) => json!({"type": "tool", "name": name}),
        Some(Choice::Mode(mode)) => match Mode::try_from(*mode) {
            Ok(Mode::None) => return Some(json!({"type": "none"})),
            Ok(Mode::Required) => json!({"type": "any"}),
            Ok(Mode::Auto) => json!({"type": "auto"}),
            Ok(Mode::Unspecified) | Err(_) if one_at_a_time => json!({"type": "auto"}),
            Ok(Mode::Unspecified) | Err(_) => return None,
        },
        None if one_at_a_time => json!({"type": "auto"}),
        None => return None,
    };
    if one_at_a_time {
        object["disable_parallel_tool_use"] = true.into();
    }
    Some(object)
}

/// `output_config.format` is the API's own way to a schema; a tool that has to
/// be called, the way before there was one, would rule out real tools and
/// thinking. It is always strict, and has no names.
fn output(format: Option<&ResponseFormat>, body: &mut Map<String, Value>) -> Result<(), Error> {
    match format.and_then(|format| format.format.as_ref()) {
        Some(Format::JsonSchema(wanted)) => {
            let format = json!({"type": "json_schema", "schema": schema(wanted)?});
            body.insert("output_config".into(), json!({"format": format}));
            Ok(())
        }
        Some(Format::JsonObject(true)) => Err(Error::invalid(
            "response_format.json_object",
            format!("{NAME} needs to know which JSON: use json_schema"),
        )),
        Some(Format::Text(_) | Format::JsonObject(false)) | None => Ok(()),
    }
}

fn schema(wanted: &JsonSchema) -> Result<Value, Error> {
    let field = "response_format.json_schema.schema_json";
    if wanted.schema_json.is_empty() {
        return Err(Error::invalid(field, "must not be empty"));
    }
    let mut schema = extra::object(field, &wanted.schema_json)?;
    if !wanted.description.is_empty() {
        schema.entry("description").or_insert_with(|| wanted.description.as_str().into());
    }
    Ok(schema.into())
}

/// Whether the model is going to think because of it.
fn think(
    effort: &str,
    thinks: Thinks,
    most: i64,
    body: &mut Map<String, Value>,
) -> Result<bool, Error> {
    match (effort, thinks) {
        ("", _) | ("none", Thinks::Never) => Ok(false),
        (_, Thinks::Never) => {
            Err(Error::invalid("sampling.reasoning_effort", "this model does not reason"))
        }
        ("none", _) => {
            body.insert("thinking".into(), json!({"type": "disabled"}));
            Ok(false)
        }
        (effort, Thinks::Adaptive) => {
            let effort = if effort == "minimal" { "low" } else { effort };
            body.insert("thinking".into(), json!({"type": "adaptive"}));
            if let Value::Object(config) = body.entry("output_config").or_insert_with(|| json!({}))
            {
                config.insert("effort".into(), effort.into());
            }
            Ok(true)
        }
        (effort, Thinks::Budget) => {
            let budget = match effort {
                "minimal" | "low" => LEAST_THINKING,
                "medium" => 4 * LEAST_THINKING,
                _ => 16 * LEAST_THINKING,
            };
            // It is part of `max_tokens`, and something has to be left to say.
            let budget = budget.min(most / 2);
            let enough = budget >= LEAST_THINKING;
            if enough {
                let thinking = json!({"type": "enabled", "budget_tokens": budget});
                body.insert("thinking".into(), thinking);
            }
            Ok(enough)
        }
    }
}

/// For models that still take them, and not while they think.
fn choose(sampling: &Sampling, body: &mut Map<String, Value>) -> Result<(), Error> {
    if let Some(temperature) = sampling.temperature.filter(|temperature| *temperature > 1.0) {
        let message = format!("{NAME} takes 0 to 1, is {temperature}");
        return Err(Error::invalid("sampling.temperature", message));
    }
    for (name, value) in [("temperature", sampling.temperature), ("top_p", sampling.top_p)] {
        body.extend(value.map(|value| (name.to_owned(), value.into())));
    }
    Ok(())
}

/// Whom it is for, in OpenAI's words or in Anthropic's; OpenAI's `metadata` has
/// other entries, which are nobody's business there.
fn user(extra: &mut Map<String, Value>, body: &mut Map<String, Value>) {
    let metadata = extra.remove("metadata").unwrap_or_default();
    let user = [&metadata["user_id"]]
        .into_iter()
        .chain(["safety_identifier", "user"].into_iter().filter_map(|name| extra.get(name)))
        .find(|user| user.is_string());
    body.extend(user.map(|user| ("metadata".into(), json!({"user_id": user}))));
}
