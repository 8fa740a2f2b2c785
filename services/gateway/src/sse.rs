//! A body of server-sent events.
//!
//! Invariants:
//! - A failure after the head is a last event with the error, and the stream is
//!   then broken off: without `[DONE]` and without a clean end.
//! - Silence is filled with comments; a client that leaves drops the events.

use crate::{
    chat,
    openai::{chunks, error::Refusal, images},
};
use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use http::{HeaderValue, header};
use skein_proto::model::v1::{generate_image_response, generate_response};
use std::{io, time::Duration};
use tokio::time;
use tonic::Status;

/// Between the last event of a failed stream and its reset, which would
/// otherwise overtake the event in the buffers of the connection.
pub const LAST_WORDS: Duration = Duration::from_millis(100);

/// How the events of one kind of call are written.
pub trait Encode: Send + 'static {
    type Event: Send + 'static;
    /// Appends what `event` is on the wire; whether it is the last.
    fn encode(&mut self, event: Self::Event, out: &mut String) -> bool;
}

impl Encode for chunks::Encoder {
    type Event = generate_response::Event;
    fn encode(&mut self, event: Self::Event, out: &mut String) -> bool {
        let last = matches!(event, Self::Event::Finished(_));
        self.push(event, out);
        last
    }
}

impl Encode for images::Encoder {
    type Event = generate_image_response::Event;
    fn encode(&mut self, event: Self::Event, out: &mut String) -> bool {
        let last = matches!(event, Self::Event::Finished(_));
        self.push(event, out);
        last
    }
}

struct Stream<E: Encode> {
    events: BoxStream<'static, Result<E::Event, Status>>,
    encoder: E,
    keep_alive: Duration,
    state: State,
}

enum State {
    Open,
    Done,
    Failed,
}

pub fn response<E: Encode>(
    events: BoxStream<'static, Result<E::Event, Status>>,
    encoder: E,
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

impl<E: Encode> Stream<E> {
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
        while out.is_empty() && matches!(self.state, State::Open) {
            let event = match time::timeout(self.keep_alive, self.events.next()).await {
                Ok(event) => event.unwrap_or_else(|| Err(chat::cut())),
                Err(_) => return Bytes::from_static(chunks::KEEP_ALIVE.as_bytes()),
            };
            match event {
                Ok(event) => {
                    if self.encoder.encode(event, &mut out) {
                        self.state = State::Done;
                    }
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
