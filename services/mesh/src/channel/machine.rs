//! One connected machine: where it is, how busy we keep it, and how a request
//! goes out to it.

use crate::{
    call::{self, Call},
    deadline::{self, Until},
    error::{self, Kind},
    token::{self, Issuer},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, uri::Scheme};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use pin_project_lite::pin_project;
use skein_proto::mesh::v1::Identity;
use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Instant;
use tonic::{Status, body::Body};
use tower_service::Service;

/// Beyond any deadline, for the calls that have none.
const NO_DEADLINE: Duration = Duration::from_secs(365 * 24 * 3600);

/// A connection to one machine. Clones share it.
#[derive(Clone)]
pub struct Machine {
    pub(super) addr: SocketAddr,
    pub(super) role: &'static str,
    pub(super) region: String,
    pub(super) identity: Identity,
    pub(super) rtt: Duration,
    pub(super) send: SendRequest<Body>,
    pub(super) in_flight: Arc<AtomicUsize>,
    pub(super) issuer: Arc<Issuer>,
}

/// Why a request did not come back with a response.
pub(super) enum Failure {
    /// It never reached the wire: anybody may try it again elsewhere.
    Unsent(Box<Request<Body>>),
    /// It was on the wire when the connection broke.
    Lost(Status),
    /// Trying again would not help.
    Final(Status),
}

impl Machine {
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
    pub fn region(&self) -> &str {
        &self.region
    }
    /// Round trip of the `Hello` on this connection.
    pub fn rtt(&self) -> Duration {
        self.rtt
    }
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) async fn send(
        &self,
        request: Request<Body>,
    ) -> Result<Response<ResponseBody>, Failure> {
        let (request, deadline) = self.address(request).map_err(Failure::Final)?;
        let in_flight = InFlight::new(&self.in_flight);
        let mut send = self.send.clone();
        let mut error = match send.try_send_request(request).await {
            Ok(response) => {
                let addr = self.addr;
                return Ok(response.map(|body| {
                    Until::new(Tracked { body, addr, _in_flight: in_flight }, deadline)
                }));
            }
            Err(error) => error,
        };
        Err(match error.take_message() {
            Some(unsent) => Failure::Unsent(Box::new(unsent)),
            None => Failure::Lost(lost(self.addr, error.error())),
        })
    }

    /// Puts on the envelope what every internal call carries.
    fn address(&self, mut request: Request<Body>) -> Result<(Request<Body>, Instant), Status> {
        let mut uri = std::mem::take(request.uri_mut()).into_parts();
        uri.scheme = Some(Scheme::HTTP);
        let authority = format!("{}.internal", self.identity.app);
        uri.authority = authority.parse().ok();
        *request.uri_mut() = Uri::from_parts(uri).map_err(|error| {
            let message = format!("cannot address {authority}: {error}");
            error::status(Kind::Internal, None, None, message)
        })?;
        let Some(call) = request.extensions().get::<Call>().cloned() else {
            return Ok((request, Instant::now() + NO_DEADLINE));
        };
        let left = call.remaining();
        if left.is_zero() {
            return Err(deadline::exceeded());
        }
        let headers = request.headers_mut();
        let token = self.issuer.token(self.role, &call.principal, &call.tenant);
        put(headers, token::HEADER, &token);
        put(headers, "grpc-timeout", &deadline::to_grpc_timeout(left));
        put(headers, call::REQUEST_ID, &call.request_id);
        crate::telemetry::inject(headers);
        Ok((request, call.deadline))
    }
}

fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn lost(addr: SocketAddr, error: &dyn std::fmt::Display) -> Status {
    let message = format!("connection to {addr} broke: {error}");
    error::status(Kind::Unavailable, Some("CONNECTION_LOST"), None, message)
}

/// A typed client may be put on one machine, for calls that mean that machine.
impl Service<Request<Body>> for Machine {
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let machine = self.clone();
        Box::pin(async move {
            let deadline = request.extensions().get::<Call>().map(|call| call.deadline);
            let deadline = deadline.unwrap_or_else(|| Instant::now() + NO_DEADLINE);
            let answer = tokio::time::timeout_at(deadline, machine.send(request)).await;
            match answer {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(Failure::Lost(status) | Failure::Final(status))) => Err(status),
                Ok(Err(Failure::Unsent(_))) => Err(lost(machine.addr, &"it was closed")),
                Err(_) => Err(deadline::exceeded()),
            }
        })
    }
}

struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ends at the call's deadline, counts as in flight until it is dropped.
pub type ResponseBody = Until<Tracked>;

pin_project! {
    /// A response body whose transport errors are statuses.
    pub struct Tracked {
        #[pin]
        body: Incoming,
        addr: SocketAddr,
        _in_flight: InFlight,
    }
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let addr = *this.addr;
        this.body.poll_frame(cx).map_err(|error| lost(addr, &error))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
