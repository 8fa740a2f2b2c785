//! An answer as text, and back again.
//!
//! Invariants:
//! - Headers that belong to one request (its id, its limits) are not kept.
//! - A stream is sent again as a stream, event by event; a gRPC answer ends
//!   with its trailers.

use super::claims::Answer;
use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body::Frame;
use http_body_util::StreamBody;
use std::convert::Infallible;

const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Headers as JSON: `[["content-type", "application/json"], …]`.
pub fn to_text(headers: &HeaderMap) -> String {
    let kept = |name: &str| {
        ["content-type", "cache-control"].contains(&name)
            || name.starts_with("x-skein-")
            || name.starts_with("grpc-")
    };
    let pairs = headers.iter().filter(|(name, _)| kept(name.as_str()));
    let pairs: Vec<_> =
        pairs.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect();
    serde_json::to_string(&pairs).unwrap_or_default()
}

fn from_text(text: &str) -> HeaderMap {
    let pairs: Vec<(String, String)> = serde_json::from_str(text).unwrap_or_default();
    let pair = |(name, value): (String, String)| {
        Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_str(&value).ok()?))
    };
    pairs.into_iter().filter_map(pair).collect()
}

pub fn response(answer: Answer) -> Response {
    let mut head = from_text(&answer.head);
    let media_type = head.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let body = if media_type.starts_with(b"application/grpc") {
        let mut frames = Vec::new();
        if !answer.body.is_empty() {
            frames.push(Frame::data(Bytes::from(answer.body)));
        }
        if !head.contains_key("grpc-status") {
            frames.push(Frame::trailers(from_text(&answer.trailers)));
        }
        if frames.is_empty() { Body::empty() } else { streamed(frames) }
    } else if media_type.starts_with(b"text/event-stream") {
        streamed(events(answer.body.into()).into_iter().map(Frame::data).collect())
    } else {
        Body::from(answer.body)
    };
    head.insert(REPLAYED, HeaderValue::from_static("true"));
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    *response.headers_mut() = head;
    response
}

fn streamed(frames: Vec<Frame<Bytes>>) -> Body {
    Body::new(StreamBody::new(stream::iter(frames.into_iter().map(Ok::<_, Infallible>))))
}

/// The events of a stream, each with the blank line that ends it.
fn events(mut bytes: Bytes) -> Vec<Bytes> {
    let mut events = Vec::new();
    while let Some(end) = bytes.windows(2).position(|pair| pair == b"\n\n") {
        events.push(bytes.split_to(end + 2));
    }
    if !bytes.is_empty() {
        events.push(bytes);
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn a_stream_comes_back_event_by_event() {
        let body = b"data: 1\n\n: keep-alive\n\ndata: [DONE]\n\n".to_vec();
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("content-type", "text/event-stream; charset=utf-8"), ("x-request-id", "r")]
        {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let head = to_text(&headers);
        let answer = Answer { status: 200, head, body: body.clone(), ..Answer::default() };
        let mut response = response(answer);
        assert!(!response.headers().contains_key("x-request-id"));
        assert_eq!(response.headers()["idempotent-replayed"], "true");
        let first = response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(first.data_ref().unwrap(), "data: 1\n\n");
        let rest = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(rest, body[9..]);
    }

    #[tokio::test]
    async fn a_grpc_answer_ends_with_its_trailers() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let answer = Answer {
            status: 200,
            head: "[[\"content-type\",\"application/grpc\"]]".into(),
            body: vec![0; 5],
            trailers: to_text(&trailers),
        };
        let whole = response(answer).into_body().collect().await.unwrap();
        assert_eq!(whole.trailers(), Some(&trailers));
        assert_eq!(whole.to_bytes(), vec![0; 5]);
    }
}
