//! Callers that leave: the provider hears of it, in each of the three windows,
//! and what was used until then is known.
//!
//! The aim is a tenth of a second; the bound is ten times as wide.

use crate::proxy::{Proxy, ask};
use providers::{Fake, Reply, openai};
use skein_proto::model::v1::{
    EmbedInput, EmbedRequest, embed_input::Input, generate_response::Event,
};
use std::time::Duration;
use tokio::time::Instant;

const BOUND: Duration = Duration::from_secs(1);
/// For what has to happen before anybody can leave.
const SOON: Duration = Duration::from_secs(20);

async fn start() -> (Fake, Proxy) {
    let fake = openai::start().await.unwrap();
    let url = fake.url.clone();
    let proxy =
        Proxy::start(&[("OPENAI_BASE_URL", &url), ("OPENAI_API_KEY", "sk-test-marker")]).await;
    (fake, proxy)
}

/// The provider has the request, and nobody else has left yet.
async fn asked(fake: &Fake) {
    let log = fake.log_when(SOON, |log| !log.is_empty()).await;
    assert!(!log.is_empty() && !log[0].aborted, "{log:?}");
}

#[expect(clippy::print_stdout, reason = "the figure is for people")]
async fn left(fake: &Fake, window: &str, at: Instant) {
    let log = fake.log_when(BOUND, |log| log[0].ended.is_some()).await;
    assert!(log[0].aborted, "{window}: the provider is still at work");
    let ended = log[0].ended.unwrap();
    println!("{window}: the provider was left after {:.1} ms", (ended - at).as_secs_f64() * 1e3);
}

#[tokio::test]
async fn before_the_first_token() {
    let (fake, proxy) = start().await;
    fake.endless("silent-row", Reply::silence());
    let call = tokio::spawn(async move { proxy.generate(ask("openai/silent-row", "hi")).await });
    asked(&fake).await;
    let at = Instant::now();
    call.abort();
    left(&fake, "before the first token", at).await;
}

#[tokio::test]
async fn in_mid_stream() {
    let (fake, proxy) = start().await;
    fake.endless("row", Reply::usual().endless(Duration::from_millis(20)));
    let mut stream = proxy.generate(ask("openai/row", "hi")).await.unwrap();
    let mut pieces = 0;
    while pieces < 3 {
        let event = stream.message().await.unwrap().unwrap().event;
        pieces += usize::from(matches!(event, Some(Event::Delta(_))));
    }
    let at = Instant::now();
    drop(stream);
    left(&fake, "in mid-stream", at).await;
}

#[tokio::test]
async fn of_an_answer_in_one_piece() {
    let (fake, proxy) = start().await;
    fake.endless("row", Reply::silence());
    let call = tokio::spawn(async move {
        let input = EmbedInput { input: Some(Input::Text("hi".to_owned())) };
        let request =
            EmbedRequest { model: "openai/row".into(), inputs: vec![input], ..Default::default() };
        proxy.client().embed(Proxy::call().request(request)).await
    });
    asked(&fake).await;
    let at = Instant::now();
    call.abort();
    left(&fake, "of an answer in one piece", at).await;
}
