//! Embeddings of many callers at a time, through the served RPCs.

use crate::proxy::Proxy;
use mesh::error;
use providers::{Fake, Reply, openai};
use serde_json::json;
use skein_proto::model::v1::{EmbedInput, EmbedRequest, EmbedResponse, embed_input::Input};
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Status};

const MODEL: &str = "openai/text-embedding-3-small";
const CALLERS: usize = 64;

async fn start(wait: &str) -> (Fake, Proxy) {
    let fake = openai::start().await.unwrap();
    let proxy = Proxy::start(&[
        ("OPENAI_BASE_URL", &fake.url),
        ("OPENAI_API_KEY", "sk-test-marker"),
        ("SKEIN_EMBED__BATCH_WAIT", wait),
        ("SKEIN_PROVIDER__TRIES", "1"),
    ])
    .await;
    (fake, proxy)
}

fn request(texts: &[String]) -> EmbedRequest {
    let input = |text: &String| EmbedInput { input: Some(Input::Text(text.clone())) };
    let inputs = texts.iter().map(input).collect();
    EmbedRequest { model: MODEL.into(), inputs, dimensions: Some(8), ..EmbedRequest::default() }
}

async fn embed(proxy: &Proxy, request: EmbedRequest) -> Result<EmbedResponse, Status> {
    Ok(proxy.client().embed(Proxy::call().request(request)).await?.into_inner())
}

/// One or two texts of each caller's own.
fn texts(caller: usize) -> Vec<String> {
    (0..=caller % 2).map(|at| format!("text {at} of caller {caller}")).collect()
}

async fn all(proxy: &Proxy) -> Vec<EmbedResponse> {
    let asked = (0..CALLERS).map(|caller| embed(proxy, request(&texts(caller))));
    futures_util::future::try_join_all(asked).await.unwrap()
}

#[tokio::test]
async fn callers_at_a_time_share_calls_and_each_gets_his_own() {
    let (fake, proxy) = start("200ms").await;
    fake.endless("text-embedding-3-small", Reply::usual().late(Duration::from_millis(300)));
    let answers = all(&proxy).await;
    let calls = fake.log();
    assert!(calls.len() <= CALLERS / 2, "{} calls for {CALLERS} callers", calls.len());
    let words: i64 = (0..CALLERS).map(|caller| 5 * (1 + caller as i64 % 2)).sum();
    let counted = answers.iter().map(|answer| answer.usage.unwrap().input_uncached);
    assert_eq!(counted.sum::<i64>(), words, "nobody pays twice, and nothing is lost");
    fake.clear_scripts();
    for (caller, answer) in answers.iter().enumerate() {
        assert_eq!(answer.embeddings.len(), 1 + caller % 2);
        if caller % 9 == 0 {
            let alone = embed(&proxy, request(&texts(caller))).await.unwrap();
            assert_eq!(alone.embeddings, answer.embeddings, "caller {caller}");
        }
    }
}

#[tokio::test]
async fn what_is_refused_together_is_asked_again_apart() {
    let (fake, proxy) = start("200ms").await;
    let late = Reply::usual().late(Duration::from_millis(300));
    // The first goes alone; what was gathered meanwhile is refused once.
    fake.script("text-embedding-3-small", [late, Reply::status(400)]);
    let answers = all(&proxy).await;
    assert_eq!(answers.len(), CALLERS);
    assert!(fake.log().len() >= 4);
    fake.endless("text-embedding-3-small", Reply::status(400));
    let status = embed(&proxy, request(&texts(0))).await.unwrap_err();
    assert_eq!(error::reason(&status).as_deref(), Some("PROVIDER_BAD_REQUEST"));
}

#[tokio::test]
async fn a_call_ends_when_its_last_caller_leaves() {
    let (fake, proxy) = start("20ms").await;
    fake.endless("text-embedding-3-small", Reply::silence());
    let first = embed(&proxy, request(&texts(1)));
    let left = tokio::time::timeout(Duration::from_millis(500), first).await;
    assert!(left.is_err(), "nobody answers");
    let ended = |log: &[providers::Entry]| !log.is_empty() && log.iter().all(|call| call.aborted);
    let log = fake.log_when(Duration::from_secs(5), ended).await;
    assert!(ended(&log), "{log:?}");

    let call = Proxy::call().with_timeout(Duration::from_millis(500));
    let status = proxy.client().embed(call.request(request(&texts(1)))).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "a caller's own deadline holds");
    let log = fake.log_when(Duration::from_secs(5), ended).await;
    assert!(ended(&log), "{log:?}");
}

#[tokio::test]
async fn vectors_have_the_length_that_was_asked_for_or_the_call_fails() {
    let (fake, proxy) = start("3ms").await;
    let status = embed(&proxy, EmbedRequest { dimensions: Some(4000), ..request(&texts(1)) }).await;
    let status = status.unwrap_err();
    assert_eq!(error::field(&status).as_deref(), Some("dimensions"));
    assert!(fake.log().is_empty(), "nothing is sent");
    let own = EmbedRequest { dimensions: None, ..request(&texts(1)) };
    let answer = embed(&proxy, own).await.unwrap();
    assert!(answer.embeddings.iter().all(|embedding| embedding.values.len() == 1536));
    let short = json!({"data": [{"index": 0, "embedding": [1.0, 0.0]}]});
    fake.script("text-embedding-3-small", [Reply::json(200, &short)]);
    let status = embed(&proxy, request(&texts(0))).await.unwrap_err();
    assert_eq!(error::reason(&status).as_deref(), Some("PROVIDER_MALFORMED"));
    assert!(status.message().contains("2 numbers, not 8"), "{}", status.message());
    let off = json!({"data": [{"index": 0, "embedding": [3.0, 4.0, 0, 0, 0, 0, 0, 0]}]});
    fake.script("text-embedding-3-small", [Reply::json(200, &off)]);
    let answer = embed(&proxy, request(&texts(0))).await.unwrap();
    assert_eq!(answer.embeddings[0].values[..2], [0.6, 0.8], "shortened, and of length 1");
    assert!(answer.usage.unwrap().estimated, "the answer had no usage");
}

/// What it is worth, for people: nothing is asserted about time.
#[tokio::test]
async fn the_gain_is_printed() {
    for wait in ["0ms", "3ms"] {
        let (fake, proxy) = start(wait).await;
        embed(&proxy, request(&texts(0))).await.unwrap();
        fake.endless("text-embedding-3-small", Reply::usual().late(Duration::from_millis(20)));
        fake.clear_log();
        let begun = Instant::now();
        let answers = all(&proxy).await;
        let (took, calls) = (begun.elapsed().as_millis(), fake.log().len());
        println!("{} callers, batch_wait {wait}: {calls} calls, {took} ms", answers.len());
    }
}
