//! Pairs of files beside this one: `*.request.json` holds a request of ours and
//! the provider's, `*.stream.txt` with `*.events.json` a stream and our events.

use super::{OpenAi, Provider};
use crate::{
    config::{Kind, ProviderSettings, Timers},
    error::Error,
    provider::Event,
    sse,
};
use serde_json::{Value, json};
use skein_proto::model::v1::{
    ContentPart, FinishReason, GenerateRequest, Image, JsonSchema, Message, Passage,
    ResponseFormat, Role, Sampling, ToolCall, ToolChoice, ToolDefinition, content_part::Part,
    delta::Piece, image::Source, response_format::Format, tool_choice,
};
use std::collections::BTreeMap;

pub(super) fn provider(base_url: &str) -> OpenAi {
    provider_of("openai", base_url, None)
}

pub(super) fn provider_of(name: &str, base_url: &str, version: Option<&str>) -> OpenAi {
    let timer = std::time::Duration::from_secs(1);
    OpenAi::new(&ProviderSettings {
        name: name.into(),
        kind: Kind::OpenAi,
        base_url: base_url.to_owned(),
        keys: vec![mesh::config::Secret::new("sk-test")],
        variable: "OPENAI_API_KEY",
        version: version.map(str::to_owned),
        beta: None,
        timers: Timers { connect: timer, first_token: timer, idle: timer, total: timer },
        patience: crate::config::Patience::default(),
    })
    .unwrap()
}

pub(super) fn decoder() -> Box<dyn crate::provider::Decoder> {
    let request = GenerateRequest::default();
    provider("http://127.0.0.1:1").generate("m", &request).unwrap().decoder
}

fn body(base_url: &str, request: &GenerateRequest) -> Value {
    let provider = provider(base_url);
    let mut request = provider.generate("m", request).unwrap().request;
    assert!(request.headers().get("authorization").is_none(), "no translator sees a key");
    provider.keys()[0].put(request.headers_mut());
    assert_eq!(request.headers()["authorization"], "Bearer sk-test");
    serde_json::from_slice(request.body()).unwrap()
}

fn say(role: Role, text: &str) -> Message {
    let content =
        vec![ContentPart { part: Some(Part::Text(text.to_owned())), ..ContentPart::default() }];
    Message { role: role.into(), content, ..Message::default() }
}

fn everything() -> GenerateRequest {
    let picture = Image {
        source: Some(Source::Data(vec![1, 2, 3].into())),
        media_type: "image/png".to_owned(),
        detail: "low".to_owned(),
    };
    let mut question = say(Role::User, "What is this?");
    question
        .content
        .push(ContentPart { part: Some(Part::Image(picture)), ..ContentPart::default() });
    let call = ToolCall {
        id: "call_1".into(),
        name: "look".into(),
        arguments_json: "{}".into(),
        ..ToolCall::default()
    };
    GenerateRequest {
        messages: vec![
            say(Role::System, "Be brief."),
            question,
            Message { role: Role::Assistant.into(), tool_calls: vec![call], ..Message::default() },
            Message { tool_call_id: "call_1".into(), ..say(Role::Tool, "a goose") },
        ],
        sampling: Some(Sampling {
            max_tokens: Some(9),
            temperature: Some(0.5),
            stop: vec!["END".into()],
            seed: Some(7),
            n: Some(2),
            ..Sampling::default()
        }),
        tools: vec![ToolDefinition {
            name: "look".into(),
            description: "Looks".into(),
            parameters_json: r#"{"type":"object"}"#.into(),
            strict: true,
            ..ToolDefinition::default()
        }],
        tool_choice: Some(ToolChoice {
            choice: Some(tool_choice::Choice::Tool("look".into())),
            parallel: Some(false),
        }),
        response_format: Some(ResponseFormat {
            format: Some(Format::JsonSchema(JsonSchema {
                name: "bird".into(),
                schema_json: r#"{"type":"object"}"#.into(),
                strict: true,
                description: String::new(),
            })),
        }),
        passages: vec![Passage {
            title: "Birds".into(),
            text: "Geese fly in a skein.".into(),
            ..Passage::default()
        }],
        extra_json: r#"{"user":"u1","n":8,"model":"x","stream":false,
            "stream_options":{"include_obfuscation":false,"include_usage":false}}"#
            .into(),
        ..GenerateRequest::default()
    }
}

#[test]
fn a_request_says_everything_and_extra_replaces_nothing() {
    let expected: Value = serde_json::from_str(include_str!("everything.request.json")).unwrap();
    assert_eq!(body("https://api.openai.com/v1", &everything()), expected);
}

#[test]
fn compatible_servers_are_told_max_tokens() {
    let body = body("http://127.0.0.1:1/v1/", &everything());
    assert_eq!((&body["max_tokens"], &body["max_completion_tokens"]), (&json!(9), &Value::Null));
}

