//! A claim in our hands, and the answer that is kept while it is sent.
//!
//! Invariants:
//! - A claim that is dropped without an answer is released, in a task of its own.
//! - The last frame of an answer is handed out after the answer was kept, or
//!   after `PATIENCE`: a slow store delays an answer, it does not lose it.
//! - Never more than the longest answer that is kept is held in memory.

use super::{
    claims::{Answer, Claims},
    replay,
};
use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tonic::Code;

const PATIENCE: Duration = Duration::from_secs(2);

/// The right to make a call.
pub struct Ours {
    claims: Claims,
    /// `None` once it is finished.
    claim: Option<(String, String)>,
}

impl Ours {
    pub const fn new(claims: Claims, id: String, owner: String) -> Self {
        Self { claims, claim: Some((id, owner)) }
    }

    /// Keeps what is sent, if it is worth keeping.
    pub async fn keep(mut self, response: Response) -> Response {
        let (head, body) = response.into_parts();
        let code = head.headers.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()));
        if !code.map_or_else(|| is_final(head.status), is_final_code) {
            return Response::from_parts(head, body); // and is released
        }
        let answer = Answer {
            status: head.status.as_u16(),
            head: replay::to_text(&head.headers),
            ..Answer::default()
        };
        if body.is_end_stream() {
            self.finish(Some(answer)).await;
            return Response::from_parts(head, body);
        }
        let kept = Kept { body, ours: Some(self), answer, whole: true, last: None };
        Response::from_parts(head, Body::new(kept))
    }

    fn finish(&mut self, answer: Option<Answer>) -> impl Future<Output = ()> + Send + use<> {
        let claims = self.claims.clone();
        let finishing = self.claim.take().map(|(id, owner)| {
            tokio::spawn(async move {
                if let Err(error) = claims.finish(id, owner, answer).await {
                    tracing::warn!(%error, "an idempotent answer was not kept");
                }
            })
        });
        async {
            if let Some(finishing) = finishing {
                let _ = tokio::time::timeout(PATIENCE, finishing).await;
            }
        }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let Some((id, owner)) = self.claim.take() else { return };
        // Without a runtime the process is ending: the claim lapses by itself.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let claims = self.claims.clone();
        runtime.spawn(async move {
            if let Err(error) = claims.release(id, owner).await {
                tracing::warn!(%error, "an idempotency key is taken until its call's deadline");
            }
        });
    }
}

/// Whether sending again would be answered the same. Not 415: the media type is
/// a header, and only the body tells requests apart.
fn is_final(status: StatusCode) -> bool {
    status.is_success() || [400, 404, 413, 422].contains(&status.as_u16())
}

const fn is_final_code(code: Code) -> bool {
    matches!(
        code,
        Code::Ok
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
    )
}

type Polled = Option<Result<Frame<Bytes>, axum::Error>>;

struct Kept {
    body: Body,
    /// Released with the body when its end was not reached.
    ours: Option<Ours>,
    answer: Answer,
    whole: bool,
    /// The last frame, while the answer is being kept.
    last: Option<(Polled, BoxFuture<'static, ()>)>,
}

impl Kept {
    fn take(&mut self, data: &Bytes) {
        let longest = self.ours.as_ref().map_or(0, |ours| ours.claims.longest);
        self.whole &= self.answer.body.len() + data.len() <= longest;
        if self.whole {
            self.answer.body.extend_from_slice(data);
        } else {
            self.answer.body = Vec::new();
        }
    }

    /// The end: keeps the answer, or releases the claim if it was a failure.
    fn end(&mut self, frame: Polled, trailers: Option<&HeaderMap>) {
        let Some(mut ours) = self.ours.take() else { return };
        let code = trailers.and_then(|trailers| trailers.get("grpc-status"));
        if code.is_some_and(|code| !is_final_code(Code::from_bytes(code.as_bytes()))) {
            self.last = Some((frame, Box::pin(std::future::ready(()))));
            return;
        }
        let mut answer = std::mem::take(&mut self.answer);
        answer.trailers = trailers.map(replay::to_text).unwrap_or_default();
        let finished = ours.finish(self.whole.then_some(answer));
        self.last = Some((frame, Box::pin(finished)));
    }
}

impl http_body::Body for Kept {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Polled> {
        let this = &mut *self;
        if this.last.is_none() && this.ours.is_some() {
            let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
            match &frame {
                Some(Ok(part)) => {
                    if let Some(data) = part.data_ref() {
                        this.take(data);
                        if !this.body.is_end_stream() {
                            return Poll::Ready(frame);
                        }
                    }
                }
                Some(Err(_)) => {
                    this.ours = None; // released
                    return Poll::Ready(frame);
                }
                None => {}
            }
            let trailers = frame.as_ref().and_then(|frame| frame.as_ref().ok());
            let trailers = trailers.and_then(Frame::trailers_ref).cloned();
            this.end(frame, trailers.as_ref());
        }
        let Some((_, finished)) = &mut this.last else { return Poll::Ready(None) };
        ready!(finished.as_mut().poll(cx));
        Poll::Ready(this.last.take().and_then(|(frame, _)| frame))
    }

    fn is_end_stream(&self) -> bool {
        self.ours.is_none() && self.last.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
