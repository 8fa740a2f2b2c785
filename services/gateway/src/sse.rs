//! A body of server-sent events.
//!
//! Invariants:
//! - A failure after the head is a last event with the error, and the stream is
//!   then broken off: without `[DONE]` and without a clean end.
//! - Silence is filled with comments; a client that leaves drops the events.

use crate::{
    chat,
    openai::{
        chunks::{self, Encoder},
        error::Refusal,
    },
};
use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use http::{HeaderValue, header};
use skein_proto::model::v1::generate_response::Event;
use std::{io, time::Duration};
use tokio::time;
use tonic::Status;

/// Between the last event of a failed stream and its reset, which would
/// otherwise overtake the event in the buffers of the connection.
pub const LAST_WORDS: Duration = Duration::from_millis(100);

struct Stream {
    events: BoxStream<'static, Result<Event, Status>>,
    encoder: Encoder,
    keep_alive: Duration,
    state: State,
}

enum State {
    Open,
    Done,
    Failed,
}

pub fn response(
    events: BoxStream<'static, Result<Event, Status>>,
    encoder: Encoder,
    keep_alive: Duration,
) -> Response {
    let stream = Stream { events, encoder, keep_alive, state: State::Open };
    let frames = futures_util::stream::unfold(stream, |mut stream| async {
        let frame = stream.next().await?;
        Some((frame, stream))
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

impl Stream {
    async fn next(&mut self) -> Option<Result<Bytes, io::Error>> {
        match self.state {
            State::Open => Some(Ok(self.open().await)),
            State::Done => None,
            State::Failed => {
                time::sleep(LAST_WORDS).await;
                Some(Err(io::Error::other("the answer failed")))
            }
        }
    }

    async fn open(&mut self) -> Bytes {
        let mut out = String::new();
        while out.is_empty() {
            let event = match time::timeout(self.keep_alive, self.events.next()).await {
                Ok(event) => event.unwrap_or_else(|| Err(chat::cut())),
                Err(_) => return Bytes::from_static(chunks::KEEP_ALIVE.as_bytes()),
            };
            match event {
                Ok(event) => {
                    if matches!(event, Event::Finished(_)) {
                        self.state = State::Done;
                    }
                    self.encoder.push(event, &mut out);
                }
                Err(status) => {
                    self.state = State::Failed;
                    out = chunks::failure(&Refusal::from_status(&status));
                }
            }
        }
        out.into()
    }
}