#[test]
fn what_was_not_said_is_not_sent() {
    let request = GenerateRequest { messages: vec![say(Role::User, "hi")], ..Default::default() };
    let expected = json!({
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    assert_eq!(body("http://127.0.0.1:1", &request), expected);
}

/// Decodes a stream cut into these pieces.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, Result<(), Error>) {
    let (mut parser, mut events) = (sse::Parser::default(), Vec::new());
    let mut decoder = decoder();
    let outcome = (|| {
        for piece in pieces {
            let mut data = Vec::new();
            parser.push(piece, &mut data).unwrap();
            for data in data {
                decoder.push(&data, &mut events)?;
            }
        }
        decoder.end(&mut events)
    })();
    (events, outcome)
}

/// What a reader of the events ends up with.
#[derive(Default)]
struct Joined {
    text: BTreeMap<u32, String>,
    refusal: String,
    calls: BTreeMap<(u32, u32), (String, String, String)>,
    finished: usize,
    reasons: Vec<FinishReason>,
    usage: (i64, i64, bool),
}

fn join(events: &[Event]) -> Joined {
    let mut joined = Joined::default();
    for event in events {
        assert_eq!(joined.finished, 0, "something after the last event");
        match event {
            Event::Delta(delta) => match &delta.piece {
                Some(Piece::Text(text)) => {
                    joined.text.entry(delta.choice).or_default().push_str(text);
                }
                Some(Piece::Refusal(text)) => joined.refusal.push_str(text),
                Some(Piece::ToolCall(piece)) => {
                    let call = joined.calls.entry((delta.choice, piece.index)).or_default();
                    call.0.push_str(&piece.id);
                    call.1.push_str(&piece.name);
                    call.2.push_str(&piece.arguments);
                }
                _ => {}
            },
            Event::Finished(finished) => {
                joined.finished += 1;
                joined.reasons = finished
                    .choices
                    .iter()
                    .map(skein_proto::model::v1::Choice::finish_reason)
                    .collect();
                let usage = finished.usage.unwrap_or_default();
                let input = usage.input_uncached + usage.input_cache_read + usage.input_cache_write;
                joined.usage = (input, usage.output, finished.usage.is_none());
            }
            Event::Progress(_) | Event::Image(_) => panic!("a picture in a chat"),
        }
    }
    joined
}

#[test]
fn a_cut_stream_is_an_error_and_an_error_in_it_too() {
    use mesh::error::ServiceError as _;
    let begun = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
    for (rest, reason) in [
        ("", "STREAM_CUT"),
        ("data: [DONE]\n\n", "STREAM_CUT"),
        (
            "data: {\"error\":{\"message\":\"no\",\"code\":\"server_error\"}}\n\n",
            "PROVIDER_UNAVAILABLE",
        ),
        ("data: {\"error\":{\"code\":\"rate_limit_exceeded\"}}\n\n", "PROVIDER_RATE_LIMITED"),
        ("data: {\"error\":{\"code\":\"insufficient_quota\"}}\n\n", "PROVIDER_QUOTA"),
        ("data: <html>\n\n", "PROVIDER_MALFORMED"),
    ] {
        let (events, outcome) = decode([begun.as_bytes(), rest.as_bytes()]);
        assert_eq!(outcome.unwrap_err().reason(), Some(reason));
        assert_eq!(events.len(), 1);
    }
}

#[test]
fn calls_are_joined_however_they_are_numbered() {
    let (events, outcome) = decode([include_bytes!("calls.stream.txt").as_slice()]);
    outcome.unwrap();
    let joined = join(&events);
    let calls: Vec<_> = joined
        .calls
        .values()
        .map(|(id, name, arguments)| (id.as_str(), name.as_str(), arguments.as_str()))
        .collect();
    assert_eq!(calls, [("a", "first", "{\"x\":1}"), ("b", "second", "{}")]);
    assert_eq!(joined.reasons, [FinishReason::ToolCalls]);
}

#[test]
fn broken_arguments_are_told() {
    let call = |index: u32, arguments: &str| json!({"index": index, "id": format!("c{index}"), "function": {"name": "f", "arguments": arguments}});
    let calls = [call(0, "{\"x\":"), call(1, "{}"), call(2, "[]"), call(3, "")];
    let answer = json!({"choices": [{"index": 0, "finish_reason": "length",
        "message": {"role": "assistant", "tool_calls": calls}}]});
    let mut events = Vec::new();
    decoder().whole(answer.to_string().as_bytes(), &mut events).unwrap();
    let Some(Event::Finished(finished)) = events.last() else { panic!("no last event") };
    assert_eq!(finished.choices[0].broken_tool_calls, [0, 2]);
}

#[test]
fn a_whole_answer_reads_like_its_stream() {
    let answer = json!({"id": "c", "choices": [{"index": 0, "finish_reason": "stop",
        "message": {"role": "assistant", "content": "hi", "annotations": []}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 4}}, "service_tier": "default"});
    let mut decoder = decoder();
    let mut events = Vec::new();
    decoder.whole(answer.to_string().as_bytes(), &mut events).unwrap();
    let joined = join(&events);
    assert_eq!((joined.text[&0].as_str(), joined.usage), ("hi", (10, 2, false)));
    let Some(Event::Finished(finished)) = events.last() else { panic!("no last event") };
    let usage = finished.usage.as_ref().unwrap();
    assert_eq!((usage.input_uncached, usage.input_cache_read), (6, 4));
    assert_eq!(finished.extra_json, r#"{"service_tier":"default"}"#);
}
