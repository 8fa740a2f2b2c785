//! The body of an answer: gathered when the call might be made again, passing
//! through when it cannot.
//!
//! Invariants:
//! - A call that may be repeated has its whole answer before its caller sees
//!   any of it, so that a connection that breaks half-way is a retry and not an
//!   error.
//! - A live body ends at the call's deadline and is in flight until dropped.

use super::{
    connection::Tracked,
    machine::{Failure, Machine},
};
use crate::{
    deadline::Until,
    error::{self, Kind},
    h2,
};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use pin_project_lite::pin_project;
use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::time::Instant;
use tonic::Status;

/// Above the largest message and its frame head.
const LARGEST: usize = h2::MAX_MESSAGE + 4096;

pin_project! {
    #[project = Parts]
    pub enum ResponseBody {
        Whole { frames: VecDeque<Frame<Bytes>> },
        Live {
            #[pin]
            body: Until<Tracked>,
            in_flight: InFlight,
        },
    }
}

/// Counts a call at its machine until dropped.
pub struct InFlight(Machine);

impl InFlight {
    pub(super) fn new(machine: &Machine) -> Self {
        machine.load().begin();
        Self(machine.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.load().end();
    }
}

impl ResponseBody {
    pub(super) fn live(body: Tracked, deadline: Instant, in_flight: InFlight) -> Self {
        Self::Live { body: Until::new(body, deadline), in_flight }
    }

    /// Reads all of `body`; gives the trailers beside it.
    pub(super) async fn gather(mut body: Tracked) -> Result<(Self, Option<HeaderMap>), Failure> {
        let (mut frames, mut length, mut trailers) = (VecDeque::new(), 0, None);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(Failure::Lost)?;
            length += frame.data_ref().map_or(0, Bytes::len);
            if length > LARGEST {
                let message = format!("the answer is larger than {LARGEST} bytes");
                let reason = Some("ANSWER_TOO_LARGE");
                return Err(Failure::Final(error::status(Kind::DataLoss, reason, None, message)));
            }
            trailers = frame.trailers_ref().cloned().or(trailers);
            frames.push_back(frame);
        }
        Ok((Self::Whole { frames }, trailers))
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.project() {
            Parts::Live { body, .. } => body.poll_frame(cx),
            Parts::Whole { frames } => Poll::Ready(frames.pop_front().map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Live { body, .. } => body.is_end_stream(),
            Self::Whole { frames } => frames.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Live { body, .. } => body.size_hint(),
            // Not exact: gRPC-Web appends the trailers to what it counts.
            Self::Whole { .. } => SizeHint::default(),
        }
    }
}
