//! Predictions through the served RPCs, against a server that runs them by a
//! clock: every status, every moment to leave, every way a stream breaks.

use crate::proxy::{Proxy, ask, collect};
use mesh::error;
use providers::{
    Chunking, End, Reply,
    replicate::{self, Fake, Status},
};
use skein_proto::model::v1::{
    FinishReason, GenerateRequest, ListModelsRequest, Sampling, generate_response::Event,
};
use std::time::Duration;
use tonic::Code;

/// Ten times what is promised.
const SOON: Duration = Duration::from_secs(1);

async fn start() -> (Fake, Proxy) {
    start_with(&[]).await
}

async fn start_with(more: &[(&str, &str)]) -> (Fake, Proxy) {
    let fake = replicate::start().await.unwrap();
    let mut settings = vec![
        ("REPLICATE_BASE_URL", fake.url.as_str()),
        ("REPLICATE_API_TOKEN", "r8_test-marker"),
        ("SKEIN_REPLICATE__FIRST_TOKEN_TIMEOUT", "30s"),
    ];
    settings.extend_from_slice(more);
    let proxy = Proxy::start(&settings).await;
    (fake, proxy)
}

/// How often a request came whose path ends so.
fn count(fake: &Fake, method: &str, end: &str) -> usize {
    let is = |entry: &&providers::Entry| entry.method == method && entry.path.ends_with(end);
    fake.log().iter().filter(is).count()
}

async fn wait_for(fake: &Fake, method: &str, end: &str) {
    let is = |entry: &providers::Entry| entry.method == method && entry.path.ends_with(end);
    let log = fake.log_when(10 * SOON, |log| log.iter().any(is)).await;
    assert!(log.iter().any(is), "no {method} …{end} in {log:?}");
}

#[tokio::test]
async fn an_answer_is_streamed_and_its_counts_are_looked_up() {
    let (fake, proxy) = start().await;
    let sampling = Some(Sampling { max_tokens: Some(60), ..Sampling::default() });
    let request =
        GenerateRequest { sampling, ..ask("replicate/meta/llama-3", "where do geese fly") };
    let answer = collect(&proxy, request).await.unwrap();
    assert_eq!(answer.text, "You said: where do geese fly");
    assert_eq!(answer.started.provider_request_id, fake.predictions()[0]);
    let usage = answer.finished.usage.unwrap();
    assert_eq!((usage.input_uncached, usage.output, usage.estimated), (4, 6, false));
    assert_eq!(answer.finished.choices[0].finish_reason(), FinishReason::Stop);
    let log = fake.log();
    assert_eq!(log[0].path, "/v1/models/meta/llama-3/predictions");
    assert_eq!(log[0].request["input"]["prompt"], "where do geese fly");
    assert_eq!(log[0].headers["cancel-after"], "1800s");
    assert!(!log[0].headers.contains_key("prefer"));
    assert_eq!(count(&fake, "POST", "/predictions"), 1);
    assert_eq!(count(&fake, "POST", "/cancel"), 0, "what has ended is not called off");
}

#[tokio::test]
async fn versions_and_deployments_have_their_own_doors() {
    let (fake, proxy) = start().await;
    for (model, path) in [
        ("replicate/meta/llama:0123", "/v1/predictions"),
        ("replicate/deployments/acme/fast", "/v1/deployments/acme/fast/predictions"),
    ] {
        fake.clear_log();
        // The fake knows no such version; what counts is what it was asked.
        let _ = collect(&proxy, ask(model, "hi")).await;
        assert_eq!(fake.log()[0].path, path);
    }
    let status = proxy.generate(ask("replicate/llama", "hi")).await.unwrap_err();
    assert_eq!(error::field(&status).as_deref(), Some("model"));
}

#[tokio::test]
async fn a_stream_that_breaks_goes_on_where_it_broke() {
    let (fake, proxy) = start().await;
    for end in [End::Close, End::Reset, End::Clean] {
        fake.clear_log();
        fake.script("a/b", [Reply::usual().cut(2, end), Reply::usual().cut(1, end)]);
        let answer = collect(&proxy, ask("replicate/a/b", "where do geese fly")).await.unwrap();
        assert_eq!(answer.text, "You said: where do geese fly", "{end:?}");
        let log = fake.log();
        let streams: Vec<_> = log.iter().filter(|entry| entry.path.contains("/streams/")).collect();
        assert_eq!(streams.len(), 3);
        assert!(!streams[0].headers.contains_key("last-event-id"));
        assert!(streams[1].headers.contains_key("last-event-id"));
        assert_eq!(count(&fake, "POST", "/predictions"), 1);
    }
}

