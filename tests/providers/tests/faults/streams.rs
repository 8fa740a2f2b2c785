//! Faults of a stream and of the connection under it.

use crate::raw::{Client, Ended, chat, chat_for, key, message_for, request};
use flate2::read::GzDecoder;
use providers::{Chunking, End, Gzip, Reply, anthropic, openai};
use std::{io::Read as _, time::Duration};

#[tokio::test]
async fn each_end_is_the_end_it_says() {
    let fake = openai::start().await.unwrap();
    for (model, ended, said) in [
        ("usual", Ended::Clean, "data: [DONE]\n\n"),
        ("reset", Ended::Rst, ""),
        ("close", Ended::Fin, ""),
        ("silent", Ended::Never, ""),
        ("silent-body", Ended::Never, ""),
        ("cut", Ended::Fin, "\"two \"},\"logprobs\":null,\"finish_reason\":null}]}\n\n"),
        ("cut-reset", Ended::Rst, "\"two \"},\"logprobs\":null,\"finish_reason\":null}]}\n\n"),
        ("cut-clean", Ended::Clean, "\"two \"},\"logprobs\":null,\"finish_reason\":null}]}\n\n"),
        ("stall", Ended::Never, "\"one \"},\"logprobs\":null,\"finish_reason\":null}]}\n\n"),
        ("stall-pings", Ended::Never, ": ping\n\n"),
        ("no-done", Ended::Clean, "\"finish_reason\":\"stop\"}]}\n\n"),
    ] {
        let seen = chat_for(&fake.url, model, ended.patience()).await;
        assert_eq!(seen.ended, ended, "{model}: {}", seen.text());
        assert!(seen.text().ends_with(said), "{model}: {}", seen.text());
        let has_headers = !["reset", "close", "silent"].contains(&model);
        assert_eq!(seen.status == 200, has_headers, "{model}");
    }
    assert_eq!(fake.tries("cut-reset"), 1);
}

#[tokio::test]
async fn an_answer_that_is_no_stream_breaks_too() {
    let fake = openai::start().await.unwrap();
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
    let asked = request("POST", "/v1/chat/completions", &key("sk-test"), body);
    for (reply, ended) in [
        (Reply::usual().cut(1, End::Close), Ended::Fin),
        (Reply::usual().cut(1, End::Reset), Ended::Rst),
        (Reply::usual().stall(1), Ended::Never),
        (Reply::silent_body(), Ended::Never),
    ] {
        fake.script("m", [reply.clone()]);
        let client = Client::connect(&fake.url).await;
        let seen = client.patient(ended.patience()).ask(&asked).await;
        assert_eq!((seen.status, seen.ended), (200, ended), "{reply:?}");
    }
    let raw = Reply::raw(&b"SSH-2.0-OpenSSH\r\n"[..]);
    fake.script("m", [raw]);
    let seen = Client::connect(&fake.url).await.ask(&asked).await;
    assert_eq!((seen.ended, seen.text().as_str()), (Ended::Fin, "SSH-2.0-OpenSSH\r\n"));
}

