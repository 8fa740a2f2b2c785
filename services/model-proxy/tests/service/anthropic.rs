//! Calls to Anthropic through the served RPCs: real gRPC on our side, a real
//! HTTP server that speaks its dialect on the other.

use crate::proxy::{Proxy, ask, collect};
use mesh::error;
use providers::{Failure, Fake, Reply, anthropic};
use serde_json::{Value, json};
use skein_proto::model::v1::{
    ContentPart, FinishReason, GenerateRequest, ListModelsRequest, Message, Role, Sampling,
    ToolCall, ToolDefinition, content_part::Part, delta::Piece, generate_response::Event,
};
use std::time::Duration;
use tonic::Code;

async fn start() -> (Fake, Proxy) {
    let fake = anthropic::start().await.unwrap();
    let proxy = Proxy::start(&[
        ("ANTHROPIC_BASE_URL", &fake.url),
        ("ANTHROPIC_API_KEY", "sk-ant-test-marker"),
        ("SKEIN_PROVIDER__TRIES", "1"),
    ])
    .await;
    (fake, proxy)
}

fn tool() -> ToolDefinition {
    ToolDefinition {
        name: "weather".into(),
        parameters_json: r#"{"type":"object","properties":{"city":{"type":"string"}}}"#.into(),
        ..ToolDefinition::default()
    }
}

fn says(role: Role, text: &str) -> Message {
    let part = ContentPart { part: Some(Part::Text(text.into())), ..ContentPart::default() };
    Message { role: role.into(), content: vec![part], ..Message::default() }
}

#[tokio::test]
async fn an_answer_is_streamed_with_its_usage() {
    let (fake, proxy) = start().await;
    let mut request = ask("anthropic/claude-unheard-of", "where do geese fly");
    request.messages.insert(0, says(Role::System, "Be brief."));
    let answer = collect(&proxy, request).await.unwrap();
    assert_eq!(answer.text, "You said: where do geese fly");
    assert_eq!(answer.started.provider, "anthropic");
    assert!(!answer.started.provider_request_id.is_empty());
    let usage = answer.finished.usage.unwrap();
    assert_eq!((usage.input_uncached, usage.output, usage.estimated), (6, 6, false));
    assert_eq!(usage.cost.unwrap().nano_usd, None, "unknown is not zero");
    assert_eq!(answer.finished.choices[0].finish_reason(), FinishReason::Stop);
    let log = fake.log();
    assert_eq!(log[0].request["max_tokens"], 4096);
    assert_eq!(log[0].request["system"][0]["text"], "Be brief.");

    let sampling = Some(Sampling { max_tokens: Some(3), ..Sampling::default() });
    let request = GenerateRequest { sampling, ..ask("anthropic/x", "a b c d") };
    let answer = collect(&proxy, request).await.unwrap();
    assert_eq!(answer.finished.choices[0].finish_reason(), FinishReason::Length);
    fake.script("no-count", [Reply::usual().without_usage()]);
    let answer = collect(&proxy, ask("anthropic/no-count", "one two three")).await.unwrap();
    assert!(answer.finished.usage.unwrap().estimated);
    let answer = collect(&proxy, ask("anthropic/whole", "hi")).await.unwrap();
    assert_eq!(answer.text, "You said: hi");
}

