//! Connections that die between requests, TLS with HTTP/2, and callers that leave.

use crate::raw::{Client, Ended, key, request};
use providers::{Reply, anthropic, openai};
use std::time::Duration;

const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

fn asked() -> String {
    request("POST", "/v1/chat/completions", &key("sk-test"), BODY)
}

#[tokio::test]
async fn a_used_connection_may_be_dead() {
    let fake = openai::start().await.unwrap();
    let mut client = Client::connect(&fake.url).await;
    assert_eq!(client.ask(&asked()).await.ended, Ended::Clean);
    assert_eq!(client.ask(&asked()).await.ended, Ended::Clean);
    fake.reset_reused(1);
    assert_eq!(client.ask(&asked()).await.ended, Ended::Rst);
    assert_eq!(Client::connect(&fake.url).await.ask(&asked()).await.status, 200);
    let connections = fake.connections();
    assert_eq!((connections.opened, connections.resets_of_reused), (2, 1));
    assert_eq!(fake.tries("m"), 3, "what met a dead connection was not read");
    let used: Vec<_> = fake.log().iter().map(|entry| entry.connection).collect();
    assert_eq!(used, [1, 1, 2]);
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let fake = openai::start().await.unwrap();
    fake.close_idle(Some(Duration::from_millis(30)));
    let mut client = Client::connect(&fake.url).await;
    let seen = client.ask(&asked()).await;
    assert_eq!((seen.ended, seen.header("connection")), (Ended::Clean, None));
    assert_eq!(client.read().await.ended, Ended::Fin);
}

#[tokio::test]
async fn leaving_is_seen_in_every_window() {
    let fake = openai::start().await.unwrap();
    let stream = |model| BODY.replace("\"m\"", &format!("\"{model}\",\"stream\":true"));
    let path = "/v1/chat/completions";
    for (count, (model, body)) in [
        ("silent", BODY.replace("\"m\"", "\"silent\"")),
        ("silent-body", stream("silent-body")),
        ("slow-5", stream("slow-5")),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = Client::connect(&fake.url).await;
        client.send(&request("POST", path, &key("sk-test"), &body)).await;
        let busy = |log: &[providers::Entry]| {
            log.get(count).is_some_and(|entry| model != "slow-5" || entry.pieces > 3)
        };
        fake.log_when(Duration::from_secs(10), busy).await;
        let left = tokio::time::Instant::now();
        drop(client);
        let log = fake.log_when(Duration::from_secs(10), |log| log[count].ended.is_some()).await;
        assert!(log[count].aborted, "{model}");
        assert!(log[count].ended.unwrap() - left < Duration::from_secs(1), "{model}");
    }
}

#[tokio::test]
async fn leaving_a_stream_of_http_2_is_seen_too() {
    let fake = openai::start_tls(9).await.unwrap();
    let url = format!("{}/chat/completions", fake.url);
    let body = BODY.replace("\"m\"", "\"slow-5\",\"stream\":true");
    let client = client(&fake);
    let mut answer = client.post(url).bearer_auth("sk-test").body(body).send().await.unwrap();
    answer.chunk().await.unwrap().unwrap();
    drop(answer);
    let log = fake.log_when(Duration::from_secs(10), |log| log[0].ended.is_some()).await;
    assert!(log[0].aborted);
    assert_eq!(fake.connections().open, 1, "only the stream was left");
}

fn client(fake: &providers::Fake) -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let authority = fake.authority.as_ref().unwrap();
    let authority = reqwest::Certificate::from_pem(authority.as_bytes()).unwrap();
    reqwest::Client::builder().tls_certs_only([authority]).no_proxy().build().unwrap()
}

#[tokio::test]
async fn http_2_counts_streams_and_says_go_away() {
    let fake = openai::start_tls(3).await.unwrap();
    fake.endless("m", Reply::usual().late(Duration::from_millis(200)));
    let client = client(&fake);
    let ask = async || {
        let url = format!("{}/chat/completions", fake.url);
        let sent = client.post(url).bearer_auth("sk-test").body(BODY).send().await.unwrap();
        assert_eq!(sent.version(), reqwest::Version::HTTP_2);
        sent.text().await.unwrap()
    };
    // One connection first, so that all know how many streams it takes.
    ask().await;
    futures_util::future::join_all((0..7).map(|_| ask())).await;
    assert_eq!(fake.connections().peaks, [3], "one client, one connection: the rest waited");
    fake.go_away();
    // The connection under way is told; a new one is opened for the next.
    let closed = async {
        while fake.connections().open > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed).await.unwrap();
    ask().await;
    assert_eq!(fake.connections().opened, 2);
}

#[tokio::test]
async fn a_reset_takes_all_streams_of_its_connection() {
    let fake = openai::start_tls(9).await.unwrap();
    let client = client(&fake);
    let url = format!("{}/chat/completions", fake.url);
    let ask = async |model: &str| {
        let body = BODY.replace("\"m\"", &format!("\"{model}\""));
        client.post(&url).bearer_auth("sk-test").body(body).send().await
    };
    assert!(ask("m").await.is_ok());
    let silent = ask("silent");
    let reset = async {
        fake.log_when(Duration::from_secs(10), |log| log.len() == 2).await;
        ask("reset").await
    };
    let (silent, reset) = tokio::join!(silent, reset);
    assert!(silent.is_err() && reset.is_err());
    assert!(ask("m").await.is_ok());
    assert_eq!(fake.connections().opened, 2);
}

#[tokio::test]
async fn a_handshake_may_be_left_unanswered() {
    let fake = openai::start_tls(9).await.unwrap();
    fake.stall_handshakes(true);
    let client = client(&fake);
    let url = format!("{}/models", fake.url);
    let asked = client.get(&url).bearer_auth("sk-test").send();
    let opened = async {
        while fake.connections().opened == 0 {
            tokio::task::yield_now().await;
        }
        assert!(fake.log().is_empty());
        fake.stall_handshakes(false);
    };
    let (answer, ()) = tokio::join!(asked, opened);
    assert_eq!(answer.unwrap().status(), 200);
}

#[tokio::test]
async fn only_its_own_authority_is_its_guarantor() {
    let (one, other) =
        (anthropic::start_tls(9).await.unwrap(), anthropic::start_tls(9).await.unwrap());
    let url = format!("{}/v1/models", one.url);
    assert!(client(&other).get(&url).send().await.is_err());
    assert_eq!(client(&one).get(&url).send().await.unwrap().status(), 401);
}
