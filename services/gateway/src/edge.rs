//! What happens to every request at the door: its id, what is stripped from
//! it, and what is recorded of it.
//!
//! Invariants:
//! - Headers that mean something inside (`x-skein-*`, `fly-*`) never come from
//!   outside.
//! - A request is recorded once, when its body ends or its client leaves; no
//!   header value and no body is ever part of the record.
//! - Labels are bounded: an unknown path is `other`.
//! - A client that reads nothing, or keeps reflection open, takes no place among
//!   those in flight: neither needs a key.
//! - What this machine has no room for is refused here, before anything is read.

use crate::{
    gateway::{Counted, Gateway, OnLeash, RequestId},
    openai::error::Refusal,
};
use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body::{Body as _, Frame, SizeHint};
use mesh::{call, error::to_status, methods, telemetry};
use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::time::Instant;
use tonic::Status;
use tracing::Instrument as _;

const REGION: HeaderName = HeaderName::from_static("x-skein-region");
const REFLECTION: &str = "/grpc.reflection";
const REQUEST_ID: HeaderName = HeaderName::from_static(call::REQUEST_ID);

pub async fn edge(State(gateway): State<Gateway>, mut request: Request, next: Next) -> Response {
    let route = route(request.uri().path());
    if is_probe(&route) {
        return next.run(request).await;
    }
    let in_flight = match gateway.load.admit(request.uri().path()) {
        Ok(in_flight) => in_flight,
        Err(overloaded) => return refused(&to_status(&overloaded), grpc(request.headers())),
    };
    let dialect = grpc(request.headers());
    strip(request.headers_mut());
    let given = request.headers().get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    let id: Arc<str> = match given.filter(|id| call::is_sane_request_id(id)) {
        Some(id) => id.into(),
        None => call::new_request_id().into(),
    };
    request.extensions_mut().insert(RequestId(Arc::clone(&id)));
    let counted = in_flight.map(|in_flight| Counted(Arc::new(in_flight)));
    if let Some(counted) = counted.clone() {
        request.extensions_mut().insert(counted);
    }
    let method = request.method().clone();
    let span = tracing::info_span!("request", otel.name = %route, otel.kind = "server", %method, request_id = %id);
    telemetry::follow(&span, request.headers());
    let mut record = Record::new(route, counted, span.clone());
    let mut response = if request.headers().len() > gateway.max_headers {
        Refusal::too_many_headers(gateway.max_headers).into_response()
    } else {
        let answer = AssertUnwindSafe(next.run(request).instrument(span)).catch_unwind().await;
        answer.unwrap_or_else(|_panic| panicked(&record.route, dialect))
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    if let (false, Ok(region)) =
        (headers.contains_key(&REGION), HeaderValue::from_str(&gateway.region))
    {
        headers.insert(REGION, region);
    }
    let status = outcome(headers).unwrap_or_else(|| response.status().as_str().to_owned());
    let on_leash = response.extensions_mut().remove::<OnLeash>().is_some();
    response.map(|body| {
        // Nobody has to read an answer: work that is done counts no longer, and
        // what is on a leash is counted there.
        if on_leash || body.size_hint().exact().is_some() {
            record.counted = None;
        }
        // Nobody polls an empty body: what there is to say is said now.
        let empty = http_body::Body::is_end_stream(&body);
        if empty {
            record.status.clone_from(&status);
        }
        let status = (!empty).then_some(status);
        Body::new(Recorded { body, record, status })
    })
}

/// One failed request, and never the connection's other streams. What the panic
/// was about is on stderr, by the panic hook.
fn panicked(route: &str, dialect: Option<HeaderValue>) -> Response {
    tracing::error!(route, "a handler panicked");
    metrics::counter!("skein_panics_total", "method" => route.to_owned()).increment(1);
    refused(&Status::internal("internal error"), dialect)
}

/// The media type of a gRPC or gRPC-Web request.
fn grpc(headers: &HeaderMap) -> Option<HeaderValue> {
    let media_type = headers.get(header::CONTENT_TYPE);
    media_type.filter(|value| value.as_bytes().starts_with(b"application/grpc")).cloned()
}

/// In the dialect of the request.
fn refused(status: &Status, grpc: Option<HeaderValue>) -> Response {
    let Some(grpc) = grpc else { return Refusal::from_status(status).into_response() };
    let mut response = status.clone().into_http::<Body>();
    response.headers_mut().insert(header::CONTENT_TYPE, grpc); // gRPC-Web keeps its own
    response
}

fn strip(headers: &mut HeaderMap) {
    let inner = |name: &&HeaderName| {
        name.as_str().starts_with("x-skein-") || name.as_str().starts_with("fly-")
    };
    let names: Vec<_> = headers.keys().filter(inner).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn route(path: &str) -> String {
    match path {
        "/v1/chat/completions"
        | "/v1/embeddings"
        | "/v1/images/generations"
        | "/v1/models"
        | "/healthz"
        | "/readyz" => path.to_owned(),
        model if model.starts_with("/v1/models/") => "/v1/models/{id}".to_owned(),
        health if health.starts_with("/grpc.health.") => "/grpc.health.v1.Health".to_owned(),
        asked if asked.starts_with("/grpc.reflection.") => REFLECTION.to_owned(),
        rpc if methods::method(rpc).is_some() => rpc.to_owned(),
        _ => "other".to_owned(),
    }
}

/// Probes are not work: counting them would keep an idle machine awake. Nor are
/// questions that are served without a key: they would take the callers' places.
fn is_probe(route: &str) -> bool {
    matches!(route, "/healthz" | "/readyz" | "/grpc.health.v1.Health" | REFLECTION)
}

fn outcome(headers: &HeaderMap) -> Option<String> {
    Some(format!("grpc {}", headers.get("grpc-status")?.to_str().ok()?))
}

/// A request while it lives.
struct Record {
    route: String,
    began: Instant,
    counted: Option<Counted>,
    span: tracing::Span,
    status: String,
}

impl Record {
    fn new(route: String, counted: Option<Counted>, span: tracing::Span) -> Self {
        metrics::gauge!("skein_gateway_in_flight").increment(1.0);
        let status = "left".to_owned();
        Self { route, began: Instant::now(), counted, span, status }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        metrics::gauge!("skein_gateway_in_flight").decrement(1.0);
        let seconds = self.began.elapsed().as_secs_f64();
        let labels = [("route", self.route.clone()), ("status", self.status.clone())];
        metrics::counter!("skein_gateway_requests_total", &labels).increment(1);
        metrics::histogram!("skein_gateway_seconds", "route" => self.route.clone()).record(seconds);
        let _entered = self.span.enter();
        tracing::debug!(route = self.route, status = self.status, seconds, "request ended");
    }
}

pin_project_lite::pin_project! {
    /// A response body that ends its record. Dropped before its end, the record
    /// says that the client left.
    struct Recorded {
        #[pin]
        body: Body,
        record: Record,
        status: Option<String>,
    }
}

impl http_body::Body for Recorded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut this = self.project();
        let frame = this.body.as_mut().poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(status) = frame.trailers_ref().and_then(outcome) {
                    this.record.status = status;
                    *this.status = None;
                } else if http_body::Body::is_end_stream(&*this.body)
                    && let Some(status) = this.status.take()
                {
                    // The last frame: hyper will not ask for another.
                    this.record.status = status;
                }
            }
            Poll::Ready(None) => {
                if let Some(status) = this.status.take() {
                    this.record.status = status;
                }
            }
            Poll::Ready(Some(Err(_))) => {
                "broken".clone_into(&mut this.record.status);
                *this.status = None;
            }
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        // Honest even for a refusal: its headers then end the stream, and
        // gRPC's C core takes nothing else for a status.
        http_body::Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_looks_as_if_it_came_from_inside() {
        let mut headers = HeaderMap::new();
        for name in ["x-skein-token", "x-skein-region", "fly-region", "x-mine", "authorization"] {
            headers.insert(name, HeaderValue::from_static("v"));
        }
        strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "x-mine"]);
    }

    #[test]
    fn labels_are_bounded() {
        assert_eq!(route("/v1/models/a/b"), "/v1/models/{id}");
        assert_eq!(route("/wp-login.php"), "other");
        let rpc = "/skein.model.v1.ModelService/Generate";
        assert_eq!(route(rpc), rpc);
    }
}
