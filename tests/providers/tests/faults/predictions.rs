//! Replicate's predictions, by a clock that the test moves.

use crate::raw::{Client, Ended, Seen, key, request};
use providers::{End, Reply, replicate};
use serde_json::Value;
use std::time::Duration;

const INPUT: &str = r#"{"input":{"prompt":"a b c"}}"#;

async fn ask(fake: &replicate::Fake, method: &str, path: &str, headers: &str, body: &str) -> Seen {
    let headers = format!("{}{headers}", key("r8_test"));
    Client::connect(&fake.url).await.ask(&request(method, path, &headers, body)).await
}

async fn create(fake: &replicate::Fake, model: &str, headers: &str) -> Value {
    let path = format!("/v1/models/{model}/predictions");
    let seen = ask(fake, "POST", &path, headers, INPUT).await;
    assert_eq!(seen.status, 201, "{}", seen.text());
    seen.json()
}

async fn get(fake: &replicate::Fake, id: &Value) -> Value {
    ask(fake, "GET", &format!("/v1/predictions/{}", id.as_str().unwrap()), "", "").await.json()
}

async fn cancel(fake: &replicate::Fake, id: &Value) -> Value {
    ask(fake, "POST", &format!("/v1/predictions/{}/cancel", id.as_str().unwrap()), "", "")
        .await
        .json()
}

async fn paused() -> replicate::Fake {
    let fake = replicate::start().await.unwrap();
    fake.clock().pause();
    fake
}

#[tokio::test]
async fn a_prediction_goes_its_way_with_the_clock() {
    let fake = paused().await;
    // Five words in 100 ms, after a boot of 5 ms.
    let made = create(&fake, "acme/run-100", "").await;
    assert_eq!((made["status"].as_str(), &made["output"]), (Some("starting"), &Value::Null));
    fake.clock().advance(Duration::from_millis(50));
    let now = get(&fake, &made["id"]).await;
    assert_eq!(
        (now["status"].as_str(), now["output"][1].as_str()),
        (Some("processing"), Some("said: "))
    );
    fake.clock().advance(Duration::from_millis(60));
    let now = get(&fake, &made["id"]).await;
    assert_eq!(
        (now["status"].as_str(), &now["metrics"]["predict_time"]),
        (Some("succeeded"), &0.1.into())
    );
    assert_eq!(cancel(&fake, &made["id"]).await["status"], "succeeded", "success wins");
    for url in ["get", "cancel", "stream", "web"] {
        assert!(now["urls"][url].as_str().unwrap().starts_with(&fake.url));
    }
}

#[tokio::test]
async fn it_ends_in_every_way() {
    let fake = paused().await;
    let canceled = create(&fake, "acme/run-100", "").await;
    let aborted = create(&fake, "acme/boot-90000", "cancel-after: 1m\r\n").await;
    let stopped = create(&fake, "acme/run-100000", "cancel-after: 30s\r\n").await;
    let failed = create(&fake, "acme/fails", "").await;
    fake.clock().advance(Duration::from_millis(50));
    assert_eq!(cancel(&fake, &canceled["id"]).await["status"], "canceled");
    fake.clock().advance(Duration::from_secs(70));
    for (made, status) in [
        (&canceled, "canceled"),
        (&aborted, "aborted"),
        (&stopped, "canceled"),
        (&failed, "failed"),
    ] {
        assert_eq!(get(&fake, &made["id"]).await["status"], status);
    }
    let failed = get(&fake, &failed["id"]).await;
    assert_eq!(failed["error"], "CUDA out of memory");
    let aborted = get(&fake, &aborted["id"]).await;
    assert_eq!(aborted["metrics"], serde_json::json!({}), "not billed");
    let listed = ask(&fake, "GET", "/v1/predictions", "", "").await.json();
    assert_eq!(listed["results"].as_array().unwrap().len(), 4);
    assert_eq!(ask(&fake, "GET", "/v1/predictions/none", "", "").await.status, 404);
}

#[tokio::test]
async fn waiting_ends_with_the_work_or_with_the_time() {
    let fake = replicate::start().await.unwrap();
    let made = create(&fake, "acme/run-20", "prefer: wait\r\n").await;
    assert_eq!(made["status"], "succeeded");
    fake.clock().speed(100.0);
    let made = create(&fake, "acme/run-6000000", "prefer: wait=5\r\n").await;
    assert_eq!(made["status"], "processing", "the object comes back unfinished");
}

