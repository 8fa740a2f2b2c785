//! Deadlines that cover the whole call, body included, and say so honestly.
//!
//! tonic's own timer stops at the response headers and reports `Cancelled`.
//!
//! Invariants:
//! - No call lives past `grpc-timeout`, nor past the server's longest. The
//!   exception is a health watch that names no timeout: it tells a caller
//!   whether to call at all, so ending it would take a healthy machine out of
//!   the caller's ready set. It ends with its connection, whose PING finds out
//!   when the watcher is gone, or when the machine leaves.
//! - The clock is asked before the body: a body that is always ready would
//!   never yield to it.

use axum::body::Body as AxumBody;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tower_layer::Layer;
use tower_service::Service;

use crate::error::{self, Kind};

const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";

/// The moment after which nobody waits for the answer; a request extension.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub Instant);

/// Ends every call at its `grpc-timeout`, at the latest after `max`.
#[derive(Clone, Copy, Debug)]
pub struct DeadlineLayer {
    pub max: Duration,
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Enforce<S>;
    fn layer(&self, inner: S) -> Enforce<S> {
        Enforce { inner, max: self.max }
    }
}

#[derive(Clone)]
pub struct Enforce<S> {
    inner: S,
    max: Duration,
}

impl<S, A> Service<Request<A>> for Enforce<S>
where
    S: Service<Request<A>, Response = Response<AxumBody>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<AxumBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        let named = grpc_timeout(request.headers());
        if named.is_none() && request.uri().path() == HEALTH_WATCH {
            return Box::pin(self.inner.call(request));
        }
        let wanted = named.unwrap_or(self.max).min(self.max);
        let deadline = Instant::now() + wanted;
        request.extensions_mut().insert(Deadline(deadline));
        let answer = self.inner.call(request);
        Box::pin(async move {
            Ok(match tokio::time::timeout_at(deadline, answer).await {
                Ok(answer) => answer?.map(|body| AxumBody::new(Until::new(body, deadline))),
                Err(_) => exceeded().into_http::<AxumBody>(),
            })
        })
    }
}

/// What a caller hears whose time is up.
pub fn exceeded() -> Status {
    error::status(Kind::DeadlineExceeded, None, None, "deadline exceeded".to_owned())
}

pin_project! {
    /// A body that ends with a `DEADLINE_EXCEEDED` trailer when time is up.
    pub struct Until<B> {
        #[pin]
        body: Option<B>,
        #[pin]
        sleep: Sleep,
    }
}

impl<B> Until<B> {
    pub fn new(body: B, deadline: Instant) -> Self {
        Self { body: Some(body), sleep: tokio::time::sleep_until(deadline) }
    }
}

impl<B: Body<Data = Bytes>> Body for Until<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        if this.sleep.poll(cx).is_pending() {
            return body.poll_frame(cx);
        }
        // Dropping the body is what cancels the work behind it.
        this.body.set(None);
        let mut trailers = HeaderMap::new();
        let _ = exceeded().add_header(&mut trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

/// Parses `grpc-timeout`: at most eight digits and one unit letter.
pub fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Writes `left` as `grpc-timeout`: milliseconds, or seconds beyond eight digits.
pub fn to_grpc_timeout(left: Duration) -> String {
    let millis = left.as_millis().max(1);
    let seconds = left.as_secs().min(99_999_999); // the format has eight digits
    if millis < 100_000_000 { format!("{millis}m") } else { format!("{seconds}S") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt as _, StreamBody};

    fn parse(value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", value.parse().unwrap());
        grpc_timeout(&headers)
    }

    #[test]
    fn timeouts_read_as_grpc_writes_them() {
        assert_eq!(parse("300m"), Some(Duration::from_millis(300)));
        assert_eq!(parse("5S"), Some(Duration::from_secs(5)));
        for wrong in ["", "m", "5", "-5m", "123456789m", "5x"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        for left in [Duration::from_millis(300), Duration::from_secs(600)] {
            assert_eq!(parse(&to_grpc_timeout(left)), Some(left));
        }
        assert!(parse(&to_grpc_timeout(Duration::from_secs(400_000_000))).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_rests_still_ends() {
        let endless = futures_util::stream::repeat_with(|| {
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x")))
        });
        let deadline = Instant::now() + Duration::from_millis(300);
        let mut body = Box::pin(Until::new(StreamBody::new(endless), deadline));
        assert!(body.frame().await.unwrap().unwrap().is_data());
        tokio::time::advance(Duration::from_millis(301)).await;
        let last = body.frame().await.unwrap().unwrap();
        assert_eq!(last.trailers_ref().unwrap()["grpc-status"], "4");
        assert!(body.frame().await.is_none());
    }
}