#[tokio::test]
async fn a_stream_that_never_holds_is_given_up_for_polls() {
    let (fake, proxy) = start().await;
    fake.endless("a/b", Reply::usual().cut(0, End::Reset));
    let answer = collect(&proxy, ask("replicate/a/b", "one two")).await.unwrap();
    assert_eq!(answer.text, "You said: one two");
    let streams = fake.log().iter().filter(|entry| entry.path.contains("/streams/")).count();
    // Four, and one more where the connection that broke had been used before.
    assert!((4..=5).contains(&streams), "bounded: {streams}");
}

#[tokio::test]
async fn the_answer_does_not_depend_on_how_its_stream_comes() {
    let (fake, proxy) = start().await;
    for reply in [
        Reply::usual().chunked(Chunking::EachByte),
        Reply::usual().newline("\r\n"),
        Reply::usual().pings(),
        Reply::usual().without_done(),
        Reply::usual().insert(1, "event: of-a-later-day\ndata: {\n\n"),
    ] {
        fake.script("a/b", [reply.clone()]);
        let answer = collect(&proxy, ask("replicate/a/b", "one two")).await.unwrap();
        assert_eq!(answer.text, "You said: one two", "{reply:?}");
        assert!(!answer.finished.usage.unwrap().estimated);
    }
}

#[tokio::test]
async fn a_stream_that_goes_wrong_is_an_error_after_what_was_real_and_is_called_off() {
    let (fake, proxy) = start_with(&[("SKEIN_REPLICATE__IDLE_TIMEOUT", "1s")]).await;
    for (at, (reply, reason)) in [
        (Reply::usual().stall(2), "IDLE_TIMEOUT"),
        (Reply::usual().error_after(2), "PROVIDER_UNAVAILABLE"),
        (Reply::usual().insert(2, &b"data: \xff\n\n"[..]), "PROVIDER_MALFORMED"),
    ]
    .into_iter()
    .enumerate()
    {
        fake.script("a/slow-20", [reply]);
        let failed = collect(&proxy, ask("replicate/a/slow-20", "hi")).await.unwrap_err();
        assert_eq!(error::reason(&failed.status).as_deref(), Some(reason));
        assert_eq!(failed.text, "word0 word1 ");
        canceled(&fake, at).await;
    }
}

#[tokio::test]
async fn every_end_but_success_is_one_error() {
    let (fake, proxy) = start().await;
    let failed = collect(&proxy, ask("replicate/a/fails", "a secret")).await.unwrap_err();
    assert_eq!(error::reason(&failed.status).as_deref(), Some("PROVIDER_UNAVAILABLE"));
    assert!(failed.status.message().contains("CUDA out of memory"), "{}", failed.status.message());
    assert!(!failed.status.message().contains("a secret"));
    assert_eq!(count(&fake, "POST", "/predictions"), 1, "it ran, and may be billed");

    // Somebody else cancels.
    let mut stream = proxy.generate(ask("replicate/a/slow-20", "hi")).await.unwrap();
    let id = fake.predictions()[1].clone();
    let cancel = format!("{}/v1/predictions/{id}/cancel", fake.url);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.post(cancel).bearer_auth("r8_other").send().await.unwrap();
    let status = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a canceled prediction ended well"),
            Err(status) => break status,
        }
    };
    assert!(status.message().contains("canceled"), "{}", status.message());

    // Its deadline passes before it begins.
    let asked = tokio::spawn({
        let client = proxy.client();
        let request = Proxy::call().request(ask("replicate/a/boot-9999999", "hi"));
        async move { { client }.generate(request).await.map(drop) }
    });
    let log = fake.log_when(10 * SOON, |_| fake.predictions().len() == 3).await;
    assert!(!log.is_empty());
    fake.clock().advance(Duration::from_secs(1801));
    let status = asked.await.unwrap().unwrap_err();
    assert!(status.message().contains("before it began"), "{}", status.message());
    assert_eq!(count(&fake, "POST", "/predictions"), 3);
}

