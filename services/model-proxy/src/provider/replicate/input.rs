//! Our requests as the `input` of a model.
//!
//! Invariants:
//! - A question alone is the prompt as it is. A conversation is rendered: each
//!   turn as `User: …` or `Assistant: …`, and the last line is `Assistant:`.
//! - What the dialect has no word for is refused by name and never dropped.
//! - `extra_json` adds inputs of the model's own and replaces none of ours.

use crate::{
    error::Error,
    provider::{extra, sources},
};
use serde_json::{Map, Value};
use skein_proto::model::v1::{
    GenerateImageRequest, GenerateRequest, Message, Role, Sampling, content_part::Part,
    response_format::Format, tool_choice,
};

/// The input, and the prompt in it.
pub(super) fn chat(request: &GenerateRequest) -> Result<(Map<String, Value>, String), Error> {
    refuse(request)?;
    let (mut system, mut turns) = (Vec::new(), Vec::new());
    for (index, message) in request.messages.iter().enumerate() {
        let text = text(message, index)?;
        match message.role() {
            Role::System | Role::Developer | Role::Unspecified => system.push(text),
            Role::User => turns.push(("User", text)),
            Role::Assistant => turns.push(("Assistant", text)),
            Role::Tool => return Err(no(format!("messages[{index}].role"), "tool messages")),
        }
    }
    if !request.passages.is_empty() {
        system.push(sources::instruction(&request.passages));
    }
    let prompt = match turns.as_slice() {
        [("User", question)] => question.clone(),
        turns => {
            let mut prompt = String::new();
            for (who, said) in turns {
                prompt.push_str(&format!("{who}: {said}\n"));
            }
            prompt + "Assistant:"
        }
    };
    let mut input = Map::new();
    input.insert("prompt".into(), prompt.as_str().into());
    if !system.is_empty() {
        input.insert("system_prompt".into(), system.join("\n\n").into());
    }
    if let Some(wanted) = &request.sampling {
        sampling(wanted, &mut input)?;
    }
    merge(&mut input, &request.extra_json)?;
    Ok((input, prompt))
}

pub(super) fn image(request: &GenerateImageRequest) -> Result<Map<String, Value>, Error> {
    let mut input = Map::new();
    input.insert("prompt".into(), request.prompt.as_str().into());
    if request.n > 1 {
        input.insert("num_outputs".into(), request.n.into());
    }
    let size = request.size.as_str();
    let sides = size.split_once('x').map(|(width, height)| (width.parse(), height.parse()));
    match sides {
        _ if size.is_empty() || size == "auto" => {}
        Some((Ok::<u32, _>(width), Ok::<u32, _>(height))) => {
            input.insert("width".into(), width.into());
            input.insert("height".into(), height.into());
        }
        _ if size.contains(':') => drop(input.insert("aspect_ratio".into(), size.into())),
        _ => drop(input.insert("size".into(), size.into())),
    }
    if !request.quality.is_empty() {
        input.insert("quality".into(), request.quality.as_str().into());
    }
    merge(&mut input, &request.extra_json)?;
    Ok(input)
}

fn refuse(request: &GenerateRequest) -> Result<(), Error> {
    let mode = request.tool_choice.as_ref().and_then(|choice| choice.choice.as_ref());
    let off = tool_choice::Choice::Mode(tool_choice::Mode::None.into());
    if !request.tools.is_empty() && mode != Some(&off) {
        return Err(no("tools", "tools"));
    }
    if request.sampling.as_ref().and_then(|sampling| sampling.n).is_some_and(|n| n > 1) {
        return Err(no("sampling.n", "more than one choice"));
    }
    match request.response_format.as_ref().and_then(|format| format.format.as_ref()) {
        Some(Format::JsonObject(true)) => Err(no("response_format", "JSON answers")),
        Some(Format::JsonSchema(_)) => Err(no("response_format", "JSON schemas")),
        Some(Format::Text(_) | Format::JsonObject(false)) | None => Ok(()),
    }
}

fn text(message: &Message, index: usize) -> Result<String, Error> {
    if !message.tool_calls.is_empty() {
        return Err(no(format!("messages[{index}].tool_calls"), "tools"));
    }
    let mut text = String::new();
    for (at, part) in message.content.iter().enumerate() {
        match &part.part {
            Some(Part::Text(piece)) => text.push_str(piece),
            Some(Part::Image(_) | Part::Audio(_)) | None => {
                let what = "pictures and sound in messages (a vision model takes an input of its \
                            own, such as {\"image\": \"https://…\"})";
                return Err(no(format!("messages[{index}].content[{at}]"), what));
            }
        }
    }
    text.push_str(&message.refusal);
    Ok(text)
}

fn sampling(sampling: &Sampling, input: &mut Map<String, Value>) -> Result<(), Error> {
    // One text, with commas between.
    if let Some(comma) = sampling.stop.iter().position(|stop| stop.contains(',')) {
        return Err(no(format!("sampling.stop[{comma}]"), "a comma in a stop text"));
    }
    let stop = sampling.stop.join(",");
    let effort = sampling.reasoning_effort.as_str();
    for (name, value) in [
        ("max_tokens", sampling.max_tokens.map(Value::from)),
        ("temperature", sampling.temperature.map(Value::from)),
        ("top_p", sampling.top_p.map(Value::from)),
        ("stop_sequences", (!stop.is_empty()).then(|| stop.into())),
        ("seed", sampling.seed.map(Value::from)),
        ("frequency_penalty", sampling.frequency_penalty.map(Value::from)),
        ("presence_penalty", sampling.presence_penalty.map(Value::from)),
        ("reasoning_effort", (!effort.is_empty()).then(|| effort.into())),
    ] {
        input.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(())
}

fn merge(input: &mut Map<String, Value>, extra_json: &str) -> Result<(), Error> {
    extra::merge(input, extra::object("extra_json", extra_json)?, &[]);
    Ok(())
}

fn no(field: impl Into<String>, what: &str) -> Error {
    Error::invalid(field, format!("replicate's models take no {what}"))
}
