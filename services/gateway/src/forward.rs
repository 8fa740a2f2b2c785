//! gRPC calls passed on to the router or to retrieval without being decoded.
//!
//! Invariants:
//! - A call is forwarded only with a good key of the scope its service needs,
//!   and never with the client's own credentials.
//! - Messages stream both ways; the trailers arrive as they were sent, and a
//!   connection that breaks on the way becomes a status, not a reset.
//! - Only the three public services are forwarded; anything else is
//!   UNIMPLEMENTED.

use crate::{
    door::{self, Surface},
    gateway::{Caller, Gateway},
    idempotency,
    keys::Scope,
    pace::Paced,
    room::Room,
};
use axum::{
    body::Body as AxumBody,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt as _, Limited};
use mesh::{Channel, error, h2, methods};
use pin_project_lite::pin_project;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tonic::{Status, body::Body};
use tower::ServiceExt as _;

/// Frame head of a gRPC message.
const FRAME_HEAD: usize = 5;

/// The scope a service needs and the channel it lies behind.
fn target<'a>(gateway: &'a Gateway, path: &str) -> Option<(Scope, &'a Channel)> {
    let (service, _) = path.strip_prefix('/')?.split_once('/')?;
    match service {
        "skein.agent.v1.AgentService" => Some((Scope::Agent, &gateway.router)),
        "skein.model.v1.ModelService" => Some((Scope::Model, &gateway.router)),
        "skein.retrieval.v1.RetrievalService" => Some((Scope::Retrieval, &gateway.retrieval)),
        _ => None,
    }
}

pub async fn forward(State(gateway): State<Gateway>, request: Request) -> Response {
    let path = request.uri().path();
    let target = target(&gateway, path).zip(methods::method(path));
    let Some(((scope, channel), method)) = target else {
        let message = format!("{path} is not a method of this gateway");
        return error::unimplemented(&message).into_http();
    };
    door::through(&gateway, Surface::Grpc, request, |request| async {
        let passed = pass_on(&gateway, scope, channel, method, request).await;
        passed.unwrap_or_else(Status::into_http)
    })
    .await
}

async fn pass_on(
    gateway: &Gateway,
    scope: Scope,
    channel: &Channel,
    method: methods::Method,
    mut request: Request,
) -> Result<Response, Status> {
    let call = Caller::of(&request).and_then(|caller| caller.call(scope));
    let call = call.map_err(|denied| error::to_status(&denied))?;
    clean(request.headers_mut());
    request.extensions_mut().insert(call);
    let (head, body) = request.into_parts();
    let room = Arc::new(gateway.bodies.room());
    let body = if method.client_streaming {
        Body::new(body)
    } else {
        // The channel keeps it whole, to be able to send it again.
        let paced = Paced::new(body, gateway.pace, Arc::clone(&room))?;
        Body::new(Limited::new(paced, h2::MAX_MESSAGE + FRAME_HEAD).map_err(refused))
    };
    let response = channel.clone().oneshot(Request::from_parts(head, body)).await?;
    drop(room); // the call has been passed on
    Ok(response.map(|body| AxumBody::new(Honest { body: Some(body) })))
}

/// The whole of a request, for one that has to be recognised.
pub async fn read(
    gateway: &Gateway,
    path: &str,
    body: AxumBody,
) -> Result<(Bytes, Arc<Room>), Status> {
    if methods::method(path).is_none_or(|method| method.client_streaming) {
        let rule = "is not for calls whose request is a stream: leave it out";
        return Err(error::invalid(idempotency::HEADER.as_str(), rule));
    }
    let room = Arc::new(gateway.bodies.room());
    let paced = Paced::new(body, gateway.pace, Arc::clone(&room))?;
    let body = Limited::new(paced, h2::MAX_MESSAGE + FRAME_HEAD).collect().await;
    Ok((body.map_err(refused)?.to_bytes(), room))
}

/// Why a body was not taken: too slow, no room, or too large.
fn refused(error: Box<dyn std::error::Error + Send + Sync>) -> Status {
    error.downcast::<Status>().map_or_else(|_| too_large(), |status| *status)
}

fn too_large() -> Status {
    let limit = h2::MAX_MESSAGE;
    let message = format!("the message is larger than the limit of {limit} bytes");
    error::status(error::Kind::InvalidArgument, Some("MESSAGE_TOO_LARGE"), None, message)
}

/// Leaves what means something beyond this connection, and no credentials.
fn clean(headers: &mut HeaderMap) {
    for name in [
        header::AUTHORIZATION,
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::PROXY_AUTHORIZATION,
        header::COOKIE,
        header::HOST,
        header::CONTENT_LENGTH,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ] {
        headers.remove(name);
    }
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
}

/// Lets only keys with the admin scope through to the services behind it.
pub async fn require_admin(
    State(gateway): State<Gateway>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = gateway.caller(request.headers(), request.extensions());
    match caller.and_then(|caller| caller.call(Scope::Admin)) {
        Ok(call) => {
            request.extensions_mut().insert(call);
            next.run(request).await
        }
        Err(denied) => error::to_status(&denied).into_http(),
    }
}

pin_project! {
    /// A response body whose failure is a trailer: a client can read that,
    /// which it cannot do with a reset stream.
    struct Honest<B> {
        #[pin]
        body: Option<B>,
    }
}

impl<B: HttpBody<Data = Bytes, Error = Status>> HttpBody for Honest<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let frame = std::task::ready!(body.poll_frame(cx));
        Poll::Ready(match frame {
            Some(Err(status)) => {
                this.body.set(None);
                let mut trailers = HeaderMap::new();
                Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers)))
            }
            frame => frame,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;

    #[test]
    fn credentials_and_hop_by_hop_headers_stay_here() {
        let mut headers = HeaderMap::new();
        for name in ["authorization", "cookie", "host", "connection", "x-mine", "te"] {
            headers.insert(name, HeaderValue::from_static("v"));
        }
        clean(&mut headers);
        assert_eq!((headers.len(), &headers["te"]), (2, &HeaderValue::from_static("trailers")));
        assert!(headers.contains_key("x-mine"));
    }

    #[tokio::test]
    async fn a_broken_connection_ends_with_a_status() {
        let frames = [
            Ok(Frame::data(Bytes::from_static(b"x"))),
            Err(Status::unavailable("connection broke")),
        ];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let mut body = Box::pin(Honest { body: Some(body) });
        assert!(body.frame().await.unwrap().unwrap().is_data());
        let last = body.frame().await.unwrap().unwrap();
        assert_eq!(last.trailers_ref().unwrap()["grpc-status"], "14");
        assert!(body.frame().await.is_none());
    }
}
