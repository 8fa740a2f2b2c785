//! Who may call a private service: those with a token for it.
//!
//! Invariants:
//! - Without a token only `grpc.health.v1` and `PeerService.Hello` answer.
//! - An issuer reaches the methods that are opened to it, and each call but
//!   those between machines is for a tenant.
//! - A refusal is logged here, once, with its reason; the caller learns only
//!   that it is UNAUTHENTICATED, and nothing behind this layer runs.

use crate::{
    call::{self, Call},
    deadline::Deadline,
    error::{self, Kind},
    token::{self, Checker},
};
use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

const OPEN: [&str; 3] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/skein.mesh.v1.PeerService/Hello",
];

/// Checks the token and puts the [`Call`] into the request.
pub async fn require_token(
    State(checker): State<Arc<Checker>>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    if OPEN.contains(&path) {
        return next.run(request).await;
    }
    // Nothing borrowed from the request may live across the await below.
    let checked = checker.check(header(&request, token::HEADER), path);
    match checked {
        Ok(claims) => {
            let id = header(&request, call::REQUEST_ID).filter(|id| call::is_sane_request_id(id));
            let request_id = id.map_or_else(call::new_request_id, str::to_owned);
            let deadline = request.extensions().get::<Deadline>();
            let longest = || Instant::now() + Duration::from_secs(600);
            let deadline = deadline.map_or_else(longest, |deadline| deadline.0);
            let call = Call {
                tenant: claims.tenant.into(),
                principal: claims.principal.into(),
                issuer: claims.issuer.into(),
                deadline,
                request_id: request_id.into(),
            };
            request.extensions_mut().insert(call);
            next.run(request).await
        }
        Err(refused) => {
            tracing::warn!(path, reason = %refused, "call refused");
            metrics::counter!("skein_calls_refused_total").increment(1);
            let message = "this service needs a valid token of the mesh".to_owned();
            error::status(Kind::Unauthenticated, None, None, message).into_http::<Body>()
        }
    }
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}