#[tokio::test]
async fn anthropic_breaks_as_openai_does() {
    let fake = anthropic::start().await.unwrap();
    for (model, ended, said) in [
        ("usual", Ended::Clean, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"),
        ("reset", Ended::Rst, ""),
        ("cut", Ended::Fin, "\"text\":\"two \"}}\n\n"),
        ("cut-clean", Ended::Clean, "\"text\":\"two \"}}\n\n"),
        ("stall-pings", Ended::Never, "event: ping\ndata: {\"type\": \"ping\"}\n\n"),
        (
            "error-in-stream",
            Ended::Clean,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n",
        ),
    ] {
        let seen = message_for(&fake.url, model, ended.patience()).await;
        assert_eq!(seen.ended, ended, "{model}: {}", seen.text());
        assert!(seen.text().ends_with(said), "{model}: {}", seen.text());
    }
}

#[tokio::test]
async fn lateness_is_before_or_after_the_headers() {
    let fake = openai::start().await.unwrap();
    let late = Duration::from_millis(150);
    fake.script("m", [Reply::usual().late(late), Reply::usual().late_first(late)]);
    let seen = chat(&fake.url, "m").await;
    assert!(seen.first_byte_after.unwrap() >= late);
    let begun = tokio::time::Instant::now();
    let seen = chat(&fake.url, "m").await;
    assert!(begun.elapsed() >= late && seen.ended == Ended::Clean);
    assert!(seen.first_byte_after.unwrap() < begun.elapsed());
}

#[tokio::test]
async fn each_piece_is_a_chunk_of_its_own() {
    let fake = openai::start().await.unwrap();
    let whole = chat(&fake.url, "m").await;
    for (chunking, pieces) in [
        (Chunking::Whole, 1),
        (Chunking::EachByte, whole.body.len()),
        (Chunking::At(vec![7, 9]), 3),
    ] {
        fake.script("m", [Reply::usual().chunked(chunking)]);
        let seen = chat(&fake.url, "m").await;
        assert_eq!(seen.body, whole.body);
        assert_eq!(seen.chunks.len(), pieces);
    }
    let seen = chat(&fake.url, "crlf").await;
    assert_eq!(seen.text().matches("\r\n\r\n").count(), whole.text().matches("\n\n").count());
}

#[tokio::test]
async fn what_is_no_event_comes_between_events() {
    let fake = openai::start().await.unwrap();
    let seen = chat(&fake.url, "malformed").await;
    assert!(seen.text().contains("data: {\"choices\": [\n\n") && seen.ended == Ended::Clean);
    let seen = chat(&fake.url, "not-utf8").await;
    assert!(std::str::from_utf8(&seen.body).is_err());
    let seen = chat(&fake.url, "error-in-stream").await;
    let wanted = "data: {\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\",\
                  \"param\":null,\"code\":null}}\n\ndata: [DONE]\n\n";
    assert!(seen.text().ends_with(wanted), "{}", seen.text());
    let seen = chat(&fake.url, "pings").await;
    assert_eq!(seen.text().matches(": ping\n\n").count(), seen.text().matches("data: ").count());
    let seen = chat(&fake.url, "empty-first").await;
    assert!(seen.text().lines().next().unwrap().contains("\"choices\":[]"));
}

#[tokio::test]
async fn compression_is_real_broken_or_a_lie() {
    let fake = openai::start().await.unwrap();
    let plain = chat(&fake.url, "m").await.text();
    let unzip = |bytes: &[u8]| {
        let mut text = String::new();
        GzDecoder::new(bytes).read_to_string(&mut text).map(|_| text)
    };
    for gzip in [Gzip::Good, Gzip::Truncated, Gzip::Garbage] {
        fake.script("m", [Reply::usual().gzip(gzip)]);
        let seen = chat(&fake.url, "m").await;
        assert_eq!((seen.header("content-encoding"), seen.ended), (Some("gzip"), Ended::Clean));
        assert_eq!(unzip(&seen.body).ok() == Some(plain.clone()), gzip == Gzip::Good);
    }
}

#[tokio::test]
async fn a_line_of_100_mb_is_sent_while_it_is_made() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let fake = openai::start().await.unwrap();
    let address = fake.url.strip_prefix("http://").unwrap().strip_suffix("/v1").unwrap();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let body = r#"{"model":"flood","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let asked = request("POST", "/v1/chat/completions", &key("sk-test"), body);
    socket.write_all(asked.as_bytes()).await.unwrap();
    let mut piece = vec![0; 1 << 20];
    let mut line = 0;
    let mut end = Vec::new();
    while !end.ends_with(b"0\r\n\r\n") {
        let read = socket.read(&mut piece).await.unwrap();
        line += piece[..read].iter().filter(|byte| **byte == b'x').count();
        assert!(read > 0, "the connection ended after {line} bytes");
        end.extend_from_slice(&piece[read.saturating_sub(5)..read]);
        end.drain(..end.len().saturating_sub(5));
    }
    assert!(line >= 100 << 20, "{line}");
}

#[tokio::test]
async fn chaos_comes_with_the_seed() {
    let ends = async |seed| {
        let fake = openai::start().await.unwrap();
        fake.chaos(
            seed,
            0.5,
            [Reply::reset(), Reply::html(502), Reply::usual().cut(1, End::Close)],
        );
        let mut ends = Vec::new();
        for _ in 0..24 {
            let seen = chat(&fake.url, "m").await;
            ends.push((seen.status, seen.ended));
        }
        ends
    };
    let first = ends(1).await;
    assert_eq!(first, ends(1).await);
    assert_ne!(first, ends(2).await);
    assert!(first.contains(&(200, Ended::Clean)) && first.iter().any(|end| end.1 != Ended::Clean));
}

#[tokio::test]
async fn vendors_paths_and_prefixes_are_known() {
    let fake = openai::start().await.unwrap();
    fake.script("gpt-4o", [Reply::usual().prefixed("\u{feff}: hello\n\n")]);
    let body = r#"{"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let path = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";
    let asked = request("POST", path, "api-key: az-test\r\n", body);
    let seen = Client::connect(&fake.url).await.ask(&asked).await;
    assert!(seen.text().starts_with("\u{feff}: hello\n\ndata: "), "{}", seen.text());
    assert_eq!(fake.tries("gpt-4o"), 1);
    let asked = request("POST", "/openai/v1/chat/completions", &key("gsk-test"), body);
    assert_eq!(Client::connect(&fake.url).await.ask(&asked).await.status, 200);
}

#[tokio::test]
async fn headers_may_be_huge() {
    let fake = openai::start().await.unwrap();
    let seen = chat(&fake.url, "huge-headers").await;
    assert!(seen.head.len() > 256 << 10 && seen.ended == Ended::Clean);
}
