//! What a request becomes model by model, and what is refused by name.

use super::golden::{asked, body, effort, picture};
use mesh::error::ServiceError as _;
use serde_json::{Value, json};
use skein_proto::model::v1::{
    GenerateRequest, ResponseFormat, Role, Sampling, ToolChoice, ToolDefinition, image::Source,
    response_format::Format, tool_choice,
};

#[test]
fn models_are_told_to_think_each_in_its_way() {
    for (model, word, thinking, config, temperature) in [
        ("claude-opus-5-5", "", Value::Null, Value::Null, Value::Null),
        ("claude-opus-5-5", "none", json!({"type": "disabled"}), Value::Null, Value::Null),
        (
            "claude-opus-5-5",
            "max",
            json!({"type": "adaptive"}),
            json!({"effort": "max"}),
            Value::Null,
        ),
        ("claude-sonnet-4-6", "", Value::Null, Value::Null, json!(0.5)),
        (
            "claude-sonnet-4-6",
            "minimal",
            json!({"type": "adaptive"}),
            json!({"effort": "low"}),
            Value::Null,
        ),
        (
            "claude-haiku-4-5",
            "medium",
            json!({"type": "enabled", "budget_tokens": 4096}),
            Value::Null,
            Value::Null,
        ),
        ("claude-3-haiku-20240307", "none", Value::Null, Value::Null, json!(0.5)),
    ] {
        let sampling = Sampling { max_tokens: Some(10_000), ..effort(word) };
        let body = body(model, &asked(sampling)).unwrap();
        let told = (&body["thinking"], &body["output_config"], &body["temperature"]);
        assert_eq!(told, (&thinking, &config, &temperature), "{model} {word}");
    }
    // Too little is left to think with.
    let sampling = Sampling { max_tokens: Some(2000), ..effort("high") };
    let short = body("claude-haiku-4-5", &asked(sampling)).unwrap();
    assert_eq!((&short["thinking"], &short["temperature"]), (&Value::Null, &json!(0.5)));
    let mut own = asked(effort("high"));
    own.extra_json = r#"{"thinking":{"type":"enabled","budget_tokens":2048}}"#.into();
    let own = body("claude-opus-5-5", &own).unwrap();
    assert_eq!(own["thinking"], json!({"type": "enabled", "budget_tokens": 2048}));
}

#[test]
fn tools_are_chosen_in_its_words() {
    use tool_choice::{Choice, Mode};
    let mode = |mode: Mode| Some(Choice::Mode(mode.into()));
    for (choice, parallel, expected) in [
        (mode(Mode::None), Some(false), json!({"type": "none"})),
        (mode(Mode::Auto), None, json!({"type": "auto"})),
        (mode(Mode::Required), Some(true), json!({"type": "any"})),
        (None, Some(false), json!({"type": "auto", "disable_parallel_tool_use": true})),
        (None, None, Value::Null),
    ] {
        let tool = ToolDefinition { name: "f".into(), ..ToolDefinition::default() };
        let tool_choice = Some(ToolChoice { choice, parallel });
        let request =
            GenerateRequest { tools: vec![tool], tool_choice, ..asked(Sampling::default()) };
        let body = body("m", &request).unwrap();
        assert_eq!(body["tool_choice"], expected);
        assert_eq!(body["tools"], json!([{"name": "f", "input_schema": {"type": "object"}}]));
    }
}

#[test]
fn what_it_has_no_notion_of_is_refused_by_name() {
    let refused = |change: fn(&mut GenerateRequest, &mut Sampling)| {
        let (mut request, mut sampling) = (asked(Sampling::default()), Sampling::default());
        change(&mut request, &mut sampling);
        request.sampling = Some(sampling);
        let error = body("claude-3-haiku-20240307", &request).unwrap_err();
        error.field().map(str::to_owned).unwrap()
    };
    assert_eq!(refused(|_, s| s.n = Some(2)), "sampling.n");
    assert_eq!(refused(|_, s| s.presence_penalty = Some(0.1)), "sampling.presence_penalty");
    assert_eq!(refused(|_, s| s.temperature = Some(1.5)), "sampling.temperature");
    assert_eq!(refused(|_, s| s.reasoning_effort = "low".into()), "sampling.reasoning_effort");
    assert_eq!(refused(|r, _| r.extra_json = r#"{"logit_bias":{"1":2}}"#.into()), "logit_bias");
    assert_eq!(refused(|r, _| r.extra_json = r#"{"logprobs":true}"#.into()), "logprobs");
    let format = |r: &mut GenerateRequest, format| {
        r.response_format = Some(ResponseFormat { format: Some(format) });
    };
    let json = refused(|r, _| {
        r.response_format = Some(ResponseFormat { format: Some(Format::JsonObject(true)) });
    });
    assert_eq!(json, "response_format.json_object");
    let mut text = asked(Sampling::default());
    format(&mut text, Format::Text(true));
    assert_eq!(body("m", &text).unwrap()["output_config"], Value::Null);
    let odd = Source::Data(b"nothing known".to_vec().into());
    let mut pictured = asked(Sampling::default());
    pictured.messages[0].content.push(picture(odd, "", ""));
    assert_eq!(body("m", &pictured).unwrap_err().field(), Some("messages[0].content[1]"));
    pictured.messages[0].role = Role::System.into();
    assert_eq!(body("m", &pictured).unwrap_err().field(), Some("messages[0].content[1]"));
}