#[tokio::test]
async fn tools_are_called_and_their_results_go_back() {
    let (fake, proxy) = start().await;
    fake.script("m", [Reply::usual().tool("weather", r#"{"city":"Lisbon"}"#).tool("weather", "")]);
    let mut request = GenerateRequest { tools: vec![tool()], ..ask("anthropic/m", "weather?") };
    let answer = collect(&proxy, request.clone()).await.unwrap();
    assert_eq!(answer.finished.choices[0].finish_reason(), FinishReason::ToolCalls);
    assert!(answer.finished.choices[0].broken_tool_calls.is_empty());
    let [lisbon, anywhere] = answer.calls.as_slice() else { panic!("{:?}", answer.calls) };
    assert_eq!((lisbon.1.as_str(), lisbon.2.as_str()), ("weather", "{\"city\":\"Lisbon\"}"));
    assert_eq!((anywhere.1.as_str(), anywhere.2.as_str()), ("weather", "{}"));

    let calls = answer.calls.iter().map(|(id, name, arguments_json)| ToolCall {
        id: id.clone(),
        name: name.clone(),
        arguments_json: arguments_json.clone(),
        ..ToolCall::default()
    });
    request.messages.push(Message {
        role: Role::Assistant.into(),
        tool_calls: calls.collect(),
        ..Message::default()
    });
    for (id, ..) in &answer.calls {
        let result = says(Role::Tool, "sunny");
        request.messages.push(Message { tool_call_id: id.clone(), ..result });
    }
    collect(&proxy, request).await.unwrap();
    let sent = fake.log().pop().unwrap().request["messages"].take();
    assert_eq!(sent.as_array().unwrap().len(), 3, "results are one message: {sent}");
    assert_eq!(sent[1]["content"][0]["input"], json!({"city": "Lisbon"}));
    for (at, (id, ..)) in answer.calls.iter().enumerate() {
        assert_eq!(sent[1]["content"][at]["id"], id.as_str());
        assert_eq!(sent[2]["content"][at]["tool_use_id"], id.as_str());
    }
}

#[tokio::test]
async fn signed_thinking_goes_back_as_it_came() {
    let (fake, proxy) = start().await;
    fake.script("m", [Reply::usual().thinking("Which city?").tool("weather", "{}")]);
    let mut request = GenerateRequest { tools: vec![tool()], ..ask("anthropic/m", "weather?") };
    request.sampling = Some(Sampling { reasoning_effort: "high".into(), ..Sampling::default() });
    let mut stream = proxy.generate(request.clone()).await.unwrap();
    let (mut thought, mut extra_json, mut call) = (String::new(), String::new(), None);
    while let Some(answer) = stream.message().await.unwrap() {
        let Some(Event::Delta(delta)) = answer.event else { continue };
        extra_json.push_str(&delta.extra_json);
        match delta.piece {
            Some(Piece::Reasoning(text)) => thought.push_str(&text),
            Some(Piece::ToolCall(piece)) if !piece.id.is_empty() => call = Some(piece),
            _ => {}
        }
    }
    assert_eq!(thought, "Which city?");
    let call = call.unwrap();
    let made = ToolCall {
        id: call.id.clone(),
        name: call.name,
        arguments_json: "{}".into(),
        ..ToolCall::default()
    };
    request.messages.extend([
        Message {
            role: Role::Assistant.into(),
            tool_calls: vec![made],
            extra_json,
            ..Message::default()
        },
        Message { tool_call_id: call.id, ..says(Role::Tool, "sunny") },
    ]);
    collect(&proxy, request).await.unwrap();
    let log = fake.log();
    let sent = &log.last().unwrap().request;
    let thinking = &sent["messages"][1]["content"][0];
    assert_eq!(
        (&thinking["type"], &thinking["thinking"]),
        (&json!("thinking"), &json!("Which city?"))
    );
    assert!(thinking["signature"].as_str().is_some_and(|signature| !signature.is_empty()));
    assert_eq!(sent["messages"][1]["content"][1]["type"], "tool_use");
    assert_eq!(sent["thinking"]["type"], "enabled", "{sent}");
}

#[tokio::test]
async fn each_failure_has_its_reason() {
    let spend = "PROVIDER_QUOTA";
    for (reply, code, reason) in [
        (Reply::status(401), Code::FailedPrecondition, "PROVIDER_UNAUTHENTICATED"),
        (Reply::status(402), Code::ResourceExhausted, spend),
        (Reply::status(404), Code::NotFound, "PROVIDER_NOT_FOUND"),
        (Reply::status(413), Code::InvalidArgument, "PROVIDER_BAD_REQUEST"),
        (Reply::status(529), Code::Unavailable, "PROVIDER_OVERLOADED"),
        (Reply::failure(Failure::Quota), Code::ResourceExhausted, spend),
        (Reply::failure(Failure::SpendLimit), Code::ResourceExhausted, spend),
        (Reply::failure(Failure::SlowDown), Code::ResourceExhausted, "PROVIDER_RATE_LIMITED"),
        (Reply::failure(Failure::ContextLength), Code::InvalidArgument, "CONTEXT_LENGTH_EXCEEDED"),
        (Reply::failure(Failure::ContentFilter), Code::InvalidArgument, "CONTENT_FILTERED"),
    ] {
        // A proxy each: an empty account would answer for the rest.
        let (fake, proxy) = start().await;
        fake.script("m", [reply]);
        let status = proxy.generate(ask("anthropic/m", "hi")).await.unwrap_err();
        let told = (status.code(), error::reason(&status));
        assert_eq!(told, (code, Some(reason.to_owned())), "{}", status.message());
    }
    let (fake, proxy) = start().await;
    let mut request = ask("anthropic/m", "hi");
    request.extra_json = r#"{"logit_bias":{"1":2}}"#.into();
    let asked = fake.log().len();
    let status = proxy.generate(request).await.unwrap_err();
    assert_eq!(error::field(&status).as_deref(), Some("logit_bias"));
    assert_eq!(fake.log().len(), asked, "nothing is sent");
}

#[tokio::test]
async fn a_refusal_is_a_filtered_answer_with_its_reason() {
    let (_fake, proxy) = start().await;
    let mut stream = proxy.generate(ask("anthropic/refusal", "hi")).await.unwrap();
    let (mut refusal, mut finished) = (String::new(), None);
    while let Some(answer) = stream.message().await.unwrap() {
        match answer.event.unwrap() {
            Event::Delta(delta) => {
                if let Some(Piece::Refusal(text)) = delta.piece {
                    refusal.push_str(&text);
                }
            }
            Event::Finished(event) => finished = Some(event),
            Event::Started(_) => {}
        }
    }
    let finished = finished.unwrap();
    assert!(!refusal.is_empty());
    assert_eq!(finished.choices[0].finish_reason(), FinishReason::ContentFilter);
    let extra: Value = serde_json::from_str(&finished.extra_json).unwrap();
    assert_eq!(extra["anthropic"]["stop_reason"], "refusal");
}

#[tokio::test]
async fn the_provider_is_left_when_the_caller_leaves() {
    let (fake, proxy) = start().await;
    let mut stream = proxy.generate(ask("anthropic/slow-20", "hi")).await.unwrap();
    while !matches!(stream.message().await.unwrap().unwrap().event, Some(Event::Delta(_))) {}
    drop(stream);
    let log = fake.log_when(Duration::from_secs(1), |log| log[0].aborted).await;
    assert!(log[0].aborted, "still streaming a second after its caller left");
}

#[tokio::test]
async fn models_are_listed() {
    let (_fake, proxy) = start().await;
    let request = Proxy::call().request(ListModelsRequest {});
    let models = proxy.client().list_models(request).await.unwrap().into_inner().models;
    let opus = models.iter().find(|model| model.id == "anthropic/claude-opus-5").unwrap();
    assert!(opus.created_unix > 0 && opus.price.is_none());
}