#[tokio::test]
async fn a_create_is_repeated_only_where_it_was_refused() {
    let (fake, proxy) = start().await;
    fake.script("a/b", [Reply::status(429).retry_after("0.05")]);
    let answer = collect(&proxy, ask("replicate/a/b", "hi")).await.unwrap();
    assert_eq!((answer.text.as_str(), fake.predictions().len()), ("You said: hi", 1));
    assert_eq!(count(&fake, "POST", "/predictions"), 2);

    // A wait that is told in words alone, and is too long to be waited here.
    fake.script("a/b", [Reply::status(429)]);
    let status = proxy.generate(ask("replicate/a/b", "hi")).await.unwrap_err();
    assert_eq!(error::retry_after(&status), Some(Duration::from_secs(30)));

    // Of another model: this one is left alone for as long as was said.
    for (reply, reason) in [
        (Reply::reset(), "CONNECTION_RESET"),
        (Reply::status(500), "PROVIDER_UNAVAILABLE"),
        (Reply::html(502), "PROVIDER_UNAVAILABLE"),
        (Reply::status(422), "PROVIDER_BAD_REQUEST"),
        // Last: nothing more is asked with a token that has nothing left.
        (Reply::status(402), "PROVIDER_QUOTA"),
    ] {
        fake.clear_log();
        fake.script("a/c", [reply]);
        let status = proxy.generate(ask("replicate/a/c", "hi")).await.unwrap_err();
        assert_eq!(error::reason(&status).as_deref(), Some(reason));
        assert_eq!(count(&fake, "POST", "/predictions"), 1, "{reason}");
    }
}

#[tokio::test]
async fn another_token_takes_over_from_a_refused_one() {
    let (fake, proxy) =
        start_with(&[("REPLICATE_API_TOKEN", "r8-test-marker-wrong, r8-test-marker-good")]).await;
    for _ in 0..2 {
        let answer = collect(&proxy, ask("replicate/a/b", "hi")).await.unwrap();
        assert_eq!(answer.text, "You said: hi");
    }
    assert_eq!(fake.predictions().len(), 2);
}

#[tokio::test]
async fn a_prediction_is_canceled_whenever_its_caller_leaves() {
    let (fake, proxy) = start().await;
    // Before the first word: it has not begun.
    let within = Duration::from_millis(300);
    let asked = proxy.generate_within(ask("replicate/a/boot-60000", "hi"), within).await;
    assert_eq!(asked.unwrap_err().code(), Code::DeadlineExceeded);
    canceled(&fake, 0).await;
    // In mid-stream.
    let mut stream = proxy.generate(ask("replicate/a/slow-20", "hi")).await.unwrap();
    while !matches!(stream.message().await.unwrap().unwrap().event, Some(Event::Delta(_))) {}
    drop(stream);
    canceled(&fake, 1).await;
    // Before the create is answered: its answer is heard, and then it is called off.
    let asked = proxy.generate_within(ask("replicate/a/late-600", "hi"), within).await;
    assert_eq!(asked.unwrap_err().code(), Code::DeadlineExceeded);
    canceled(&fake, 2).await;
}

/// Waits until prediction number `at` was told to stop, which is soon.
async fn canceled(fake: &Fake, at: usize) {
    let told = |log: &[providers::Entry]| {
        fake.predictions().get(at).is_some_and(|id| {
            let path = format!("/v1/predictions/{id}/cancel");
            log.iter().any(|entry| entry.path == path && entry.ended_ms.is_some())
        })
    };
    let log = fake.log_when(SOON, told).await;
    assert!(told(&log), "{log:?}");
    let id = fake.predictions()[at].clone();
    let status = fake.status(&id).unwrap();
    assert!(matches!(status, Status::Canceled | Status::Succeeded | Status::Aborted), "{status:?}");
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_called_off_there_too() {
    let (fake, proxy) = start_with(&[("SKEIN_REPLICATE__FIRST_TOKEN_TIMEOUT", "300ms")]).await;
    let status = proxy.generate(ask("replicate/a/boot-60000", "hi")).await.unwrap_err();
    assert_eq!(error::reason(&status).as_deref(), Some("FIRST_TOKEN_TIMEOUT"));
    canceled(&fake, 0).await;
    wait_for(&fake, "POST", "/cancel").await;
}

#[tokio::test]
async fn models_with_a_price_are_listed_and_nothing_is_asked() {
    let (fake, proxy) = start().await;
    let request = Proxy::call().request(ListModelsRequest {});
    proxy.client().list_models(request).await.unwrap();
    assert!(fake.log().is_empty());
}
