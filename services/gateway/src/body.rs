//! Reading a JSON request body within the limit.
//!
//! Invariants:
//! - Never more than the limit is held in memory.
//! - A body that is too large is read to its end (within reason) and thrown
//!   away: a client that is still sending does not hear an answer.

use crate::{gateway::Gateway, openai::error::Refusal, pace::Paced, room::Room};
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use http::header;
use http_body::Body;
use http_body_util::BodyExt as _;
use std::{sync::Arc, time::Duration};
use tokio::time;

/// How much of a body that is too large is thrown away before we answer.
const THROW_AWAY: u64 = 256 << 20;
const THROW_AWAY_FOR: Duration = Duration::from_secs(20);

/// The body, and the room it takes until the call has been passed on.
pub async fn read_json(gateway: &Gateway, request: Request) -> Result<(Bytes, Arc<Room>), Refusal> {
    let (head, body) = request.into_parts();
    let media_type = head.headers.get(header::CONTENT_TYPE);
    let media_type = media_type.map_or("", |value| value.to_str().unwrap_or("?"));
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Refusal::media_type(media_type));
    }
    read(gateway, body).await
}

/// A body of any kind, within the same limits.
pub async fn read(
    gateway: &Gateway,
    body: axum::body::Body,
) -> Result<(Bytes, Arc<Room>), Refusal> {
    let limit = gateway.max_body;
    if body.size_hint().exact().is_some_and(|size| size > limit) {
        throw_away(body).await;
        return Err(Refusal::too_large(limit));
    }
    let room = Arc::new(gateway.bodies.room());
    let body = Paced::new(body, gateway.pace, Arc::clone(&room));
    let body = body.map_err(|status| Refusal::from_status(&status))?;
    Ok((gather(body, limit).await?, room))
}

async fn gather<B>(mut body: B, limit: u64) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes, Error = tonic::Status> + Unpin,
{
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|status| Refusal::from_status(&status))?;
        let Ok(data) = frame.into_data() else { continue };
        if (whole.len() + data.len()) as u64 > limit {
            drop(whole);
            throw_away(body).await;
            return Err(Refusal::too_large(limit));
        }
        if whole.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

async fn throw_away<B: Body<Data = Bytes> + Unpin>(mut body: B) {
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
    async fn the_limit_holds() {
        let streamed = |size: usize| {
            let chunk = Ok::<_, tonic::Status>(http_body::Frame::data(vec![b'x'; size].into()));
            http_body_util::StreamBody::new(futures_util::stream::iter([chunk]))
        };
        assert_eq!(gather(streamed(8), 8).await.unwrap().len(), 8);
        let refusal = gather(streamed(9), 8).await.unwrap_err();
        assert_eq!(refusal.status.as_u16(), 413);
        assert!(refusal.message.ends_with("limit of 8"), "{}", refusal.message);
    }
}
