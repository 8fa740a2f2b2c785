//! Limits of a key, on every way in, on one gateway and on two.

use crate::{
    client::{Answer, Http, h1, h2, send},
    grpc::{admin, bearer, embed, generate, models},
    world::{self, ROOT, Running},
};
use futures_util::future::join_all;
use gateway::{
    keys::{self, Key},
    limits::{Allowance, Limits, store::LimitStore},
};
use http::Method;
use http_body_util::BodyExt as _;
use mesh::{
    database::{Database, Migration},
    error,
};
use serde_json::json;
use skein_proto::admin::v1::{CreateKeyRequest, ListKeysRequest, RevokeKeyRequest};
use sqlx::Connection as _;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::{Instant, timeout};
use tonic::Code;
use tonic_types::StatusExt as _;

const CHAT: &str = "/v1/chat/completions";
const SOON: Duration = Duration::from_secs(20);

/// A key of the tenant `acme` with these limits; its id and its secret.
pub(crate) async fn key(running: &Running, rpm: i64, concurrency: i64) -> (String, String) {
    let request = CreateKeyRequest {
        tenant: "acme".into(),
        requests_per_minute: rpm,
        concurrency,
        ..CreateKeyRequest::default()
    };
    let made = admin(running, h2()).create_key(bearer(ROOT, request)).await.unwrap().into_inner();
    (made.key.unwrap().id, made.secret)
}

fn body(model: &str, stream: bool) -> String {
    json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "x"}]})
        .to_string()
}

async fn chat(client: &Http, running: &Running, secret: &str, model: &str) -> Answer {
    let authorization = format!("Bearer {secret}");
    let headers = [("authorization", authorization.as_str())];
    send(client, running.request(Method::POST, CHAT, &headers, body(model, false))).await
}

/// A stream that has begun and goes on until it is dropped.
async fn hold(running: &Running, secret: &str) -> Option<http::Response<hyper::body::Incoming>> {
    let authorization = format!("Bearer {secret}");
    let headers = [("authorization", authorization.as_str())];
    let request = running.request(Method::POST, CHAT, &headers, body("hangs", true));
    let mut response = h1().request(request).await.unwrap();
    (response.status() == 200).then_some(())?;
    assert!(response.frame().await.unwrap().unwrap().is_data());
    Some(response)
}

async fn passed(client: &Http, running: &[&Running], secret: &str, calls: usize) -> usize {
    let calls = (0..calls).map(|n| chat(client, running[n % running.len()], secret, "hello"));
    let answers = join_all(calls).await;
    assert!(answers.iter().all(|answer| [200, 429].contains(&answer.status.as_u16())));
    answers.iter().filter(|answer| answer.status == 200).count()
}

/// Two gateways that share one Postgres, or `None` where there is none.
async fn two(settings: &[(&str, &str)]) -> Option<(Running, Running, String)> {
    let url = tokio::task::spawn_blocking(pg_test::fresh_database).await.unwrap()?;
    let mut all = vec![
        ("DATABASE_URL", url.as_str()),
        ("SKEIN_GATEWAY__KEY_POLL", "100ms"),
        // Three missed beats and a gateway is dead to the other: long enough for
        // a machine that is busy with other tests.
        ("SKEIN_GATEWAY__HEARTBEAT", "500ms"),
    ];
    all.extend_from_slice(settings);
    let (one, other) = (world::start(&all).await, world::start(&all).await);
    counted(&url).await;
    Some((one, other, url))
}

/// Waits until both gateways have counted two: each beats once more after a
/// beat of its own that began when both were there.
async fn counted(url: &str) {
    let mut open = sqlx::AnyConnection::connect(url).await.unwrap();
    // No rows as long as the first one has not made the table.
    let mut seen: Vec<Vec<i64>> = Vec::new();
    let twice = async {
        while seen.len() < 3 {
            let rows =
                sqlx::query_as::<_, (i64,)>("SELECT seen_at FROM gateway_machine ORDER BY id");
            let beats: Vec<i64> = rows
                .fetch_all(&mut open)
                .await
                .unwrap_or_default()
                .into_iter()
                .map(|(at,)| at)
                .collect();
            let later = |last: &Vec<i64>| beats.iter().zip(last).all(|(beat, last)| beat > last);
            if beats.len() == 2 && seen.last().is_none_or(later) {
                seen.push(beats);
            }
        }
    };
    timeout(SOON, twice).await.unwrap();
}

