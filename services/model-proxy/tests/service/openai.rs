//! Calls to a provider through the served RPCs: real gRPC on our side, a real
//! HTTP server that speaks OpenAI's dialect on the other.

use crate::proxy::{Proxy, ask, collect};
use mesh::error;
use providers::openai;
use skein_proto::model::v1::{
    EmbedInput, EmbedRequest, FinishReason, GenerateRequest, ListModelsRequest, Sampling,
    ToolDefinition, embed_input::Input, generate_response::Event,
};
use std::time::Duration;
use tonic::Code;

async fn start() -> (openai::Fake, Proxy) {
    let fake = openai::start().await.unwrap();
    let proxy = Proxy::start(&[
        ("OPENAI_BASE_URL", &fake.url),
        ("OPENAI_API_KEY", "sk-test-marker"),
        ("SKEIN_PROVIDER__TRIES", "1"),
        ("SKEIN_PROVIDER__FIRST_TOKEN_TIMEOUT", "300ms"),
        ("SKEIN_PROVIDER__IDLE_TIMEOUT", "300ms"),
    ])
    .await;
    (fake, proxy)
}

#[tokio::test]
async fn an_answer_is_streamed_with_its_usage_and_price() {
    let (_fake, proxy) = start().await;
    let answer = collect(&proxy, ask("openai/gpt-4o-mini", "where do geese fly")).await.unwrap();
    assert_eq!(answer.text, "You said: where do geese fly");
    assert_eq!(
        (answer.started.provider.as_str(), answer.started.call_id.as_str()),
        ("openai", "c1")
    );
    let usage = answer.finished.usage.unwrap();
    assert_eq!((usage.input_uncached, usage.output, usage.estimated), (4, 6, false));
    assert_eq!(usage.cost.unwrap().nano_usd, Some(4 * 150 + 6 * 600));
    assert_eq!(answer.finished.choices[0].finish_reason(), FinishReason::Stop);
}

#[tokio::test]
async fn limits_tools_and_missing_usage_come_through() {
    let (fake, proxy) = start().await;
    let sampling = Some(Sampling { max_tokens: Some(3), ..Sampling::default() });
    let request = GenerateRequest { sampling, ..ask("openai/x", "a b c d") };
    let answer = collect(&proxy, request).await.unwrap();
    assert_eq!(answer.finished.choices[0].finish_reason(), FinishReason::Length);
    assert_eq!(answer.finished.usage.unwrap().cost.unwrap().nano_usd, None, "unknown is not zero");
    assert_eq!(fake.log()[0].request["max_tokens"], 3);

    let tools = vec![ToolDefinition { name: "weather".into(), ..ToolDefinition::default() }];
    let answer =
        collect(&proxy, GenerateRequest { tools, ..ask("openai/tool", "x") }).await.unwrap();
    assert_eq!(
        answer.calls,
        [("call_fake".into(), "weather".into(), "{\"city\":\"Lisbon\"}".into())]
    );
    assert_eq!(answer.finished.choices[0].finish_reason(), FinishReason::ToolCalls);

    let answer = collect(&proxy, ask("openai/no-usage", "one two three")).await.unwrap();
    assert!(answer.finished.usage.unwrap().estimated);
    let answer = collect(&proxy, ask("openai/whole", "hi")).await.unwrap();
    assert_eq!(answer.text, "You said: hi");
}

#[tokio::test]
async fn each_failure_has_its_reason() {
    let (_fake, proxy) = start().await;
    for (model, code, reason) in [
        ("error-400", Code::InvalidArgument, "PROVIDER_BAD_REQUEST"),
        ("error-401", Code::FailedPrecondition, "PROVIDER_UNAUTHENTICATED"),
        ("error-404", Code::NotFound, "PROVIDER_NOT_FOUND"),
        ("error-429", Code::ResourceExhausted, "PROVIDER_RATE_LIMITED"),
        ("error-500", Code::Unavailable, "PROVIDER_UNAVAILABLE"),
        ("error-529", Code::Unavailable, "PROVIDER_OVERLOADED"),
        ("html-502", Code::Unavailable, "PROVIDER_UNAVAILABLE"),
        ("silent", Code::Unavailable, "FIRST_TOKEN_TIMEOUT"),
        ("silent-body", Code::Unavailable, "FIRST_TOKEN_TIMEOUT"),
        // Last: nothing is asked with a key that has nothing left to spend.
        ("error-quota", Code::ResourceExhausted, "PROVIDER_QUOTA"),
    ] {
        // A status on the answer itself: there was no stream to break.
        let status = proxy.generate(ask(&format!("openai/{model}"), "hi")).await.unwrap_err();
        assert_eq!(
            (status.code(), error::reason(&status).as_deref()),
            (code, Some(reason)),
            "{model}"
        );
        if model == "error-429" {
            assert_eq!(error::retry_after(&status), Some(Duration::from_secs(7)));
        }
        if model == "error-400" {
            assert_eq!(error::field(&status).as_deref(), Some("temperature"));
        }
    }
}

