//! A request body that has to arrive: at a least speed, and within the room
//! that this machine has for bodies.
//!
//! Invariants:
//! - A client that sends nothing for `idle`, or less than `rate` bytes a second
//!   after that time, is refused: a slow body costs as much as a large one.
//! - Every byte is counted before it is handed on; a length that is known and
//!   does not fit is refused before the first byte is read.
//! - What is only announced takes no room: two clients that announce much and
//!   send little would keep everybody out.

use crate::room::Room;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use mesh::error::{self, Kind};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

/// The least speed of a body.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub idle: Duration,
    /// Bytes a second.
    pub rate: u64,
}

pub struct Paced {
    body: axum::body::Body,
    pace: Pace,
    room: Arc<Room>,
    received: u64,
    began: Instant,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    /// `room` counts the body's bytes for as long as anybody holds it.
    pub fn new(body: axum::body::Body, pace: Pace, room: Arc<Room>) -> Result<Self, Status> {
        room.fits(body.size_hint().exact().unwrap_or(0))?;
        let began = Instant::now();
        Ok(Self { body, pace, room, received: 0, began, waiting: None })
    }

    fn came(&mut self, bytes: u64) -> Result<(), Status> {
        self.received += bytes;
        self.room.grow(bytes)?;
        let seconds = self.began.elapsed().as_secs();
        let late = self.began.elapsed() > self.pace.idle;
        if late && self.received < self.pace.rate.saturating_mul(seconds) {
            return Err(too_slow());
        }
        Ok(())
    }
}

fn too_slow() -> Status {
    let message = "the request body arrives too slowly".to_owned();
    error::status(Kind::DeadlineExceeded, Some("CLIENT_TOO_SLOW"), None, message)
}

fn broken() -> Status {
    let message = "the body broke off before its end".to_owned();
    error::status(Kind::InvalidArgument, Some("INCOMPLETE_BODY"), None, message)
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.waiting = None;
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                Poll::Ready(Some(this.came(bytes).map(|()| frame)))
            }
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(broken()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let until = Instant::now() + this.pace.idle;
                let waiting = this.waiting.get_or_insert_with(|| Box::pin(sleep_until(until)));
                waiting.as_mut().poll(cx).map(|()| Some(Err(too_slow())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::Bodies;
    use futures_util::{StreamExt as _, stream};
    use http_body_util::BodyExt as _;

    const PACE: Pace = Pace { idle: Duration::from_secs(5), rate: 100 };

    /// A body of one chunk of `bytes` every `every`.
    fn drip(bytes: usize, every: Duration) -> axum::body::Body {
        let chunks = stream::iter(0..60).then(move |_| async move {
            tokio::time::sleep(every).await;
            Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; bytes]))
        });
        axum::body::Body::from_stream(chunks)
    }

    async fn read(body: axum::body::Body, most: u64) -> Result<usize, Status> {
        let room = Arc::new(Bodies::new(most).room());
        Ok(Paced::new(body, PACE, room)?.collect().await?.to_bytes().len())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_to_keep_coming() {
        let second = Duration::from_secs(1);
        assert_eq!(read(drip(200, second), 1 << 20).await.unwrap(), 12_000);
        let reason = |status: Status| error::reason(&status);
        for slow in [drip(50, second), drip(1 << 20, 6 * second)] {
            let refused = read(slow, 1 << 30).await.unwrap_err();
            assert_eq!(reason(refused).as_deref(), Some("CLIENT_TOO_SLOW"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_no_room_is_refused_before_it_is_read() {
        for body in [axum::body::Body::from(vec![0; 101]), drip(101, Duration::ZERO)] {
            let refused = read(body, 100).await.unwrap_err();
            assert_eq!(error::reason(&refused).as_deref(), Some("OVERLOADED"));
        }
        assert_eq!(read(axum::body::Body::from(vec![0; 100]), 100).await.unwrap(), 100);
    }
}
