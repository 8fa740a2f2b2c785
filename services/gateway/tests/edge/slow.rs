//! Clients that are slow, silent, greedy, or do not read.

use crate::{
    client::{h1, h2, send},
    grpc::{bearer, generate, models},
    world::{self, ROOT, Running},
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use http_body_util::BodyExt as _;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use mesh::error;
use serde_json::json;
use skein_proto::model::v1::GenerateRequest;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

const CHAT: &str = "/v1/chat/completions";
const SOON: Duration = Duration::from_secs(20);

fn body(model: &str, stream: bool) -> String {
    json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "x"}]})
        .to_string()
}

/// A connection that has announced a body of `length` bytes and sent none.
async fn announce(running: &Running, length: usize) -> TcpStream {
    let mut connection = TcpStream::connect(running.addr).await.unwrap();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ROOT}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection
}

/// What comes until the other side closes or says this.
async fn read_until(connection: &mut TcpStream, end: &str) -> String {
    let mut all = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&all).contains(end) {
            if connection.read_buf(&mut all).await.unwrap_or(0) == 0 {
                break;
            }
        }
    };
    timeout(SOON, read).await.unwrap();
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let running = world::start(&[("SKEIN_GATEWAY__BODY_TIMEOUT", "100ms")]).await;
    let mut connection = announce(&running, 100).await;
    connection.write_all(b"{").await.unwrap();
    let answer = read_until(&mut connection, "request_timeout").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("\"code\":\"request_timeout\""), "{answer}");
    // Over gRPC: a call that has sent its head and nothing else.
    let (sender, body) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = tokio_stream::wrappers::ReceiverStream::new(body);
    let path = "/skein.model.v1.ModelService/Embed";
    let headers = [("content-type", "application/grpc"), ("te", "trailers")];
    let (head, _) = running.request(Method::POST, path, &headers, "").into_parts();
    let body = tonic::body::Body::new(axum::body::Body::from_stream(body));
    let answer = send(&h2(), http::Request::from_parts(head, body)).await;
    assert_eq!(answer.header("grpc-status"), "4", "{:?}", answer.headers);
    drop(sender);
}

#[tokio::test]
async fn bodies_beyond_the_memory_are_refused_at_once() {
    let settings =
        [("SKEIN_GATEWAY__MAX_BODY", "1KiB"), ("SKEIN_GATEWAY__BYTES_IN_FLIGHT", "1KiB")];
    let running = world::start(&settings).await;
    let mut held = announce(&running, 1000).await;
    // What is only announced takes no room.
    assert_eq!(send(&h1(), running.post(CHAT, body("hello", false))).await.status, 200);
    held.write_all(&[b' '; 999]).await.unwrap();
    let full = async {
        loop {
            let answer = send(&h1(), running.post(CHAT, body("hello", false))).await;
            if answer.status != 200 {
                return answer;
            }
        }
    };
    let refused = timeout(SOON, full).await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "1"));
    assert_eq!(refused.json()["error"]["code"], "overloaded");
    let large = GenerateRequest { extra_json: "x".repeat(100), ..generate("hello") };
    let refused = models(&running).generate(bearer(ROOT, large)).await.unwrap_err();
    assert_eq!(error::reason(&refused).as_deref(), Some("OVERLOADED"));
    assert_eq!(error::retry_after(&refused), Some(Duration::from_secs(1)));
    held.shutdown().await.unwrap();
    drop(held);
    let free = async {
        while send(&h1(), running.post(CHAT, body("hello", false))).await.status != 200 {}
    };
    timeout(SOON, free).await.unwrap();
}

