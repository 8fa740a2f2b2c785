//! Errors as statuses, in each provider's words, and what comes with them.

use crate::raw::{Client, Seen, chat, key, message, request};
use providers::{Failure, Reply, anthropic, openai, replicate};
use std::time::Duration;

async fn predict(url: &str, model: &str) -> Seen {
    let path = format!("/v1/models/{model}/predictions");
    let asked = request("POST", &path, &key("r8_test"), r#"{"input":{"prompt":"hi"}}"#);
    Client::connect(url).await.ask(&asked).await
}

#[tokio::test]
async fn openai_says_it_with_type_and_code() {
    let fake = openai::start().await.unwrap();
    for (model, status, kind, code) in [
        ("error-400", 400, "invalid_request_error", Some("unsupported_parameter")),
        ("error-401", 401, "invalid_request_error", Some("invalid_api_key")),
        ("error-404", 404, "invalid_request_error", Some("model_not_found")),
        ("error-429", 429, "rate_limit_error", Some("rate_limit_exceeded")),
        ("error-500", 500, "server_error", None),
        ("error-503", 503, "service_unavailable_error", Some("server_is_overloaded")),
        ("error-quota", 429, "insufficient_quota", Some("insufficient_quota")),
        ("error-slow", 429, "rate_limit_error", Some("slow_down")),
        ("error-context", 400, "invalid_request_error", Some("context_length_exceeded")),
        ("error-filter", 400, "invalid_request_error", Some("content_policy_violation")),
    ] {
        let seen = chat(&fake.url, model).await;
        let error = &seen.json()["error"];
        let said = (seen.status, error["type"].as_str().unwrap(), error["code"].as_str());
        assert_eq!(said, (status, kind, code), "{model}");
        assert_eq!(seen.header("retry-after").is_some(), model == "error-429", "{model}");
        assert!(seen.header("x-request-id").is_some_and(|id| id.starts_with("req_")));
    }
    let seen = chat(&fake.url, "html-502").await;
    assert_eq!((seen.status, seen.header("content-type")), (502, Some("text/html")));
    assert_eq!(chat(&fake.url, "html-200").await.status, 200);
    assert!(
        chat(&fake.url, "filter").await.text().contains("\"finish_reason\":\"content_filter\"")
    );
}

#[tokio::test]
async fn anthropic_says_it_with_a_type() {
    let fake = anthropic::start().await.unwrap();
    for (model, status, kind) in [
        ("error-400", 400, "invalid_request_error"),
        ("error-401", 401, "authentication_error"),
        ("error-402", 402, "billing_error"),
        ("error-403", 403, "permission_error"),
        ("error-404", 404, "not_found_error"),
        ("error-413", 413, "request_too_large"),
        ("error-429", 429, "rate_limit_error"),
        ("error-spend", 429, "rate_limit_error"),
        ("error-500", 500, "api_error"),
        ("error-504", 504, "timeout_error"),
        ("error-529", 529, "overloaded_error"),
        ("error-context", 400, "invalid_request_error"),
    ] {
        let seen = message(&fake.url, model).await;
        let body = seen.json();
        assert_eq!((seen.status, body["type"].as_str()), (status, Some("error")), "{model}");
        assert_eq!(body["error"]["type"], kind, "{model}");
        assert_eq!(seen.header("retry-after").is_some(), model == "error-429", "{model}");
        let spend = body["error"]["details"]["error_code"] == "enforced_spend_limit_reached";
        assert_eq!(spend, model == "error-spend");
        assert!(seen.header("request-id").is_some());
        let reset = seen.header("anthropic-ratelimit-requests-reset").unwrap();
        assert!(reset.contains('T') && reset.ends_with('Z'), "{reset}");
    }
}

#[tokio::test]
async fn replicate_says_it_in_a_detail() {
    let fake = replicate::start().await.unwrap();
    let seen = predict(&fake.url, "acme/error-429").await;
    let detail = "Request was throttled. Your rate limit resets in ~30s.";
    assert_eq!((seen.status, seen.json()), (429, serde_json::json!({"detail": detail})));
    for (model, status) in
        [("acme/error-quota", 402), ("acme/error-500", 500), ("acme/error-filter", 422)]
    {
        let seen = predict(&fake.url, model).await;
        assert_eq!(
            (seen.status, seen.json()["status"].as_u64()),
            (status, Some(u64::from(status)))
        );
    }
    assert!(fake.predictions().is_empty(), "a refused create makes nothing");
    assert_eq!(fake.tries("acme/error-500"), 1);
}

#[tokio::test]
async fn a_wait_is_said_in_every_spelling() {
    let fake = openai::start().await.unwrap();
    let limited = || Reply::status(429);
    fake.script(
        "m",
        [
            limited(),
            limited().retry_after("1"),
            limited().retry_after("0.5"),
            limited().retry_after_date(Duration::from_secs(90)),
            limited().retry_after_ms("250"),
            limited().resets_in("6m0s"),
            Reply::retry_info("34.4s"),
        ],
    );
    assert_eq!(chat(&fake.url, "m").await.header("retry-after"), None);
    assert_eq!(chat(&fake.url, "m").await.header("retry-after"), Some("1"));
    assert_eq!(chat(&fake.url, "m").await.header("retry-after"), Some("0.5"));
    let seen = chat(&fake.url, "m").await;
    assert!(seen.header("retry-after").is_some_and(|date| date.ends_with(" GMT")));
    assert_eq!(chat(&fake.url, "m").await.header("retry-after-ms"), Some("250"));
    let seen = chat(&fake.url, "m").await;
    assert_eq!(seen.header("x-ratelimit-reset-requests"), Some("6m0s"));
    assert_eq!(seen.header("x-ratelimit-remaining-requests"), Some("0"));
    let seen = chat(&fake.url, "m").await;
    assert_eq!(seen.json()["error"]["details"][0]["retryDelay"], "34.4s");
    assert_eq!(chat(&fake.url, "m").await.status, 200, "the script is used up");
    fake.endless("m", Reply::failure(Failure::SlowDown));
    assert_eq!((chat(&fake.url, "m").await.status, chat(&fake.url, "m").await.status), (429, 429));
    assert_eq!(chat(&fake.url, "other").await.status, 200);
}

#[tokio::test]
async fn keys_have_quotas_of_their_own_and_are_not_in_the_log() {
    let fake = openai::start().await.unwrap();
    fake.quota("sk-first-0001", 2);
    let ask = async |key_used: &str| {
        let body = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
        let asked = request("POST", "/v1/chat/completions", &key(key_used), body);
        let seen = Client::connect(&fake.url).await.ask(&asked).await;
        let left = seen.header("x-ratelimit-remaining-requests").unwrap().to_owned();
        (seen.status, left)
    };
    assert_eq!(ask("sk-first-0001").await, (200, "1".to_owned()));
    assert_eq!(ask("sk-second-0002").await, (200, "9999".to_owned()));
    assert_eq!(ask("sk-first-0001").await, (200, "0".to_owned()));
    assert_eq!(ask("sk-first-0001").await.0, 429);
    assert_eq!(ask("sk-second-0002").await.0, 200);
    assert_eq!(ask("sk-wrong").await.0, 401);
    let log = fake.log();
    assert_eq!(log.len(), 6);
    assert_eq!(log[0].key, log[2].key);
    assert_ne!(log[0].key, log[1].key);
    assert_eq!(log[0].key, Some(providers::key_name("sk-first-0001")));
    let all = serde_json::to_string(&log).unwrap() + &format!("{log:?}");
    assert!(!all.contains("sk-first") && !all.contains("sk-second"), "{all}");
}
