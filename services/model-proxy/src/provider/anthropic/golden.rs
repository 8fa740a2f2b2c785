//! A request of ours and Anthropic's, in `everything.request.json`; what errors
//! and lists of models mean.

use super::{Anthropic, Provider};
use crate::{
    config::{Kind, ProviderSettings, Timers},
    error::{Error, Failure},
    price::Prices,
    provider::Decoder,
};
use serde_json::{Value, json};
use skein_proto::model::v1::{
    ContentPart, GenerateRequest, Image, JsonSchema, Message, Passage, ResponseFormat, Role,
    Sampling, ToolCall, ToolChoice, ToolDefinition, content_part::Part, image::Source,
    response_format::Format, tool_choice,
};
use std::sync::Arc;

pub(super) fn provider() -> Anthropic {
    let timer = std::time::Duration::from_secs(1);
    let settings = ProviderSettings {
        name: "anthropic".into(),
        kind: Kind::Anthropic,
        base_url: "http://127.0.0.1:1/v1".to_owned(),
        keys: vec![mesh::config::Secret::new("sk-ant-test")],
        variable: "ANTHROPIC_API_KEY",
        version: None,
        beta: Some("one,two".to_owned()),
        timers: Timers { connect: timer, first_token: timer, idle: timer, total: timer },
        patience: crate::config::Patience::default(),
    };
    Anthropic::new(&settings, Arc::new(Prices::built_in().unwrap())).unwrap()
}

pub(super) fn decoder() -> Box<dyn Decoder> {
    let request = GenerateRequest::default();
    provider().generate("m", &request).unwrap().decoder
}

pub(super) fn body(model: &str, request: &GenerateRequest) -> Result<Value, Error> {
    let request = provider().generate(model, request)?.request;
    Ok(serde_json::from_slice(request.body()).unwrap())
}

fn say(role: Role, text: &str) -> Message {
    let content =
        vec![ContentPart { part: Some(Part::Text(text.to_owned())), ..ContentPart::default() }];
    Message { role: role.into(), content, ..Message::default() }
}

pub(super) fn asked(sampling: Sampling) -> GenerateRequest {
    let (messages, sampling) = (vec![say(Role::User, "hi")], Some(sampling));
    GenerateRequest { messages, sampling, ..GenerateRequest::default() }
}

pub(super) fn effort(word: &str) -> Sampling {
    Sampling { reasoning_effort: word.into(), temperature: Some(0.5), ..Sampling::default() }
}

const MARK: &str = r#"{"cache_control":{"type":"ephemeral"}}"#;

pub(super) fn picture(source: Source, media_type: &str, extra_json: &str) -> ContentPart {
    let (media_type, detail) = (media_type.to_owned(), "low".to_owned());
    let image = Image { source: Some(source), media_type, detail };
    ContentPart { part: Some(Part::Image(image)), extra_json: extra_json.to_owned() }
}

