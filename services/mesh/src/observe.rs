//! Telemetry of a served call: one span and one set of metrics that live as
//! long as the response *body*, since that is where a stream does its work.
//!
//! Invariants:
//! - The outcome is recorded exactly once: by the trailers, or as `cancelled`
//!   when the caller goes away first.
//! - Labels are bounded: the method is one of the contract's, or `other`.
//! - What the machine has no room for is refused here, before any work.
//! - A panic is one failed call, INTERNAL, and never the connection's other
//!   streams or the process.

use crate::{
    error::{self, Kind},
    load::{InFlight, Load},
    methods,
};
use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::time::Instant;
use tonic::Status;
use tracing::{Instrument as _, Span};

/// Takes a call on and opens its span, as a child of the caller's trace.
pub async fn observe(State(load): State<Load>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let in_flight = match load.admit(path) {
        Ok(Some(in_flight)) => in_flight,
        Ok(None) => return next.run(request).await,
        Err(overloaded) => return error::to_status(&overloaded).into_http::<Body>(),
    };
    let label = if methods::method(path).is_some() { path.to_owned() } else { "other".to_owned() };
    let span = tracing::info_span!("rpc", otel.name = %label, otel.kind = "server");
    crate::telemetry::follow(&span, request.headers());
    let mut guard = Guard::new(label, in_flight, span.clone());
    let answer = AssertUnwindSafe(next.run(request).instrument(span)).catch_unwind().await;
    let mut response = answer.unwrap_or_else(|_panic| panicked(&guard.method).into_http::<Body>());
    blame_the_sender(response.headers_mut());
    // A refusal has its status in the headers and no body that anybody polls.
    if let Some(code) = grpc_status(response.headers()) {
        guard.outcome = code;
    }
    response.map(|body| Body::new(Observed { body: Some(body), guard }))
}

/// What the panic was about is on stderr, by the panic hook.
fn panicked(method: &str) -> Status {
    tracing::error!(method, "a handler panicked");
    metrics::counter!("skein_panics_total", "method" => method.to_owned()).increment(1);
    error::status(Kind::Internal, Some("PANIC"), None, "internal error".to_owned())
}

/// tonic calls a request that it cannot decode INTERNAL, as if it were ours.
fn blame_the_sender(headers: &mut HeaderMap) {
    let said = headers.get("grpc-message").and_then(|said| said.to_str().ok()).unwrap_or_default();
    let undecodable = said.replace("%20", " ").starts_with("failed to decode Protobuf message");
    if undecodable && headers.get("grpc-status").is_some_and(|code| code == "13") {
        headers.insert("grpc-status", HeaderValue::from_static("3"));
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<String> {
    Some(headers.get("grpc-status")?.to_str().ok()?.to_owned())
}

/// Counts a call while it lives and records its outcome when it ends.
struct Guard {
    method: String,
    began: Instant,
    _in_flight: InFlight,
    span: Span,
    outcome: String,
}

impl Guard {
    fn new(method: String, in_flight: InFlight, span: Span) -> Self {
        let outcome = "cancelled".to_owned();
        Self { method, began: Instant::now(), _in_flight: in_flight, span, outcome }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let labels = [("method", self.method.clone()), ("code", self.outcome.clone())];
        let seconds = self.began.elapsed().as_secs_f64();
        metrics::histogram!("skein_rpc_seconds", &labels).record(seconds);
        let _entered = self.span.enter();
        tracing::debug!(method = self.method, code = self.outcome, seconds, "call ended");
    }
}

pin_project! {
    struct Observed {
        #[pin]
        body: Option<Body>,
        guard: Guard,
    }
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.project();
        let _entered = this.guard.span.clone().entered();
        let mut body = this.body;
        let polled = catch_unwind(AssertUnwindSafe(|| match body.as_mut().as_pin_mut() {
            Some(body) => body.poll_frame(cx),
            None => Poll::Ready(None),
        }));
        let Ok(frame) = polled else {
            // Whatever state the body is in, nobody looks at it again.
            body.set(None);
            let mut trailers = HeaderMap::new();
            let _ = panicked(&this.guard.method).add_header(&mut trailers);
            "13".clone_into(&mut this.guard.outcome);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        };
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(code) = frame.trailers_ref().and_then(grpc_status) {
                    this.guard.outcome = code;
                }
            }
            Poll::Ready(Some(Err(_))) => "broken".clone_into(&mut this.guard.outcome),
            Poll::Ready(None) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        // True for a refusal: its headers then end the stream, as other gRPC
        // implementations insist.
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_undecodable_request_is_the_senders_fault_and_nothing_else_is() {
        for (said, code) in [
            ("failed%20to%20decode%20Protobuf%20message:%20Search.collection", "3"),
            ("failed to decode Protobuf message: invalid tag", "3"),
            ("internal error", "13"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", HeaderValue::from_static("13"));
            headers.insert("grpc-message", HeaderValue::from_static(said));
            blame_the_sender(&mut headers);
            assert_eq!(headers["grpc-status"], code, "{said}");
        }
    }
}
