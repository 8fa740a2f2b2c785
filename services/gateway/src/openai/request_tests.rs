//! What a chat request becomes, and how each wrong one is refused.

use super::parse;
use serde_json::{Value, json};
use skein_proto::model::v1::{
    Message, Role, content_part::Part, response_format::Format, tool_choice::Choice,
};

fn chat(more: Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    body
}

#[test]
fn everything_we_name_is_typed_and_the_rest_passes() {
    let body = json!({
        "model": "gpt", "stream": true, "stream_options": {"include_usage": true},
        "messages": [
            {"role": "developer", "content": "be brief"},
            {"role": "user", "name": "ann", "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
            ]},
            {"role": "assistant", "content": null, "refusal": null, "annotations": [], "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "42"},
        ],
        "max_completion_tokens": 7, "temperature": 0.5, "stop": "END", "n": 2, "seed": 3,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": true}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"a": 1}}},
        "metadata": {"team": "a"}, "logit_bias": {"1": 2}, "user": "u", "logprobs": true,
    });
    let chat = parse(body.to_string().as_bytes()).unwrap();
    assert!(chat.stream && chat.include_usage);
    let generate = chat.generate;
    let roles: Vec<_> = generate.messages.iter().map(Message::role).collect();
    assert_eq!(roles, [Role::Developer, Role::User, Role::Assistant, Role::Tool]);
    assert_eq!(generate.messages[1].content[0].part, Some(Part::Text("look".into())));
    assert_eq!(generate.messages[2].tool_calls[0].name, "f");
    let sampling = generate.sampling.unwrap();
    assert_eq!(
        (sampling.max_tokens, sampling.n, sampling.stop),
        (Some(7), Some(2), vec!["END".to_owned()])
    );
    assert_eq!(generate.tools[0].parameters_json, r#"{"type":"object"}"#);
    assert_eq!(generate.tool_choice.unwrap().choice, Some(Choice::Tool("f".into())));
    assert!(
        matches!(generate.response_format.unwrap().format, Some(Format::JsonSchema(s)) if s.schema_json == r#"{"a":1}"#)
    );
    assert_eq!(generate.extra_json, r#"{"logit_bias":{"1":2},"user":"u","logprobs":true}"#);
}

#[test]
fn a_wrong_field_is_named() {
    for (body, param) in [
        (json!({"messages": []}), "model"),
        (json!({"model": "m"}), "messages"),
        (json!({"model": "m", "messages": []}), "messages"),
        (json!({"model": 1, "messages": []}), "model"),
        (json!({"model": "m", "messages": [{"role": "king", "content": "x"}]}), "messages[0].role"),
        (json!({"model": "m", "messages": [{"role": "user"}]}), "messages[0].content"),
        (
            json!({"model": "m", "messages": [{"role": "tool", "content": "x"}]}),
            "messages[0].tool_call_id",
        ),
        (chat(json!({"max_tokens": -5})), "max_tokens"),
        (chat(json!({"max_tokens": 1.5})), "max_tokens"),
        (chat(json!({"temperature": 9})), "temperature"),
        (chat(json!({"n": 0})), "n"),
        (chat(json!({"stop": ["a", 1]})), "stop[1]"),
        (chat(json!({"stream": "yes"})), "stream"),
        (chat(json!({"tools": [{"type": "function", "function": {}}]})), "tools[0].function.name"),
        (chat(json!({"tool_choice": "perhaps"})), "tool_choice"),
        (chat(json!({"metadata": {"a": 1}})), "metadata.a"),
        (json!([1]), "body"),
    ] {
        let refusal = parse(body.to_string().as_bytes()).unwrap_err();
        assert_eq!(refusal.param.as_deref(), Some(param), "{body}");
        assert_eq!(refusal.status.as_u16(), 400, "{body}");
    }
}

#[test]
fn what_we_have_no_name_for_stays_at_its_place() {
    let film = json!({"type": "film", "film": {"url": "x"}});
    let picture = json!({"type": "image_url", "image_url": {"url": "https://x/y", "fps": 1}});
    let call = json!({"id": "c", "type": "function", "mark": 1, "index": 0,
        "function": {"name": "f", "arguments": "{}", "lang": "x"}});
    let custom_call = json!({"id": "d", "type": "custom", "custom": {"name": "g", "input": "x"}});
    let search = json!({"type": "web_search", "depth": 2});
    let chat = parse(
        json!({
            "model": "m",
            "messages": [
                {"role": "user", "cache_control": {"type": "ephemeral"}, "content": [
                    {"type": "text", "text": "a", "cache": 1}, picture, film]},
                {"role": "assistant", "reasoning_content": "hm", "audio": null, "citations": [1],
                    "content": null, "tool_calls": [call, custom_call]},
            ],
            "tools": [search,
                {"type": "function", "defer": true, "function": {"name": "f", "lang": "x"}}],
            "tool_choice": {"type": "function", "function": {"name": "f", "hard": 1}},
            "response_format": {"type": "json_schema", "json_schema": {"name": "s", "ttl": 1}},
            "stream_options": {"include_usage": true, "pace": 1},
        })
        .to_string()
        .as_bytes(),
    );
    let generate = chat.unwrap().generate;
    let [question, answer] = &generate.messages[..] else { panic!("two messages") };
    assert_eq!(question.extra_json, r#"{"cache_control":{"type":"ephemeral"}}"#);
    let parts: Vec<_> = question.content.iter().map(|part| part.extra_json.as_str()).collect();
    let whole = film.to_string();
    assert_eq!(parts[..2], [r#"{"cache":1}"#, r#"{"image_url":{"fps":1}}"#]);
    assert_eq!(serde_json::from_str::<Value>(parts[2]).unwrap(), film, "{whole}");
    assert_eq!(question.content[2].part, None);
    assert_eq!(answer.extra_json, r#"{"reasoning_content":"hm"}"#);
    let calls: Vec<_> = answer.tool_calls.iter().map(|call| call.extra_json.as_str()).collect();
    assert_eq!(calls[0], r#"{"mark":1,"function":{"lang":"x"}}"#);
    assert_eq!(calls[1], r#"{"custom":{"name":"g","input":"x"},"type":"custom"}"#);
    assert_eq!((answer.tool_calls[1].id.as_str(), answer.tool_calls[1].name.as_str()), ("d", ""));
    let tools: Vec<_> = generate.tools.iter().map(|tool| tool.extra_json.as_str()).collect();
    assert_eq!(serde_json::from_str::<Value>(tools[0]).unwrap(), search);
    assert_eq!(tools[1], r#"{"defer":true,"function":{"lang":"x"}}"#);
    let extra: Value = serde_json::from_str(&generate.extra_json).unwrap();
    let expected = json!({"stream_options": {"pace": 1}, "tool_choice": {"function": {"hard": 1}},
        "response_format": {"json_schema": {"ttl": 1}}});
    assert_eq!(extra, expected);
}

#[test]
fn bad_json_says_where() {
    let refusal = parse(b"{\n  \"model\": }").unwrap_err();
    assert!(refusal.message.contains("line 2 column 12"), "{}", refusal.message);
    assert_eq!(parse(b"{\"model\": \"\xff\"}").unwrap_err().status.as_u16(), 400);
    let deep = "[".repeat(100_000);
    assert!(parse(deep.as_bytes()).unwrap_err().message.contains("recursion limit"));
}
