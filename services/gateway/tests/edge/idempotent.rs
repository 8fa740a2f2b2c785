//! Calls that are sent again and made once.

use crate::{
    client::{Answer, Http, h1, h2, send},
    grpc::{bearer, embed, generate, models},
    world::{self, ROOT, Running},
};
use futures_util::future::join_all;
use gateway::idempotency::{
    Fingerprint,
    claims::{self, Claims, Found},
};
use http::Method;
use http_body_util::BodyExt as _;
use mesh::{
    clock,
    database::{Database, Migration},
    error,
};
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;
use tonic::Code;

const CHAT: &str = "/v1/chat/completions";
const SOON: Duration = Duration::from_secs(20);

fn body(model: &str, stream: bool) -> String {
    json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "x"}]})
        .to_string()
}

async fn chat(client: &Http, running: &Running, key: &str, model: &str, stream: bool) -> Answer {
    let headers = [("idempotency-key", key)];
    send(client, running.request(Method::POST, CHAT, &headers, body(model, stream))).await
}

fn called(running: &Running) -> bool {
    running.seen.request.lock().unwrap().take().is_some()
}

fn code(answer: &Answer) -> String {
    answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn an_answer_is_given_again_and_the_call_is_not_made_again() {
    let running = world::start(&[]).await;
    for (key, stream, client) in
        [("a", false, h1()), ("b", true, h1()), ("c", false, h2()), ("d", true, h2())]
    {
        let first = chat(&client, &running, key, "hello", stream).await;
        assert!(called(&running) && first.header("idempotent-replayed").is_empty());
        let again = chat(&client, &running, key, "hello", stream).await;
        assert!(!called(&running), "{key}");
        assert_eq!(again.header("idempotent-replayed"), "true");
        assert_eq!((again.status, &again.body), (first.status, &first.body));
        assert_eq!(again.header("content-type"), first.header("content-type"));
        assert_eq!(again.header("x-skein-model"), "openai/gpt-x");
        assert_eq!(again.header("content-length"), first.header("content-length"));
        assert_ne!(again.header("x-request-id"), first.header("x-request-id"));
    }
    // Another route, another API key: another key.
    let headers = [("idempotency-key", "a")];
    let embeddings = json!({"model": "m", "input": "a"}).to_string();
    let request = running.request(Method::POST, "/v1/embeddings", &headers, embeddings);
    assert_eq!(send(&h1(), request).await.header("idempotent-replayed"), "");
}

#[tokio::test]
async fn while_it_runs_it_is_not_run_again() {
    let running = world::start(&[]).await;
    let headers = [("idempotency-key", "k")];
    let request = running.request(Method::POST, CHAT, &headers, body("waits", true));
    let mut response = h1().request(request).await.unwrap();
    assert!(response.frame().await.unwrap().unwrap().is_data());
    let busy = chat(&h2(), &running, "k", "waits", true).await;
    assert_eq!((busy.status.as_u16(), busy.header("retry-after")), (409, "1"));
    assert_eq!(code(&busy), "idempotent_call_running");
    let other = chat(&h1(), &running, "k", "hello", true).await;
    assert_eq!((other.status.as_u16(), &*code(&other)), (422, "idempotency_key_reused"));
    running.seen.go_on.notify_one();
    let mut rest = response.into_body().collect().await.unwrap().to_bytes();
    assert!(rest.ends_with(b"data: [DONE]\n\n"));
    let again = chat(&h1(), &running, "k", "waits", true).await;
    assert_eq!((again.header("idempotent-replayed"), again.whole), ("true", true));
    rest = rest.slice(rest.len() - 20..);
    assert!(again.body.ends_with(&rest));
    let other = chat(&h1(), &running, "k", "hello", true).await;
    assert_eq!(other.status, 422);
}

#[tokio::test]
async fn what_failed_may_be_tried_again() {
    let running = world::start(&[]).await;
    // Before the head, in a gathered answer, inside a stream.
    for (key, model, stream, status) in [
        ("a", "down", false, 503),
        ("b", "limited", false, 429),
        ("c", "breaks", false, 503),
        ("d", "breaks", true, 200),
    ] {
        for _ in 0..2 {
            let tried = timeout(SOON, async {
                loop {
                    let answer = chat(&h1(), &running, key, model, stream).await;
                    // The release runs beside the answer.
                    if answer.status != 409 {
                        return answer;
                    }
                }
            });
            let answer = tried.await.unwrap();
            assert_eq!(answer.status, status, "{model}");
            assert!(called(&running), "{model} ran again");
        }
    }
    let missing = chat(&h1(), &running, "e", "none", false).await;
    let again = chat(&h1(), &running, "e", "none", false).await;
    assert_eq!((again.status.as_u16(), &again.body), (404, &missing.body));
    assert_eq!(again.header("idempotent-replayed"), "true");
}

#[tokio::test]
async fn a_client_that_left_may_try_again() {
    let running = world::start(&[]).await;
    for client in [h1(), h2()] {
        let headers = [("idempotency-key", "k")];
        let request = running.request(Method::POST, CHAT, &headers, body("hangs", true));
        let mut response = client.request(request).await.unwrap();
        assert!(response.frame().await.unwrap().unwrap().is_data());
        assert_eq!(chat(&h1(), &running, "k", "hangs", true).await.status, 409);
        drop((response, client));
        // While the claim is there another body is refused.
        let free = async { while chat(&h1(), &running, "k", "bug", false).await.status == 422 {} };
        timeout(SOON, free).await.unwrap();
        let gone = async { while chat(&h1(), &running, "k", "bug", false).await.status == 409 {} };
        timeout(SOON, gone).await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_kept_and_not_run_again() {
    let running = world::start(&[("SKEIN_GATEWAY__IDEMPOTENCY_MAX", "64")]).await;
    for (key, stream) in [("a", false), ("b", true)] {
        assert_eq!(chat(&h1(), &running, key, "hello", stream).await.status, 200);
        assert!(called(&running));
        let again = chat(&h1(), &running, key, "hello", stream).await;
        assert_eq!((again.status.as_u16(), &*code(&again)), (410, "idempotent_answer_not_kept"));
        assert!(!called(&running));
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_one_is_refused() {
    let running = world::start(&[]).await;
    let long = "x".repeat(256);
    let refused = chat(&h1(), &running, &long, "hello", false).await;
    assert_eq!((refused.status.as_u16(), called(&running)), (400, false));
    assert_eq!(refused.json()["error"]["param"], "idempotency-key");
}

#[tokio::test]
async fn over_grpc_too() {
    let running = world::start(&[]).await;
    let mut client = models(&running);
    let keyed = |key: &str, model: &str| {
        let mut request = bearer(ROOT, generate(model));
        request.metadata_mut().insert("idempotency-key", key.parse().unwrap());
        request
    };
    for replayed in [false, true] {
        let mut request = bearer(ROOT, embed());
        request.metadata_mut().insert("idempotency-key", "e".parse().unwrap());
        let answer = client.embed(request).await.unwrap();
        assert_eq!(answer.metadata().contains_key("idempotent-replayed"), replayed);
        assert_eq!(answer.into_inner().embeddings.len(), 1);
        let answer = client.generate(keyed("g", "hello")).await.unwrap();
        assert_eq!(answer.metadata().contains_key("idempotent-replayed"), replayed);
        let mut events = answer.into_inner();
        let mut count = 0;
        while events.message().await.unwrap().is_some() {
            count += 1;
        }
        assert_eq!((count, called(&running)), (4, !replayed));
        let missing = client.generate(keyed("n", "none")).await.unwrap_err();
        assert_eq!((missing.code(), called(&running)), (Code::NotFound, !replayed));
        assert_eq!(error::reason(&missing).as_deref(), Some("MODEL_NOT_FOUND"));
    }
    let other = client.generate(keyed("g", "tools")).await.unwrap_err();
    assert_eq!(error::reason(&other).as_deref(), Some("IDEMPOTENCY_KEY_REUSED"));
    let _open = client.generate(keyed("w", "hangs")).await.unwrap();
    let busy = client.generate(keyed("w", "hangs")).await.unwrap_err();
    assert_eq!(busy.code(), Code::Aborted);
    assert_eq!(error::retry_after(&busy), Some(Duration::from_secs(1)));
}

#[tokio::test]
async fn of_many_at_once_on_two_gateways_one_runs() {
    let Some(url) = tokio::task::spawn_blocking(pg_test::fresh_database).await.unwrap() else {
        return;
    };
    let settings = [("DATABASE_URL", url.as_str())];
    let (one, other) = (world::start(&settings).await, world::start(&settings).await);
    let client = h2();
    let calls = (0..32).map(|n| chat(&client, [&one, &other][n % 2], "k", "hello", false));
    let answers = join_all(calls).await;
    let ran =
        |answer: &&Answer| answer.status == 200 && answer.header("idempotent-replayed").is_empty();
    assert_eq!(answers.iter().filter(ran).count(), 1);
    assert!(answers.iter().all(|answer| [200, 409].contains(&answer.status.as_u16())));
    let again = chat(&client, &one, "k", "hello", false).await;
    assert_eq!(again.header("idempotent-replayed"), "true");
}

#[tokio::test]
async fn a_claim_of_the_dead_lapses_and_what_lapsed_is_removed() {
    const TABLES: &[Migration] = &[claims::MIGRATION];
    let folder = tempfile::tempdir().unwrap();
    let url = mesh::database::sqlite_url(&folder.path().join("x.db"));
    let postgres = tokio::task::spawn_blocking(pg_test::fresh_database).await.unwrap();
    for url in [Some(url), postgres].into_iter().flatten() {
        let database = Database::open(&url, "test", TABLES).await.unwrap();
        let claims = Claims::new(database, Duration::from_millis(1), 1 << 20);
        let of = |id: &str| Fingerprint { id: id.into(), hash: vec![1] };
        let (past, future) = (clock::now_micros() - 1, clock::now_micros() + 60_000_000);
        let Found::Claimed(dead) = claims.claim(of("a"), past).await.unwrap() else { panic!() };
        let Found::Claimed(owner) = claims.claim(of("a"), future).await.unwrap() else { panic!() };
        // The dead come back: it is not theirs any more.
        claims.finish("a".into(), dead.clone(), None).await.unwrap();
        claims.release("a".into(), dead).await.unwrap();
        assert!(matches!(claims.claim(of("a"), future).await.unwrap(), Found::Running));
        claims.finish("a".into(), owner, None).await.unwrap();
        let free = async { while claims.remove().await.unwrap() == 0 {} };
        timeout(SOON, free).await.unwrap();
        assert!(matches!(claims.claim(of("a"), future).await.unwrap(), Found::Claimed(_)));
    }
}

#[tokio::test]
async fn a_header_that_was_wrong_may_be_mended() {
    let running = world::start(&[]).await;
    for (media_type, status) in [("text/plain", 415), ("application/json", 200)] {
        let headers = [("idempotency-key", "k"), ("content-type", media_type)];
        let answer = async {
            loop {
                let request = running.request(Method::POST, CHAT, &headers, body("hello", false));
                let answer = send(&h1(), request).await;
                // Until the first try's claim is released.
                if answer.status != 409 {
                    return answer;
                }
            }
        };
        assert_eq!(timeout(SOON, answer).await.unwrap().status, status);
    }
}
