//! Requests, checked once, when they are received.
//!
//! Invariant: what passes here needs no second look; what does not names the
//! field and what would be right.

use crate::error::Error;
use skein_proto::model::v1::{
    ContentPart, EmbedRequest, GenerateImageRequest, GenerateRequest, Message, Role, Sampling,
    content_part::Part, embed_input::Input, image::Source,
};

const MOST_INPUTS: usize = 2048;
const MOST_IMAGES: i32 = 10;
const MOST_METADATA: usize = 64;

pub fn generate(request: &GenerateRequest) -> Result<(), Error> {
    if request.messages.is_empty() {
        return Err(Error::invalid("messages", "must hold at least one message"));
    }
    for (index, message) in request.messages.iter().enumerate() {
        self::message(index, message)?;
    }
    if let Some(sampling) = &request.sampling {
        self::sampling(sampling)?;
    }
    for (index, tool) in request.tools.iter().enumerate() {
        let field = |name: &str| format!("tools[{index}].{name}");
        object(&field("extra_json"), &tool.extra_json)?;
        // One of the provider's own is described in its own words alone.
        if tool.name.is_empty() && tool.extra_json.is_empty() {
            return Err(Error::invalid(field("name"), "must not be empty"));
        }
        if !tool.parameters_json.is_empty() {
            object(&field("parameters_json"), &tool.parameters_json)?;
        }
    }
    if request.metadata.len() > MOST_METADATA {
        let message =
            format!("holds {} entries, at most {MOST_METADATA} are taken", request.metadata.len());
        return Err(Error::invalid("metadata", message));
    }
    object("extra_json", &request.extra_json)
}

pub fn embed(request: &EmbedRequest) -> Result<(), Error> {
    let count = request.inputs.len();
    if !(1..=MOST_INPUTS).contains(&count) {
        return Err(Error::invalid(
            "inputs",
            format!("must hold 1 to {MOST_INPUTS}, holds {count}"),
        ));
    }
    for (index, input) in request.inputs.iter().enumerate() {
        let empty = match &input.input {
            Some(Input::Text(text)) => text.is_empty(),
            Some(Input::Tokens(tokens)) => tokens.ids.is_empty(),
            None => true,
        };
        if empty {
            return Err(Error::invalid(format!("inputs[{index}]"), "must not be empty"));
        }
    }
    if let Some(dimensions) = request.dimensions
        && dimensions < 1
    {
        return Err(Error::invalid("dimensions", format!("must be at least 1, is {dimensions}")));
    }
    object("extra_json", &request.extra_json)
}

pub fn image(request: &GenerateImageRequest) -> Result<(), Error> {
    if request.prompt.trim().is_empty() {
        return Err(Error::invalid("prompt", "must not be empty"));
    }
    if !(0..=MOST_IMAGES).contains(&request.n) {
        let message = format!("must be 1 to {MOST_IMAGES}, is {}", request.n);
        return Err(Error::invalid("n", message));
    }
    object("extra_json", &request.extra_json)
}

fn message(index: usize, message: &Message) -> Result<(), Error> {
    let field = |name: &str| format!("messages[{index}].{name}");
    let role = Role::try_from(message.role).unwrap_or_default();
    if role == Role::Unspecified {
        return Err(Error::invalid(
            field("role"),
            "must be one of SYSTEM, DEVELOPER, USER, ASSISTANT, TOOL",
        ));
    }
    if role == Role::Tool && message.tool_call_id.is_empty() {
        return Err(Error::invalid(
            field("tool_call_id"),
            "must name the call that this message answers",
        ));
    }
    if role != Role::Assistant && !message.tool_calls.is_empty() {
        return Err(Error::invalid(field("tool_calls"), "only an ASSISTANT message makes calls"));
    }
    // Assistants and systems may have said nothing; a user who does asks nothing.
    let blank = |part: &ContentPart| match &part.part {
        Some(Part::Text(text)) => role == Role::User && text.trim().is_empty(),
        Some(Part::Image(_) | Part::Audio(_)) | None => false, // None is refused below
    };
    let says = !message.content.iter().all(blank)
        || !message.tool_calls.is_empty()
        || !message.refusal.is_empty();
    if !says && role != Role::Tool {
        return Err(Error::invalid(field("content"), "must not be empty"));
    }
    for (at, part) in message.content.iter().enumerate() {
        let field = || format!("messages[{index}].content[{at}]");
        object(&format!("{}.extra_json", field()), &part.extra_json)?;
        match &part.part {
            None if part.extra_json.is_empty() => {
                return Err(Error::invalid(field(), "must be text, image or audio"));
            }
            Some(Part::Image(image)) => match &image.source {
                Some(Source::Url(url))
                    if !url.starts_with("https://")
                        && !url.starts_with("http://")
                        && !url.starts_with("data:") =>
                {
                    return Err(Error::invalid(
                        field(),
                        "an image's url must begin with https: or data:",
                    ));
                }
                None => return Err(Error::invalid(field(), "an image needs a url or data")),
                Some(_) => {}
            },
            Some(Part::Text(_) | Part::Audio(_)) | None => {}
        }
    }
    object(&field("extra_json"), &message.extra_json)
}