fn events(text: &str) -> Vec<(String, String, String)> {
    let field = |event: &str, name: &str| {
        let lines = event.lines().filter_map(|line| line.strip_prefix(name));
        lines.collect::<Vec<_>>().join("\n")
    };
    text.split_terminator("\n\n")
        .map(|event| (field(event, "event: "), field(event, "id: "), field(event, "data: ")))
        .collect()
}

async fn stream(fake: &replicate::Fake, made: &Value, headers: &str) -> Seen {
    let path = made["urls"]["stream"].as_str().unwrap().strip_prefix(&fake.url).unwrap();
    ask(fake, "GET", path, headers, "").await
}

#[tokio::test]
async fn a_stream_is_resumed_behind_the_last_id() {
    let fake = replicate::start().await.unwrap();
    let made = create(&fake, "acme/cut", "").await;
    let seen = stream(&fake, &made, "").await;
    assert_eq!(seen.ended, Ended::Fin);
    let first = events(&seen.text());
    assert_eq!(first.len(), 2, "{first:?}");
    fake.script("acme/cut", [Reply::usual().chunked(providers::Chunking::EachByte)]);
    let seen = stream(&fake, &made, &format!("last-event-id: {}\r\n", first[1].1)).await;
    assert_eq!(seen.chunks.len(), seen.body.len());
    let rest = events(&seen.text());
    assert_eq!(seen.ended, Ended::Clean);
    let data: String = first.iter().chain(&rest).map(|(_, _, data)| data.as_str()).collect();
    assert_eq!(data, "You said: a b c{}");
    assert_eq!(rest.last().unwrap().0, "done");
    let ids: Vec<_> = first.iter().chain(&rest).map(|(_, id, _)| id.as_str()).collect();
    assert_eq!(ids[0], "1690212292:0");
    assert_eq!(ids.last().unwrap(), &"1690212292:5");
}

#[tokio::test]
async fn a_stream_says_how_the_prediction_ended() {
    let fake = replicate::start().await.unwrap();
    let made = create(&fake, "acme/fails", "").await;
    let seen = events(&stream(&fake, &made, "").await.text());
    let kinds: Vec<_> = seen.iter().map(|(kind, ..)| kind.as_str()).collect();
    assert_eq!(kinds, ["output", "output", "output", "output", "error", "done"]);
    assert_eq!(seen[4].2, r#"{"detail":"CUDA out of memory"}"#);
    assert_eq!(seen[5].2, r#"{"reason":"error"}"#);

    let made = create(&fake, "acme/slow-5", "").await;
    let (seen, _) = tokio::join!(stream(&fake, &made, ""), async {
        let streaming = |log: &[providers::Entry]| log.last().unwrap().pieces > 3;
        fake.log_when(Duration::from_secs(10), streaming).await;
        cancel(&fake, &made["id"]).await
    });
    assert_eq!(seen.ended, Ended::Clean);
    assert_eq!(events(&seen.text()).last().unwrap().2, r#"{"reason":"canceled"}"#);
}

#[tokio::test]
async fn faults_of_a_stream_wait_for_the_stream() {
    let fake = replicate::start().await.unwrap();
    fake.script(
        "acme/m",
        [Reply::usual().cut(1, End::Reset), Reply::status(500), Reply::usual().without_done()],
    );
    // The create meets what comes first that is not about a stream.
    let made = create(&fake, "acme/m", "").await;
    assert_eq!(stream(&fake, &made, "").await.ended, Ended::Rst);
    let path = "/v1/models/acme/m/predictions";
    assert_eq!(ask(&fake, "POST", path, "", INPUT).await.status, 500);
    let seen = stream(&fake, &made, "").await;
    assert!(seen.ended == Ended::Clean && !seen.text().contains("event: done"));
}

#[tokio::test]
async fn pictures_are_served_by_the_fake() {
    let fake = replicate::start().await.unwrap();
    let made = create(&fake, "black-forest-labs/flux-schnell", "prefer: wait\r\n").await;
    let url = made["output"][0].as_str().unwrap();
    let path = url.strip_prefix(&fake.url).unwrap();
    let seen = ask(&fake, "GET", path, "", "").await;
    assert_eq!(seen.header("content-type"), Some("image/png"));
    assert!(seen.body.starts_with(b"\x89PNG"));
    let one = create(&fake, "black-forest-labs/flux-1.1-pro", "prefer: wait\r\n").await;
    assert!(one["output"].is_string());
}