fn conversation() -> Vec<Message> {
    let mut question = say(Role::User, "What is this?");
    let png = Source::Data(vec![0x89, b'P', b'N', b'G', 1, 2].into());
    let document =
        r#"{"type":"document","source":{"type":"text","media_type":"text/plain","data":"x"}}"#;
    question.content.extend([
        ContentPart { part: Some(Part::Text(String::new())), ..ContentPart::default() },
        picture(png, "", ""),
        picture(Source::Url("https://example.com/goose.jpg".into()), "", ""),
        picture(Source::Url("data:image/webp;base64,AQID".into()), "", MARK),
        ContentPart { part: None, extra_json: document.into() },
    ]);
    let call = |id: &str, arguments: &str| ToolCall {
        id: id.into(),
        name: "look".into(),
        arguments_json: arguments.into(),
        ..ToolCall::default()
    };
    let blocks = json!({"anthropic": {"content_blocks": [
        {"index": 3, "content_block": {"type": "tool_use", "id": "call_2", "name": "look",
            "input": {}, "caller": {"type": "direct"}}},
        {"index": 0, "content_block":
            {"type": "thinking", "thinking": "I should look.", "signature": "c2ln"}},
        {"index": 1, "content_block": {"type": "text", "citations": []}}]}});
    vec![
        Message { extra_json: MARK.into(), ..say(Role::System, "Be brief.") },
        question,
        Message {
            tool_calls: vec![call("call_1", r#"{"at":"goose"}"#), call("call_2", "")],
            extra_json: blocks.to_string(),
            name: "ann".into(),
            ..say(Role::Assistant, "I look.")
        },
        Message { tool_call_id: "call_1".into(), ..say(Role::Tool, "a goose") },
        Message {
            tool_call_id: "call_2".into(),
            extra_json: r#"{"is_error":true,"other":1}"#.into(),
            ..say(Role::Tool, "")
        },
        say(Role::Assistant, ""),
        say(Role::Developer, "Speak of birds."),
        say(Role::User, "And?"),
    ]
}

fn everything() -> GenerateRequest {
    let look = ToolDefinition {
        name: "look".into(),
        description: "Looks".into(),
        parameters_json: r#"{"properties":{}}"#.into(),
        strict: true,
        extra_json: MARK.into(),
    };
    let search = ToolDefinition {
        extra_json: r#"{"type":"web_search_20250305","name":"web_search"}"#.into(),
        ..ToolDefinition::default()
    };
    GenerateRequest {
        messages: conversation(),
        sampling: Some(Sampling {
            max_tokens: Some(9000),
            stop: vec!["END".into()],
            seed: Some(7),
            n: Some(1),
            ..effort("high")
        }),
        tools: vec![look, search],
        tool_choice: Some(ToolChoice {
            choice: Some(tool_choice::Choice::Tool("look".into())),
            parallel: Some(false),
        }),
        response_format: Some(ResponseFormat {
            format: Some(Format::JsonSchema(JsonSchema {
                name: "bird".into(),
                schema_json: r#"{"type":"object"}"#.into(),
                strict: true,
                description: "A bird".into(),
            })),
        }),
        passages: vec![Passage {
            title: "Birds".into(),
            text: "Geese fly in a skein.".into(),
            ..Passage::default()
        }],
        extra_json: r#"{"user":"u1","model":"x","stream":false,"top_k":5,"logit_bias":{},
            "metadata":{"order":"7"},"service_tier":"flex","store":true,
            "output_config":{"effort":"low","own":1}}"#
            .into(),
        ..GenerateRequest::default()
    }
}

#[test]
fn a_request_says_everything_and_extra_replaces_nothing() {
    let expected: Value = serde_json::from_str(include_str!("everything.request.json")).unwrap();
    assert_eq!(body("claude-sonnet-4-6", &everything()).unwrap(), expected);
}

#[test]
fn what_was_not_said_is_not_sent_but_for_the_limit() {
    let mut request = asked(Sampling::default());
    let expected = json!({
        "model": "claude-unheard-of",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "stream": true,
    });
    assert_eq!(body("claude-unheard-of", &request).unwrap(), expected);
    request.extra_json = r#"{"metadata":{"user_id":"u2"},"service_tier":"standard_only"}"#.into();
    let body = body("claude-unheard-of", &request).unwrap();
    assert_eq!(body["metadata"], json!({"user_id": "u2"}));
    assert_eq!(body["service_tier"], "standard_only");
}

#[test]
fn the_key_and_the_version_are_headers() {
    let provider = provider();
    let mut request = provider.generate("m", &asked(Sampling::default())).unwrap().request;
    assert_eq!(request.uri(), "http://127.0.0.1:1/v1/messages");
    assert_eq!(request.headers()["anthropic-version"], "2026-10-21");
    assert_eq!(request.headers()["anthropic-beta"], "one,two");
    assert!(request.headers().get("x-api-key").is_none(), "no translator sees a key");
    provider.keys()[0].put(request.headers_mut());
    assert_eq!(request.headers()["x-api-key"], "sk-ant-test");
}

#[test]
fn errors_mean_what_is_written_down() {
    let wait = Some(std::time::Duration::from_secs(7));
    let limited = Failure::RateLimited { retry_after: wait };
    for (status, kind, message, code, failure) in [
        (400, "invalid_request_error", "temperature: no", "", Failure::BadRequest),
        (
            400,
            "invalid_request_error",
            "prompt is too long: 2 tokens > 1 maximum",
            "",
            Failure::ContextLength,
        ),
        (400, "invalid_request_error", "Your credit balance is too low to", "", Failure::Quota),
        (
            400,
            "invalid_request_error",
            "You have reached your specified API usage limits",
            "",
            Failure::Quota,
        ),
        (
            400,
            "invalid_request_error",
            "Output blocked by content filtering policy",
            "",
            Failure::ContentFilter,
        ),
        (401, "authentication_error", "invalid x-api-key", "", Failure::Unauthenticated),
        (402, "billing_error", "no", "", Failure::Quota),
        (403, "permission_error", "no", "", Failure::Forbidden),
        (404, "not_found_error", "model: x", "", Failure::NotFound),
        (413, "request_too_large", "Request exceeds the maximum size", "", Failure::BadRequest),
        (413, "request_too_large", "prompt is too long", "", Failure::ContextLength),
        (429, "rate_limit_error", "slow", "", limited),
        (429, "rate_limit_error", "no more", "enforced_spend_limit_reached", Failure::Quota),
        (500, "api_error", "Internal", "", Failure::Unavailable),
        (504, "timeout_error", "late", "", Failure::Unavailable),
        (529, "overloaded_error", "Overloaded", "", Failure::Overloaded),
    ] {
        let error = json!({"type": kind, "message": message, "details": {"error_code": code}});
        let body = json!({"type": "error", "error": error, "request_id": "r"}).to_string();
        let meant = provider().refusal(Failure::of_status(status, wait), body.as_bytes());
        assert_eq!(meant.failure(), Some(failure), "{status} {message}");
        assert!(meant.to_string().contains(message), "{meant}");
    }
    let page = provider().refusal(Failure::Unavailable, b"<html>");
    assert_eq!(page.failure(), Some(Failure::Unavailable));
}

#[test]
fn models_are_listed_with_what_they_can() {
    let body = json!({"data": [{"type": "model", "id": "claude-x", "display_name": "X",
        "created_at": "2026-11-23T16:25:00Z", "max_input_tokens": 1000, "max_tokens": 64,
        "capabilities": {"image_input": {"supported": true}}}], "has_more": false});
    let models = provider().listed(body.to_string().as_bytes()).unwrap();
    let model = &models[0];
    assert_eq!((model.id.as_str(), model.created_unix), ("anthropic/claude-x", 1_795_451_100));
    assert_eq!((model.context_window, model.max_output), (1000, 64));
    assert_eq!(model.capabilities, [1, 5, 7]);
    assert_eq!(provider().list().unwrap().unwrap().uri().path(), "/v1/models");
    assert!(provider().listed(b"{}").is_err());
}