fn sampling(sampling: &Sampling) -> Result<(), Error> {
    if let Some(count) = sampling.max_tokens
        && count < 1
    {
        return Err(Error::invalid(
            "sampling.max_tokens",
            format!("must be at least 1, is {count}"),
        ));
    }
    if let Some(choices) = sampling.n
        && !(1..=8).contains(&choices)
    {
        return Err(Error::invalid("sampling.n", format!("must be 1 to 8, is {choices}")));
    }
    if sampling.stop.len() > 4 || sampling.stop.iter().any(String::is_empty) {
        return Err(Error::invalid(
            "sampling.stop",
            "must hold at most 4 texts, none of them empty",
        ));
    }
    for (name, value, low, high) in [
        ("temperature", sampling.temperature, 0.0, 2.0),
        ("top_p", sampling.top_p, f64::MIN_POSITIVE, 1.0),
        ("frequency_penalty", sampling.frequency_penalty, -2.0, 2.0),
        ("presence_penalty", sampling.presence_penalty, -2.0, 2.0),
    ] {
        // NaN is in no range.
        if let Some(value) = value
            && !(low..=high).contains(&value)
        {
            let low = if low == f64::MIN_POSITIVE { "above 0".to_owned() } else { low.to_string() };
            return Err(Error::invalid(
                format!("sampling.{name}"),
                format!("must be {low} to {high}, is {value}"),
            ));
        }
    }
    Ok(())
}

/// Empty, or a JSON object.
fn object(field: &str, text: &str) -> Result<(), Error> {
    let parsed = || serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text);
    if text.is_empty() || parsed().is_ok() {
        return Ok(());
    }
    Err(Error::invalid(field, "must be a JSON object"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::error::ServiceError as _;
    use skein_proto::model::v1::{ContentPart, EmbedInput, TokenIds, ToolDefinition};

    fn asked() -> GenerateRequest {
        let content =
            vec![ContentPart { part: Some(Part::Text("hi".into())), ..ContentPart::default() }];
        let message = Message { role: Role::User.into(), content, ..Message::default() };
        GenerateRequest { messages: vec![message], ..GenerateRequest::default() }
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(generate(&asked()).is_ok());
        let extra_json = r#"{"type":"of the dialect's own"}"#.to_owned();
        let mut own = asked();
        own.messages[0].content[0] = ContentPart { part: None, extra_json: extra_json.clone() };
        own.tools = vec![ToolDefinition { extra_json, ..ToolDefinition::default() }];
        assert!(generate(&own).is_ok());
        let wrong = |change: fn(&mut GenerateRequest)| {
            let mut request = asked();
            request.sampling = Some(Sampling::default());
            change(&mut request);
            generate(&request).unwrap_err().field().map(str::to_owned).unwrap()
        };
        assert_eq!(wrong(|r| r.messages.clear()), "messages");
        assert_eq!(wrong(|r| r.messages[0].role = 0), "messages[0].role");
        assert_eq!(wrong(|r| r.messages[0].role = 77), "messages[0].role");
        assert_eq!(wrong(|r| r.messages[0].content.clear()), "messages[0].content");
        assert_eq!(wrong(|r| r.messages[0].role = Role::Tool.into()), "messages[0].tool_call_id");
        assert_eq!(wrong(|r| r.extra_json = "[1]".into()), "extra_json");
        assert_eq!(wrong(|r| r.messages[0].extra_json = "1".into()), "messages[0].extra_json");
        assert_eq!(wrong(|r| r.messages[0].content[0].part = None), "messages[0].content[0]");
        assert_eq!(wrong(|r| r.tools = vec![ToolDefinition::default()]), "tools[0].name");
        assert_eq!(
            wrong(|r| r.sampling = Some(Sampling { max_tokens: Some(-1), ..Sampling::default() })),
            "sampling.max_tokens"
        );
        assert_eq!(
            wrong(|r| r.sampling =
                Some(Sampling { temperature: Some(f64::NAN), ..Sampling::default() })),
            "sampling.temperature"
        );
        assert_eq!(
            wrong(|r| r.sampling = Some(Sampling { n: Some(9), ..Sampling::default() })),
            "sampling.n"
        );
    }

    #[test]
    fn empty_inputs_are_named() {
        let input = |text: &str| EmbedInput { input: Some(Input::Text(text.into())) };
        let fails = |inputs: Vec<EmbedInput>| {
            let request = EmbedRequest { inputs, ..EmbedRequest::default() };
            embed(&request).unwrap_err().field().map(str::to_owned).unwrap()
        };
        assert_eq!(fails(vec![]), "inputs");
        assert_eq!(fails(vec![input("a"), input("")]), "inputs[1]");
        let none = EmbedInput { input: Some(Input::Tokens(TokenIds::default())) };
        assert_eq!(fails(vec![none]), "inputs[0]");
    }
}
