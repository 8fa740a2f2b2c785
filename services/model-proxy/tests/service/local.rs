//! The embedded models through the served RPCs. Those that need weights skip
//! with a visible line where `make models` has not been run.

use crate::proxy::{Proxy, ask, collect};
use mesh::error;
use skein_proto::model::v1::{
    EmbedInput, EmbedRequest, EmbedResponse, FinishReason, GenerateRequest, ListModelsRequest,
    Passage, Sampling, Span, ToolChoice, embed_input::Input, generate_response::Event, tool_choice,
};
use std::path::{Path, PathBuf};
use tonic::{Code, Status};

/// Where `make test` says the model files are.
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
fn models() -> Option<PathBuf> {
    let folder = std::env::var_os("SKEIN_TEST_MODELS").map(PathBuf::from);
    let folder = folder.filter(|folder| folder.join("minilm/model.safetensors").is_file());
    if folder.is_none() {
        println!("skipped: SKEIN_TEST_MODELS names no folder that `make models` has filled");
    }
    folder
}

async fn start(models: &Path) -> Proxy {
    Proxy::start(&[("SKEIN_LOCAL__MODELS", &models.to_string_lossy())]).await
}

async fn without_models() -> Proxy {
    start(Path::new("no-such-folder")).await
}

fn passage(text: &str, start: u64) -> Passage {
    Passage {
        collection: "default".into(),
        document_id: "ports.md".into(),
        chunk_id: "ports.md#0".into(),
        text: text.into(),
        span: Some(Span { start, end: start + text.len() as u64 }),
        ..Passage::default()
    }
}

async fn embed(proxy: &Proxy, texts: &[&str]) -> Result<EmbedResponse, Status> {
    let input = |text: &&str| EmbedInput { input: Some(Input::Text((*text).to_owned())) };
    let inputs = texts.iter().map(input).collect();
    let request = EmbedRequest { model: "local/minilm".into(), inputs, ..EmbedRequest::default() };
    Ok(proxy.client().embed(Proxy::call().request(request)).await?.into_inner())
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[tokio::test]
async fn a_sentence_is_quoted_with_its_bytes() {
    let proxy = without_models().await;
    let passages = vec![
        passage("Geese fly in a skein. They rest at night.", 0),
        passage("Private apps use gRPC. The gateway listens on port 8080.", 500),
    ];
    let request = GenerateRequest {
        passages,
        ..ask("local/extractive", "Which port does the gateway listen on?")
    };
    let answer = collect(&proxy, request).await.unwrap();
    assert_eq!(answer.text, "\"The gateway listens on port 8080.\" [2]");
    let citation = &answer.citations[0];
    assert_eq!((citation.passage, citation.document_id.as_str()), (1, "ports.md"));
    assert_eq!(citation.span, Some(Span { start: 523, end: 556 }));
    assert_eq!(answer.finished.choices[0].finish_reason(), FinishReason::Stop);
    assert_eq!(answer.finished.usage.unwrap().cost.unwrap().nano_usd, Some(0));
}

#[tokio::test]
async fn a_model_without_files_is_not_listed_and_says_what_to_run() {
    let proxy = without_models().await;
    let request = Proxy::call().request(ListModelsRequest {});
    let models = proxy.client().list_models(request).await.unwrap().into_inner().models;
    let names: Vec<_> = models.iter().map(|model| model.id.as_str()).collect();
    assert_eq!(names, ["local/extractive"]);
    let status = embed(&proxy, &["hi"]).await.unwrap_err();
    assert_eq!(error::reason(&status).as_deref(), Some("MODEL_FILES_MISSING"));
    assert!(status.message().contains("make models"), "{}", status.message());
}

#[tokio::test]
async fn what_no_embedded_model_can_do_is_refused() {
    let proxy = without_models().await;
    let required = tool_choice::Choice::Mode(tool_choice::Mode::Required.into());
    let tool_choice = Some(ToolChoice { choice: Some(required), parallel: None });
    let request = GenerateRequest { tool_choice, ..ask("local/extractive", "hi") };
    let status = proxy.generate(request).await.unwrap_err();
    assert_eq!(error::field(&status).as_deref(), Some("tool_choice"));
    let status = proxy.generate(ask("local/minilm", "hi")).await.unwrap_err();
    assert_eq!(error::field(&status).as_deref(), Some("model"));
}

#[tokio::test]
async fn embeddings_are_of_length_one_and_know_meaning() {
    let Some(models) = models() else { return };
    let proxy = start(&models).await;
    let texts =
        ["How do I stop the server?", "Shutting the service down", "A recipe for bread", "x"];
    let together = embed(&proxy, &texts).await.unwrap();
    let vectors: Vec<_> = together.embeddings.iter().map(|e| e.values.as_slice()).collect();
    assert!(vectors.iter().all(|v| v.len() == 384 && (cosine(v, v) - 1.0).abs() < 1e-4));
    assert!(cosine(vectors[0], vectors[1]) > cosine(vectors[0], vectors[2]) + 0.2);
    // What else is in the batch changes nothing.
    let alone = embed(&proxy, &texts[..1]).await.unwrap();
    assert!(cosine(&alone.embeddings[0].values, vectors[0]) > 0.9999);
    let usage = together.usage.unwrap();
    assert_eq!((usage.estimated, usage.cost.unwrap().nano_usd), (false, Some(0)));
}

#[tokio::test]
async fn an_input_over_the_limit_is_named_with_its_count() {
    let Some(models) = models() else { return };
    let proxy = start(&models).await;
    let long = "word ".repeat(300);
    let status = embed(&proxy, &["fine", &long]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(error::field(&status).as_deref(), Some("inputs[1]"));
    assert!(status.message().contains("302 tokens"), "{}", status.message());
    // A million characters without a space are one unknown word, not a crash.
    let wide = "a".repeat(1_000_000);
    assert_eq!(embed(&proxy, &[&wide]).await.unwrap().embeddings.len(), 1);
}

#[tokio::test]
async fn the_generator_streams_and_stops_where_told() {
    let Some(models) = models() else { return };
    let proxy = start(&models).await;
    let sampling = Some(Sampling { max_tokens: Some(12), ..Sampling::default() });
    let request =
        GenerateRequest { sampling, ..ask("local/smollm2-135m", "What is the capital of France?") };
    let answer = collect(&proxy, request).await.unwrap();
    assert!(answer.text.contains("Paris"), "{}", answer.text);
    let usage = answer.finished.usage.unwrap();
    assert!((1..=12).contains(&usage.output) && usage.input_uncached > 10);
}

#[tokio::test]
async fn a_caller_that_leaves_frees_the_generator() {
    let Some(models) = models() else { return };
    let proxy = start(&models).await;
    let sampling = Some(Sampling { max_tokens: Some(2000), ..Sampling::default() });
    let request = GenerateRequest {
        sampling,
        ..ask("local/smollm2-135m", "Count from one to one thousand, one number a line.")
    };
    let mut stream = proxy.generate(request).await.unwrap();
    while !matches!(stream.message().await.unwrap().unwrap().event, Some(Event::Delta(_))) {}
    drop(stream);
    // Two thousand tokens would take half a minute; the next call is served now.
    let sampling = Some(Sampling { max_tokens: Some(2), ..Sampling::default() });
    let next = GenerateRequest { sampling, ..ask("local/smollm2-135m", "Hi") };
    let answer =
        tokio::time::timeout(std::time::Duration::from_secs(10), collect(&proxy, next)).await;
    assert_eq!(answer.unwrap().unwrap().finished.choices[0].finish_reason(), FinishReason::Length);
}