#[tokio::test]
async fn a_stream_that_breaks_says_so_after_what_was_real() {
    let (_fake, proxy) = start().await;
    for (model, said, reason) in [
        ("cut", "one two ", "STREAM_CUT"),
        ("error-in-stream", "one ", "PROVIDER_UNAVAILABLE"),
        ("stall", "one ", "IDLE_TIMEOUT"),
    ] {
        let failed = collect(&proxy, ask(&format!("openai/{model}"), "hi")).await.unwrap_err();
        assert_eq!(
            (failed.text.as_str(), error::reason(&failed.status).as_deref()),
            (said, Some(reason))
        );
    }
}

#[tokio::test]
async fn the_provider_is_left_when_the_caller_leaves() {
    let (fake, proxy) = start().await;
    let mut stream = proxy.generate(ask("openai/slow-20", "hi")).await.unwrap();
    while !matches!(stream.message().await.unwrap().unwrap().event, Some(Event::Delta(_))) {}
    drop(stream);
    let log = fake.log_when(Duration::from_secs(1), |log| log[0].ended_ms.is_some()).await;
    assert!(log[0].aborted, "still streaming a second after its caller left");
}

#[tokio::test]
async fn the_provider_is_left_at_the_deadline() {
    let (fake, proxy) = start().await;
    let stream =
        proxy.generate_within(ask("openai/slow-20", "hi"), Duration::from_millis(300)).await;
    let mut stream = stream.unwrap();
    let status = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended well"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let log = fake.log_when(Duration::from_secs(1), |log| log[0].ended_ms.is_some()).await;
    assert!(log[0].aborted);
}

#[tokio::test]
async fn the_provider_is_left_before_its_first_word_too() {
    let (fake, proxy) = start().await;
    // The deadline is for the provider, not for the first way to it.
    collect(&proxy, ask("openai/x", "hi")).await.unwrap();
    let asked = proxy.generate_within(ask("openai/silent", "hi"), Duration::from_millis(100)).await;
    assert_eq!(asked.unwrap_err().code(), Code::DeadlineExceeded);
    let log = fake
        .log_when(Duration::from_secs(1), |log| log.len() > 1 && log[1].ended_ms.is_some())
        .await;
    assert!(log[1].aborted);
}

#[tokio::test]
async fn embeddings_come_back_in_order() {
    let (fake, proxy) = start().await;
    let input = |text: &str| EmbedInput { input: Some(Input::Text(text.to_owned())) };
    let request = EmbedRequest {
        model: "openai/text-embedding-3-small".into(),
        inputs: vec![input("one two"), input("three"), input("one two")],
        ..EmbedRequest::default()
    };
    let answer = proxy.client().embed(Proxy::call().request(request)).await.unwrap().into_inner();
    assert_eq!(answer.embeddings.len(), 3);
    assert_eq!(answer.embeddings[0], answer.embeddings[2]);
    assert_ne!(answer.embeddings[0], answer.embeddings[1]);
    let usage = answer.usage.unwrap();
    assert_eq!((usage.input_uncached, usage.cost.unwrap().nano_usd), (5, Some(5 * 20)));
    assert_eq!(fake.log()[0].request["encoding_format"], "base64");
}

#[tokio::test]
async fn models_are_listed_and_near_names_told() {
    let (_fake, proxy) = start().await;
    let request = Proxy::call().request(ListModelsRequest {});
    let models = proxy.client().list_models(request).await.unwrap().into_inner().models;
    let mini = models.iter().find(|model| model.id == "openai/gpt-4o-mini").unwrap();
    assert_eq!(
        (mini.price.as_ref().unwrap().input, mini.context_window),
        (Some(150_000_000), 128_000)
    );
    let status = proxy.generate(ask("opnai/gpt-4o-mini", "hi")).await.unwrap_err();
    assert_eq!(error::reason(&status).as_deref(), Some("MODEL_NOT_FOUND"));
    assert!(status.message().contains("openai/gpt-4o-mini"), "{}", status.message());
}

#[tokio::test]
async fn a_bad_field_is_named_and_nothing_is_sent() {
    let (fake, proxy) = start().await;
    let sampling = Some(Sampling { max_tokens: Some(-4), ..Sampling::default() });
    let status =
        proxy.generate(GenerateRequest { sampling, ..ask("openai/x", "hi") }).await.unwrap_err();
    assert_eq!(error::field(&status).as_deref(), Some("sampling.max_tokens"));
    assert!(fake.log().is_empty());
}

#[tokio::test]
async fn only_the_router_may_call() {
    let (fake, proxy) = start().await;
    let status = proxy.call_as("gateway", ask("openai/x", "hi")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(fake.log().is_empty());
}
