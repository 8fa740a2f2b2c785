//! Each way to be refused on the HTTP surface.

use crate::{
    client::{h1, h2, send},
    world,
};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn chat(model: &str) -> String {
    json!({"model": model, "messages": [{"role": "user", "content": "hi"}]}).to_string()
}

#[tokio::test]
async fn what_comes_from_behind_keeps_its_meaning() {
    let running = world::start(&[]).await;
    for (model, status, kind, code) in [
        ("none", 404, "invalid_request_error", "model_not_found"),
        ("limited", 429, "rate_limit_error", "rate_limit_exceeded"),
        ("bug", 500, "server_error", "server_error"),
        ("down", 503, "service_unavailable_error", "unavailable"),
        ("late", 504, "timeout_error", "deadline_exceeded"),
    ] {
        // Streams too: the head waits for the first event.
        for stream in [false, true] {
            let mut body: Value = serde_json::from_str(&chat(model)).unwrap();
            body["stream"] = stream.into();
            let answer = running.chat(body).await;
            let error = &answer.json()["error"];
            assert_eq!(answer.status.as_u16(), status, "{model}");
            assert_eq!((&error["type"], &error["code"]), (&json!(kind), &json!(code)), "{model}");
            assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()));
            let wait = if model == "limited" { "3" } else { "" };
            assert_eq!(answer.header("retry-after"), wait);
        }
    }
}

#[tokio::test]
async fn bad_requests_say_what_is_wrong() {
    let running = world::start(&[]).await;
    let post = |body: &'static [u8]| running.post(CHAT, body);
    let answer = send(&h1(), post(b"{\n  \"model\": }")).await;
    let error = answer.json()["error"].clone();
    assert_eq!((answer.status.as_u16(), &error["code"]), (400, &json!("invalid_json")));
    assert!(error["message"].as_str().unwrap().contains("line 2 column 12"), "{error}");
    let answer = send(&h1(), post(b"{\"model\": \"\xff\xfe\"}")).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["error"]["code"]),
        (400, &json!("invalid_json"))
    );
    let answer = send(&h1(), post(br#"{"model": "m", "messages": [], "max_tokens": -1}"#)).await;
    assert_eq!(answer.json()["error"]["param"], "messages");
    let body = Bytes::from(
        json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": -1})
            .to_string(),
    );
    let answer = send(&h1(), running.post(CHAT, body)).await;
    assert_eq!(answer.json()["error"]["param"], "max_tokens");
    let plain =
        running.request(Method::POST, CHAT, &[("content-type", "text/plain")], chat("hello"));
    let answer = send(&h1(), plain).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["error"]["code"]),
        (415, &json!("unsupported_media_type"))
    );
}

#[tokio::test]
async fn unknown_routes_and_wrong_methods() {
    let running = world::start(&[]).await;
    let answer = send(&h1(), running.post("/v1/completion", "{}")).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["error"]["code"]),
        (404, &json!("unknown_url"))
    );
    let answer = send(&h1(), running.request(Method::GET, CHAT, &[], "")).await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "POST"));
    assert_eq!(answer.json()["error"]["code"], "method_not_allowed");
    let answer = send(&h1(), running.post("/v1/models", "{}")).await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "GET, HEAD"));
    let rpc = "/skein.model.v1.ModelService/Generate";
    assert_eq!(send(&h1(), running.post(rpc, "{}")).await.status, 415);
    let grpc = [("content-type", "application/grpc")];
    let answer = send(&h1(), running.request(Method::POST, rpc, &grpc, "")).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["error"]["code"]),
        (505, &json!("http2_required"))
    );
}

#[tokio::test]
async fn too_large_a_body_is_answered_though_the_client_is_still_sending() {
    let running = world::start(&[]).await;
    let large = Bytes::from(vec![b'x'; 40 << 20]);
    for client in [h1(), h2()] {
        let answer = send(&client, running.post(CHAT, large.clone())).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]["code"]),
            (413, &json!("request_too_large"))
        );
        assert!(answer.text().contains("32MiB"), "{}", answer.text());
    }
}

#[tokio::test]
async fn probes_need_no_key() {
    let running = world::start(&[]).await;
    let bare = |path: &str| running.request(Method::GET, path, &[("authorization", "")], "");
    assert_eq!(send(&h1(), bare("/healthz")).await.text(), "ok\n");
    let ready = send(&h2(), bare("/readyz")).await;
    assert_eq!((ready.status.as_u16(), &ready.json()["ready"]), (200, &json!(true)));
    // Nothing of retrieval is there: a degradation, not unreadiness.
    assert!(ready.text().contains("skein-retrieval"), "{}", ready.text());
}

#[tokio::test]
async fn pages_of_other_origins_only_if_told() {
    let ask = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
        ("authorization", ""),
    ];
    for (settings, allowed) in [
        (&[][..], ""),
        (&[("SKEIN_GATEWAY__CORS_ORIGINS", "https://app.example")][..], "https://app.example"),
    ] {
        let running = world::start(settings).await;
        let answer = send(&h1(), running.request(Method::OPTIONS, CHAT, &ask, "")).await;
        assert_eq!(answer.header("access-control-allow-origin"), allowed);
    }
}