#[tokio::test]
async fn too_much_of_a_head_is_431_on_both_protocols() {
    let running = world::start(&[("SKEIN_GATEWAY__MAX_HEAD", "8KiB")]).await;
    for client in [h1(), h2()] {
        let mut request = running.post(CHAT, body("hello", false));
        for n in 0..120 {
            let name: HeaderName = format!("x-{n}").parse().unwrap();
            request.headers_mut().insert(name, HeaderValue::from_static("v"));
        }
        assert_eq!(send(&client, request).await.status, 431);
        let mut request = running.post(CHAT, body("hello", false));
        let long = HeaderValue::from_str(&"v".repeat(20 << 10)).unwrap();
        request.headers_mut().insert("x-long", long);
        assert_eq!(send(&client, request).await.status, 431);
        let fine = running.post(CHAT, body("hello", false));
        assert_eq!(send(&client, fine).await.status, 200);
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_ends() {
    let running = world::start(&[("SKEIN_GATEWAY__HEAD_TIMEOUT", "100ms")]).await;
    for said in ["", "PRI * HTTP", "GET / HTTP/1.1\r\nhost:"] {
        let mut connection = TcpStream::connect(running.addr).await.unwrap();
        connection.write_all(said.as_bytes()).await.unwrap();
        read_until(&mut connection, "never said").await;
    }
}

#[tokio::test]
async fn a_reader_that_stops_loses_its_call_and_disturbs_nobody() {
    let running = world::start(&[("SKEIN_GATEWAY__READER_TIMEOUT", "300ms")]).await;
    let mut cancelled = running.seen.cancelled.subscribe();
    for (n, client) in (1..).zip([h1(), h2()]) {
        let request = running.post(CHAT, body("floods", true));
        let mut response = client.request(request).await.unwrap();
        assert!(response.frame().await.unwrap().unwrap().is_data());
        let other = send(&client, running.post(CHAT, body("hello", false))).await;
        assert_eq!(other.status, 200);
        timeout(SOON, cancelled.wait_for(|count| *count == n)).await.unwrap().unwrap();
        let read = async {
            while let Some(frame) = response.frame().await {
                if frame.is_err() {
                    return;
                }
            }
            panic!("a clean end");
        };
        timeout(SOON, read).await.unwrap();
    }
    let mut events = models(&running).generate(bearer(ROOT, generate("floods"))).await.unwrap();
    assert!(events.get_mut().message().await.unwrap().is_some());
    timeout(SOON, cancelled.wait_for(|count| *count == 3)).await.unwrap().unwrap();
    let ended = async {
        loop {
            match events.get_mut().message().await {
                Ok(event) => assert!(event.is_some(), "ended without a status"),
                Err(status) => return status,
            }
        }
    };
    let ended = timeout(SOON, ended).await.unwrap();
    assert_eq!(error::reason(&ended).as_deref(), Some("READER_TOO_SLOW"), "{ended:?}");
}

#[tokio::test]
async fn an_answer_without_end_ends() {
    let running = world::start(&[("SKEIN_GATEWAY__MAX_ANSWER", "1MiB")]).await;
    let answer = send(&h1(), running.post(CHAT, body("floods", true))).await;
    assert!(!answer.whole && answer.body.len() < 2 << 20);
    assert!(answer.text().contains("answer_too_large"));
    let answer = send(&h1(), running.post(CHAT, body("floods", false))).await;
    assert_eq!((answer.status.as_u16(), answer.whole), (502, true));
    assert!(answer.text().contains("1MiB"), "{}", answer.text());
}

#[tokio::test]
async fn what_cannot_be_a_path_is_refused_in_openais_words() {
    let running = world::start(&[]).await;
    let answer = send(&h1(), running.request(Method::GET, "/v1/models/%ff", &[], "")).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["error"]["code"]),
        (400, &json!("invalid_path"))
    );
    let answer = send(&h1(), running.request(Method::GET, "/v1/models/nope", &[], "")).await;
    assert_eq!(answer.json()["error"]["param"], "model");
}

#[tokio::test]
async fn a_body_has_to_be_there_by_the_deadline() {
    let settings = [
        ("SKEIN_GATEWAY__DEADLINE", "300ms"),
        ("SKEIN_GATEWAY__BODY_TIMEOUT", "1h"),
        ("SKEIN_GATEWAY__BODY_RATE", "1"),
    ];
    let running = world::start(&settings).await;
    let mut connection = announce(&running, 100).await;
    connection.write_all(b"{").await.unwrap();
    let answer = read_until(&mut connection, "deadline_exceeded").await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
}

#[tokio::test]
async fn a_reader_without_a_window_takes_no_place() {
    let running = world::start(&[("SKEIN_GATEWAY__READER_TIMEOUT", "300ms")]).await;
    let shut: crate::client::Http = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .http2_initial_stream_window_size(0)
        .build_http();
    // Without a key: the refusal is never read.
    let headers = [("authorization", "Bearer wrong")];
    let request = running.request(Method::POST, CHAT, &headers, body("hello", false));
    let refused = shut.request(request).await.unwrap();
    assert_eq!((refused.status().as_u16(), running.load.in_flight()), (401, 0));
    // With one: the work goes on for as long as a reader may not read.
    let mut cancelled = running.seen.cancelled.subscribe();
    let answer = shut.request(running.post(CHAT, body("hangs", true))).await.unwrap();
    assert_eq!((answer.status().as_u16(), running.load.in_flight()), (200, 1));
    timeout(SOON, cancelled.wait_for(|count| *count == 1)).await.unwrap().unwrap();
    let free = async {
        while running.load.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, free).await.unwrap();
}

#[tokio::test]
async fn who_keeps_reflection_open_takes_no_place() {
    let running = world::start(&[]).await;
    let (_sender, body) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = tokio_stream::wrappers::ReceiverStream::new(body);
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let headers = [("content-type", "application/grpc"), ("authorization", "")];
    let (head, _) = running.request(Method::POST, path, &headers, "").into_parts();
    let body = tonic::body::Body::new(axum::body::Body::from_stream(body));
    let open = h2().request(http::Request::from_parts(head, body)).await.unwrap();
    assert_eq!((open.status().as_u16(), running.load.in_flight()), (200, 0));
}
