//! The spans that a collector is sent: names by the conventions for generative
//! AI, numbers, reasons, and not a word of the talk. A process of its own,
//! because telemetry is set up once.
#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

#[expect(dead_code, reason = "the other tests of the service use the rest")]
#[path = "service/proxy.rs"]
mod proxy;

use axum::{Router, body::Bytes, http::HeaderMap, response::IntoResponse as _};
use mesh::{config::Sources, telemetry::Telemetry};
use providers::{End, Reply, openai};
use proxy::{Proxy, ask, collect};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// Takes whatever is exported, as it is on the wire, where texts are bytes.
async fn collector() -> (String, Arc<Mutex<Vec<u8>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let take = move |body: Bytes| async move {
        kept.lock().unwrap().extend_from_slice(&body);
        let head = [("content-type", "application/grpc"), ("grpc-status", "0")];
        let head: HeaderMap = head
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        (head, ()).into_response()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(take)).await });
    (url, seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_and_its_tries_are_spans_by_the_conventions() {
    let (url, seen) = collector().await;
    let variables = [
        ("SKEIN_MESH_KEY", "x"),
        ("SKEIN_MESH_PEERS", "x"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
    ];
    let (config, _) = model_proxy::Config::read(&Sources::of(&variables)).unwrap();
    let telemetry = Telemetry::init(&config.common).unwrap();
    let fake = openai::start().await.unwrap();
    let settings = [("OPENAI_BASE_URL", fake.url.as_str()), ("OPENAI_API_KEY", "sk-test-marker")];
    let proxy = Proxy::start(&settings).await;
    fake.script("gpt-4o-mini", [Reply::status(500), Reply::usual()]);
    collect(&proxy, ask("openai/gpt-4o-mini", "Zugvogel")).await.unwrap();
    fake.script("gpt-4o-mini", [Reply::usual().cut(2, End::Close)]);
    collect(&proxy, ask("openai/gpt-4o-mini", "Zugvogel")).await.unwrap_err();
    telemetry.shutdown().await;

    let sent = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    for expected in [
        "chat gpt-4o-mini",
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.response.model",
        "gen_ai.response.id",
        "chatcmpl-",
        "gen_ai.response.finish_reasons",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.cache_read.input_tokens",
        "server.address",
        "127.0.0.1",
        "POST",
        "http.request.resend_count",
        "error.type",
        "PROVIDER_UNAVAILABLE",
        "STREAM_CUT",
        "skein.cost.nano_usd",
    ] {
        assert!(sent.contains(expected), "{expected} is in no span");
    }
    for secret in ["Zugvogel", "You said", "sk-test-marker"] {
        assert!(!sent.contains(secret), "{secret} is in a span");
    }
}
