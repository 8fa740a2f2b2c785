//! What each vendor is sent differently, and where.

use super::{golden::provider_of as provider, *};
use serde_json::json;
use skein_proto::model::v1::{
    ContentPart, JsonSchema, Message, ResponseFormat, Role, Sampling, ToolCall, ToolChoice,
    content_part::Part, response_format::Format, tool_choice,
};

/// Says a little of all that differs.
fn request() -> GenerateRequest {
    let say = |role: Role, text: &str| Message {
        role: role.into(),
        content: vec![ContentPart {
            part: Some(Part::Text(text.to_owned())),
            ..ContentPart::default()
        }],
        ..Message::default()
    };
    let call = ToolCall {
        id: "call_123".into(),
        name: "f".into(),
        arguments_json: "{}".into(),
        ..ToolCall::default()
    };
    let schema = JsonSchema { schema_json: "{}".into(), name: "s".into(), ..JsonSchema::default() };
    GenerateRequest {
        messages: vec![
            say(Role::Developer, "be brief"),
            Message {
                tool_calls: vec![call],
                extra_json: r#"{"reasoning_content":"hm","anthropic":{"x":1},"own":2}"#.into(),
                ..say(Role::Assistant, "")
            },
            Message { tool_call_id: "call_123".into(), ..say(Role::Tool, "42") },
        ],
        sampling: Some(Sampling { max_tokens: Some(9), seed: Some(7), ..Sampling::default() }),
        tool_choice: Some(ToolChoice {
            choice: Some(tool_choice::Choice::Mode(tool_choice::Mode::Required.into())),
            parallel: None,
        }),
        response_format: Some(ResponseFormat { format: Some(Format::JsonSchema(schema)) }),
        ..GenerateRequest::default()
    }
}

fn body(provider: &OpenAi) -> Value {
    serde_json::from_slice(provider.generate("m", &request()).unwrap().request.body()).unwrap()
}

/// Name, address, and what the request then says: the field of the limit, whether
/// usage is asked for, who a developer is, the word for a tool that has to be
/// called, the field of the seed, the format for a schema, the field of reasoning.
const WORDS: [(&str, &str, &str); 11] = [
    (
        "openai",
        "https://api.openai.com/v1",
        "max_completion_tokens usage developer required seed json_schema -",
    ),
    (
        "openai",
        "http://127.0.0.1:1",
        "max_tokens usage system required seed json_schema reasoning_content",
    ),
    (
        "azure",
        "https://x.openai.azure.com",
        "max_completion_tokens usage developer required seed json_schema -",
    ),
    (
        "groq",
        "https://api.groq.com/openai/v1",
        "max_completion_tokens usage system required seed json_schema reasoning",
    ),
    ("mistral", "http://mistral.lan/v1", "max_tokens - system any random_seed json_schema -"),
    (
        "deepseek",
        "https://api.deepseek.com/v1",
        "max_tokens usage system required seed json_object reasoning_content",
    ),
    (
        "xai",
        "https://api.x.ai/v1",
        "max_completion_tokens usage system required seed json_schema -",
    ),
    (
        "together",
        "https://api.together.xyz/v1",
        "max_tokens usage system required seed json_schema reasoning_content",
    ),
    (
        "ollama",
        "http://box:11434/v1",
        "max_tokens usage system required seed json_schema reasoning_content",
    ),
    ("lab", "https://api.mistral.ai/v1", "max_tokens - system any random_seed json_schema -"),
    (
        "lab",
        "https://evilapi.openai.com/v1",
        "max_tokens usage system required seed json_schema reasoning_content",
    ),
];

#[test]
fn each_vendor_is_spoken_to_in_its_own_words() {
    for (name, base, expected) in WORDS {
        let body = body(&provider(name, base, None));
        let first = |names: &[&str], within: &Value| {
            let found = names.iter().find(|name| !within[**name].is_null());
            (*found.unwrap_or(&"-")).to_owned()
        };
        let messages = body["messages"].as_array().unwrap();
        let assistant = messages.iter().find(|message| message["role"] == "assistant").unwrap();
        let words = [
            first(&["max_tokens", "max_completion_tokens"], &body),
            first(&["stream_options"], &body).replace("stream_options", "usage"),
            messages[0]["role"].as_str().unwrap().to_owned(),
            body["tool_choice"].as_str().unwrap().to_owned(),
            first(&["seed", "random_seed"], &body),
            body["response_format"]["type"].as_str().unwrap().to_owned(),
            first(&["reasoning", "reasoning_content"], assistant),
        ];
        assert_eq!(words.join(" "), expected, "{name} {base}");
        assert_eq!((&assistant["own"], &assistant["anthropic"]), (&json!(2), &Value::Null));
    }
}

#[test]
fn a_schema_that_cannot_bind_is_told_in_words() {
    let body = body(&provider("deepseek", "https://api.deepseek.com/v1", None));
    let note = body["messages"][1]["content"].as_str().unwrap();
    assert_eq!(note, "Answer with a JSON object that fits this JSON Schema: {}");
}

#[test]
fn ids_of_calls_are_made_short_where_they_must_be() {
    let body = body(&provider("mistral", "https://api.mistral.ai/v1", None));
    let made = body["messages"][1]["tool_calls"][0]["id"].as_str().unwrap();
    assert!(made.len() == 9 && made.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{made}");
    assert_eq!(body["messages"][2]["tool_call_id"], made);
}

#[test]
fn azure_has_two_ways() {
    for (base, version, chat, list) in [
        ("https://x.azure.com", None, "/openai/v1/chat/completions", "/openai/v1/models"),
        (
            "https://x.azure.com/openai/v1",
            Some("v1"),
            "/openai/v1/chat/completions",
            "/openai/v1/models",
        ),
        (
            "https://x.azure.com/openai",
            Some("preview"),
            "/openai/v1/chat/completions?api-version=preview",
            "/openai/v1/models?api-version=preview",
        ),
        (
            "https://x.azure.com",
            Some("2024-10-21"),
            "/openai/deployments/m/chat/completions?api-version=2024-10-21",
            "/openai/models?api-version=2024-10-21",
        ),
    ] {
        let provider = provider("azure", base, version);
        let path = |request: &http::Request<Bytes>| {
            request.uri().to_string().strip_prefix("https://x.azure.com").unwrap().to_owned()
        };
        assert_eq!(path(&provider.generate("m", &request()).unwrap().request), chat);
        assert_eq!(path(&provider.list().unwrap().unwrap()), list);
        let mut headers = http::HeaderMap::new();
        provider.keys()[0].put(&mut headers);
        assert_eq!(
            (headers.get("api-key").unwrap(), headers.len()),
            (&"sk-test".parse().unwrap(), 1)
        );
    }
    let dated = provider("azure", "https://x.azure.com", Some("2024-10-21"));
    assert!(dated.generate("../secret?", &request()).is_err());
}

#[test]
fn errors_and_lists_name_their_own_provider() {
    let groq = provider("groq", "https://api.groq.com/openai/v1", None);
    let listed = groq.listed(br#"{"data":[{"id":"llama/x","created":7}]}"#).unwrap();
    assert_eq!((listed[0].id.as_str(), listed[0].provider.as_str()), ("groq/llama/x", "groq"));
    assert_eq!(groq.listed(br#"[{"id":"x"}]"#).unwrap()[0].id, "groq/x");
    assert!(groq.listed(b"{}").unwrap_err().to_string().starts_with("groq: "));
    let refused = groq.refusal(Failure::Unauthenticated, b"{}").to_string();
    assert_eq!(refused, "groq: the provider refuses our key: check OPENAI_API_KEY");
}
