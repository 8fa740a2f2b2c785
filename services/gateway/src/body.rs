//! Reading a JSON request body within the limit.
//!
//! Invariants:
//! - Never more than the limit is held in memory.
//! - A body that is too large is read to its end (within reason) and thrown
//!   away: a client that is still sending does not hear an answer.

use crate::openai::error::Refusal;
use axum::{body::Body, extract::Request};
use bytes::{Bytes, BytesMut};
use http::header;
use http_body_util::BodyExt as _;
use std::time::Duration;
use tokio::time;

/// How much of a body that is too large is thrown away before we answer.
const THROW_AWAY: u64 = 256 << 20;
const THROW_AWAY_FOR: Duration = Duration::from_secs(20);

pub async fn read_json(request: Request, limit: u64) -> Result<Bytes, Refusal> {
    let (head, body) = request.into_parts();
    let media_type = head.headers.get(header::CONTENT_TYPE);
    let media_type = media_type.map_or("", |value| value.to_str().unwrap_or("?"));
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Refusal::media_type(media_type));
    }
    read(body, limit).await
}

async fn read(mut body: Body, limit: u64) -> Result<Bytes, Refusal> {
    let known = http_body::Body::size_hint(&body).exact();
    if known.is_some_and(|size| size > limit) {
        throw_away(body).await;
        return Err(Refusal::too_large(limit));
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            let message = "the body broke off before its end".to_owned();
            Refusal::new(
                http::StatusCode::BAD_REQUEST,
                "invalid_request_error",
                "incomplete_body",
                message,
            )
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if (whole.len() + data.len()) as u64 > limit {
            drop(whole);
            throw_away(body).await;
            return Err(Refusal::too_large(limit));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

async fn throw_away(mut body: Body) {
    let rest = async {
        let mut thrown = 0;
        while let Some(Ok(frame)) = body.frame().await {
            thrown += frame.data_ref().map_or(0, |data| data.len() as u64);
            if thrown > THROW_AWAY {
                return;
            }
        }
    };
    let _ = time::timeout(THROW_AWAY_FOR, rest).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_limit_holds_with_and_without_a_known_length() {
        let streamed = |size: usize| {
            let chunk = Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; size]));
            Body::from_stream(futures_util::stream::iter([chunk]))
        };
        for body in [Body::from("12345678"), streamed(8)] {
            assert_eq!(read(body, 8).await.unwrap().len(), 8);
        }
        for body in [Body::from("123456789"), streamed(9)] {
            let refusal = read(body, 8).await.unwrap_err();
            assert_eq!(refusal.status.as_u16(), 413);
            assert!(refusal.message.ends_with("limit of 8"), "{}", refusal.message);
        }
    }
}