async fn known(running: &Running, secret: &str) {
    let waited = timeout(SOON, async {
        while running.models_status(secret).await == 401 {
            tokio::task::yield_now().await;
        }
    });
    waited.await.unwrap();
}

#[tokio::test]
async fn of_64_parallel_calls_exactly_ten_pass() {
    let running = world::start(&[]).await;
    for client in [h1(), h2()] {
        let (_, secret) = key(&running, 10, 0).await;
        assert_eq!(passed(&client, &[&running], &secret, 64).await, 10);
        let refused = chat(&client, &running, &secret, "hello").await;
        assert_eq!(refused.json()["error"]["code"], "rate_limit_exceeded");
        assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
        let wait: u64 = refused.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
        assert_eq!(refused.header("x-ratelimit-limit-requests"), "10");
        assert_eq!(refused.header("x-ratelimit-remaining-requests"), "0");
        assert!(refused.header("x-ratelimit-reset-requests").ends_with('s'));
    }
}

#[tokio::test]
async fn every_answer_says_where_the_key_stands_and_every_way_in_counts() {
    let running = world::start(&[]).await;
    let (_, secret) = key(&running, 5, 0).await;
    let remaining = |answer: &Answer| answer.header("x-ratelimit-remaining-requests").to_owned();
    let first = chat(&h1(), &running, &secret, "hello").await;
    assert_eq!((first.header("x-ratelimit-limit-requests"), &*remaining(&first)), ("5", "4"));
    let failed = chat(&h1(), &running, &secret, "down").await;
    assert_eq!((failed.status.as_u16(), &*remaining(&failed)), (503, "3"));
    let mut client = models(&running);
    let answer = client.embed(bearer(&secret, embed())).await.unwrap();
    assert_eq!(answer.metadata().get("x-ratelimit-remaining-requests").unwrap(), "2");
    assert_eq!(running.models_status(&secret).await, 200);
    let authorization = format!("Bearer {secret}");
    let headers =
        [("authorization", authorization.as_str()), ("content-type", "application/grpc-web+proto")];
    let path = "/skein.model.v1.ModelService/ListModels";
    let web = running.request(Method::POST, path, &headers, vec![0_u8; 5]);
    let web = send(&h1(), web).await;
    assert_eq!((web.status.as_u16(), &*remaining(&web)), (200, "0"));

    let refused = client.generate(bearer(&secret, generate("hello"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(error::reason(&refused).as_deref(), Some("RATE_LIMITED"));
    assert!(error::retry_after(&refused).unwrap() > Duration::from_secs(30));
    let violation = &refused.get_details_quota_failure().unwrap().violations[0];
    assert!(violation.subject.starts_with("key:"), "{violation:?}");
    assert_eq!(refused.metadata().get("x-ratelimit-remaining-requests").unwrap(), "0");
    let unlimited = running.chat(serde_json::from_str(&body("hello", false)).unwrap()).await;
    assert_eq!(unlimited.header("x-ratelimit-limit-requests"), "");
}

#[tokio::test]
async fn limits_are_listed_and_administration_is_not_limited() {
    let running = world::start(&[]).await;
    let request = CreateKeyRequest {
        tenant: "ops".into(),
        scopes: vec!["admin".into()],
        requests_per_minute: 1,
        concurrency: 1,
        ..CreateKeyRequest::default()
    };
    let mut client = admin(&running, h2());
    let secret = client.create_key(bearer(ROOT, request)).await.unwrap().into_inner().secret;
    for _ in 0..5 {
        let asked = bearer(&secret, ListKeysRequest { tenant: "ops".into() });
        let keys = client.list_keys(asked).await.unwrap().into_inner().keys;
        assert_eq!((keys[0].requests_per_minute, keys[0].concurrency), (1, 1));
    }
}

#[tokio::test]
async fn a_slot_comes_back_on_every_way_out() {
    let running = world::start(&[]).await;
    let (_, secret) = key(&running, 0, 1).await;
    let held = hold(&running, &secret).await.unwrap();
    let refused = chat(&h1(), &running, &secret, "hello").await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, "1"));
    assert!(refused.text().contains("1 requests at the same time"), "{}", refused.text());
    drop(held); // the client leaves
    let free = async {
        while chat(&h1(), &running, &secret, "hello").await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, free).await.unwrap();
    let mut client = models(&running);
    for _ in 0..3 {
        // An end, an error before the head, one inside the stream, a deadline.
        for (model, status) in [("hello", 200), ("down", 503), ("bug", 500), ("breaks", 503)] {
            assert_eq!(chat(&h1(), &running, &secret, model).await.status, status, "{model}");
        }
        let mut hangs = bearer(&secret, generate("hangs"));
        hangs.set_timeout(Duration::from_millis(100));
        let mut events = client.generate(hangs).await.unwrap().into_inner();
        let late = loop {
            match events.message().await {
                Ok(event) => assert!(event.is_some(), "ended without a status"),
                Err(late) => break late,
            }
        };
        assert_eq!(late.code(), Code::DeadlineExceeded);
        let broken = client.generate(bearer(&secret, generate("breaks"))).await.unwrap();
        let mut broken = broken.into_inner();
        while broken.message().await.is_ok() {}
        assert!(client.embed(bearer(&secret, embed())).await.is_ok());
    }
}

#[tokio::test]
async fn a_revoked_keys_open_stream_ends() {
    let running = world::start(&[]).await;
    let (id, secret) = key(&running, 0, 0).await;
    let held = hold(&running, &secret).await.unwrap();
    let revoke = bearer(ROOT, RevokeKeyRequest { id });
    admin(&running, h2()).revoke_key(revoke).await.unwrap();
    let mut held = held.into_body();
    let mut last = String::new();
    let ended = async {
        while let Some(Ok(frame)) = held.frame().await {
            last = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
        }
    };
    timeout(SOON, ended).await.unwrap();
    assert!(last.contains("has been revoked"), "{last}");
    running.seen.cancelled.subscribe().wait_for(|count| *count == 1).await.unwrap();
}

#[tokio::test]
async fn two_gateways_share_a_keys_minute() {
    let Some((one, other, _)) = two(&[]).await else { return };
    // Small: every call asks. Larger: some are taken ahead and, unused, go back.
    for limit in [10, 200] {
        let (_, secret) = key(&one, limit, 0).await;
        known(&other, &secret).await;
        let began = Instant::now();
        let limit = usize::try_from(limit).unwrap();
        let mut all = passed(&h2(), &[&one, &other], &secret, 64).await;
        while all < limit - 1 && began.elapsed() < SOON {
            all += passed(&h2(), &[&one, &other], &secret, 64).await;
        }
        // One more was `known`'s.
        assert!(all < limit, "{all} of {limit}");
        assert!(all == limit - 1, "{all} of {limit} after {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn two_gateways_share_a_keys_slots() {
    let Some((one, other, _)) = two(&[]).await else { return };
    let (_, secret) = key(&one, 0, 4).await;
    known(&other, &secret).await;
    let mut held = Vec::new();
    for running in [&one, &other, &one, &other] {
        let got = timeout(SOON, async {
            loop {
                if let Some(stream) = hold(running, &secret).await {
                    return stream;
                }
            }
        });
        held.push(got.await.unwrap());
    }
    for running in [&one, &other] {
        assert!(hold(running, &secret).await.is_none(), "all four are in use");
    }
    held.remove(0);
    let free = async { while hold(&other, &secret).await.is_none() {} };
    timeout(SOON, free).await.unwrap();
}

#[tokio::test]
async fn without_the_store_each_gateway_has_its_part() {
    let Some((one, other, url)) = two(&[]).await else { return };
    let (_, secret) = key(&one, 20, 0).await;
    known(&other, &secret).await;
    let mut open = sqlx::AnyConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("ALTER TABLE gateway_limit RENAME TO gone").execute(&mut open).await.unwrap();
    for (running, most) in [(&one, 10), (&other, 9)] {
        let mut all = 0;
        for _ in 0..3 {
            all += passed(&h2(), &[running], &secret, 16).await;
        }
        assert!((most..=most + 1).contains(&all), "{all}");
    }
    sqlx::raw_sql("ALTER TABLE gone RENAME TO gateway_limit").execute(&mut open).await.unwrap();
    // What was let in meanwhile is reported: nothing is left of this minute.
    let told = async {
        loop {
            let row = sqlx::query_as::<_, (String,)>("SELECT state FROM gateway_limit");
            let (state,) = row.fetch_one(&mut open).await.unwrap();
            let ledger: serde_json::Value = serde_json::from_str(&state).unwrap();
            let calls = ledger["calls"].as_array().unwrap().iter();
            if calls.map(|call| call[1].as_u64().unwrap()).sum::<u64>() >= 20 {
                return;
            }
        }
    };
    timeout(SOON, told).await.unwrap();
    assert_eq!(passed(&h2(), &[&one, &other], &secret, 16).await, 0);
}

#[tokio::test]
async fn a_key_without_limits_never_asks_the_store() {
    let running = world::start(&[]).await;
    let (_, secret) = key(&running, 0, 0).await;
    assert_eq!(passed(&h2(), &[&running], &secret, 64).await, 64);
    sqlx::any::install_default_drivers();
    let url = format!("sqlite:{}", running.data().join("gateway.db").display());
    let mut open = sqlx::AnyConnection::connect(&url).await.unwrap();
    for table in ["SELECT COUNT(*) FROM gateway_limit"] {
        let (rows,) = sqlx::query_as::<_, (i64,)>(table).fetch_one(&mut open).await.unwrap();
        assert_eq!(rows, 0, "{table}");
    }
}

const TABLES: &[Migration] = &[gateway::limits::store::MIGRATION];

/// A key that no gateway knows.
fn limited(allowance: Allowance) -> Key {
    let (id, secret) = keys::generate().unwrap();
    Key {
        hash: keys::hash(&secret),
        name: String::new(),
        tenant: "acme".into(),
        principal: gateway::store::principal(&id),
        scopes: Vec::new(),
        allowance,
        created: 1,
        expires: None,
        revoked: None,
        id,
    }
}

#[tokio::test]
async fn a_row_that_is_held_costs_one_connection() {
    // Longer than an exchange is waited for.
    const HELD: Duration = Duration::from_secs(8);
    let Some(url) = tokio::task::spawn_blocking(pg_test::fresh_database).await.unwrap() else {
        return;
    };
    let database = Database::open(&url, "test", TABLES).await.unwrap();
    let limits = Limits::new(LimitStore::new(database, Duration::from_millis(50)));
    let key = limited(Allowance { per_minute: 2, concurrency: 0 });
    drop(limits.enter(&key).await.unwrap());
    let mut holder = sqlx::AnyConnection::connect(&url).await.unwrap();
    let hold = "BEGIN; SELECT state FROM gateway_limit FOR UPDATE";
    sqlx::raw_sql(hold).execute(&mut holder).await.unwrap();
    let mut open = sqlx::AnyConnection::connect(&url).await.unwrap();
    let (began, mut most) = (Instant::now(), 0);
    while began.elapsed() < HELD {
        drop(limits.enter(&key).await);
        let waiting = "SELECT COUNT(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let (now,) = sqlx::query_as::<_, (i64,)>(waiting).fetch_one(&mut open).await.unwrap();
        most = most.max(now);
    }
    assert_eq!(most, 1, "exchanges that wait for one row");
    sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
}

#[tokio::test]
async fn slots_that_come_and_go_are_never_more_than_the_limit() {
    const MOST: u64 = 4;
    let Some(url) = tokio::task::spawn_blocking(pg_test::fresh_database).await.unwrap() else {
        return;
    };
    let key = Arc::new(limited(Allowance { per_minute: 0, concurrency: MOST }));
    let (running, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let database = Database::open(&url, "test", TABLES).await.unwrap();
        let limits = Limits::new(LimitStore::new(database, Duration::from_millis(50)));
        tokio::spawn(limits.clone().beat());
        tokio::spawn(limits.clone().sweep());
        for _ in 0..8 {
            let (limits, key) = (limits.clone(), Arc::clone(&key));
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            callers.spawn(async move {
                let (began, mut passed) = (Instant::now(), 0_u32);
                while began.elapsed() < Duration::from_secs(3) {
                    let Ok(entered) = limits.enter(&key).await else {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        continue;
                    };
                    most.fetch_max(running.fetch_add(1, Relaxed) + 1, Relaxed);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    running.fetch_sub(1, Relaxed);
                    drop(entered);
                    passed += 1;
                }
                passed
            });
        }
    }
    let passed: u32 = callers.join_all().await.into_iter().sum();
    assert!(passed > 50, "{passed}");
    assert_eq!(most.load(Relaxed), MOST, "after {passed} calls");
}
