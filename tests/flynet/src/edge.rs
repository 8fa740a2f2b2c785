//! The public edge: what Fly Proxy does in front of an app with `[http_service]`.
//!
//! Invariants:
//! - HTTP/2 goes on as h2c where `h2_backend` is set, everything else as HTTP/1.1.
//! - Bodies stream both ways as they come, trailers included; nothing is kept.
//! - A client that goes away takes its request to the machine with it.
//! - What a client says in `fly-*` headers never arrives; the edge's own do.
//! - A machine's load is its requests in flight, to the end of the body.

use crate::{fleet::Fleet, machine::Machine};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header,
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};
use tokio::net::TcpListener;

/// Above the 40 MiB messages and many streams of the services behind.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;
const STREAMS: u32 = 1024;

type Outgoing = Either<Counted, Full<Bytes>>;

pub(crate) struct Edge {
    fleet: Arc<Fleet>,
    /// The public app's name.
    app: String,
    /// The edge's own region.
    region: String,
    port: u16,
    h1: Client<HttpConnector, Incoming>,
    h2: Client<HttpConnector, Incoming>,
}

/// Where a request goes, and in which protocol.
struct To {
    host: SocketAddr,
    h2: bool,
}

impl Edge {
    /// In front of the machines of `app`.
    pub(crate) fn new(fleet: Arc<Fleet>, app: String, region: String, port: u16) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new());
        let h1 = builder.build(connector.clone());
        let h2 = builder
            .http2_only(true)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .build(connector);
        Self { fleet, app, region, port, h1, h2 }
    }

    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((socket, client)) => {
                    tokio::spawn(Arc::clone(&self).connection(socket, client));
                }
                // out of descriptors, or a client that is gone: the next one may be fine
                Err(error) => {
                    tracing::warn!(%error, "accept at the edge");
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, socket: tokio::net::TcpStream, client: SocketAddr) {
        let _best_effort = socket.set_nodelay(true);
        let answer = hyper::service::service_fn(move |request| {
            let edge = Arc::clone(&self);
            async move { Ok::<_, Infallible>(edge.answer(request, client).await) }
        });
        let mut server = auto::Builder::new(TokioExecutor::new());
        server.http1().timer(TokioTimer::new());
        server
            .http2()
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(STREAMS);
        if let Err(error) = server.serve_connection(TokioIo::new(socket), answer).await {
            tracing::debug!(%error, "connection at the edge");
        }
    }

    async fn answer(&self, request: Request<Incoming>, client: SocketAddr) -> Response<Outgoing> {
        let id = format!("{}-{}", uuid::Uuid::now_v7().simple(), self.region);
        let Some(machine) = self.choose(request.headers()) else {
            let text = "no machine of the app is started (`flynet ps` shows them)\n";
            return plain(StatusCode::SERVICE_UNAVAILABLE, text, &id);
        };
        let guard = InFlight::new(&machine.load);
        let config = Arc::clone(&machine.release().config);
        let (service, version) = (config.http_service.as_ref(), request.version());
        let h2 = version == Version::HTTP_2
            && service.is_some_and(|service| service.http_options.h2_backend);
        let port = service.map_or(80, |service| service.internal_port);
        let host = SocketAddr::from((machine.address, port));
        let Ok(outgoing) = self.outgoing(request, client, &To { host, h2 }, &id) else {
            return plain(StatusCode::BAD_REQUEST, "the request's target is not a path\n", &id);
        };
        let sent = if h2 { &self.h2 } else { &self.h1 }.request(outgoing).await;
        match sent {
            Ok(response) => {
                let (mut head, body) = response.into_parts();
                drop_hop_by_hop(&mut head.headers);
                mark(&mut head.headers, &id, version);
                Response::from_parts(head, Either::Left(Counted { body, _guard: guard }))
            }
            Err(error) => {
                tracing::debug!(machine = machine.id, %error, "forward at the edge");
                let text = format!(
                    "machine {} of {} at {host} did not answer ({}); see `flynet logs {}`\n",
                    machine.id,
                    machine.app,
                    cause(&error),
                    machine.id
                );
                plain(StatusCode::BAD_GATEWAY, &text, &id)
            }
        }
    }

    /// The regions the client prefers, then the edge's own; there the least loaded.
    fn choose(&self, headers: &HeaderMap) -> Option<Arc<Machine>> {
        let preferred = headers.get("fly-prefer-region").and_then(|value| value.to_str().ok());
        let mut order: Vec<&str> =
            preferred.unwrap_or_default().split(',').map(str::trim).collect();
        order.push(&self.region);
        let rank = |region: &str| order.iter().position(|r| *r == region).unwrap_or(order.len());
        let machines = self.fleet.of(&self.app);
        let routable = machines.into_iter().filter(|machine| machine.routable());
        routable.min_by_key(|machine| (rank(&machine.region), machine.load(), fastrand::u32(..)))
    }

    fn outgoing(
        &self,
        request: Request<Incoming>,
        client: SocketAddr,
        to: &To,
        id: &str,
    ) -> Result<Request<Incoming>, http::Error> {
        let (mut head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        // HTTP/2 has no host header: what the client called us stays visible to the app
        let called = head.uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
        let uri = Uri::builder().scheme("http").authority(to.host.to_string());
        let uri = uri.path_and_query(path).build()?;
        drop_hop_by_hop(&mut head.headers);
        let told: Vec<HeaderName> =
            head.headers.keys().filter(|name| name.as_str().starts_with("fly-")).cloned().collect();
        for name in told {
            head.headers.remove(name);
        }
        if let (Some(called), false) = (called, head.headers.contains_key(header::HOST)) {
            head.headers.insert(header::HOST, called);
        }
        let port = self.port.to_string();
        let ip = client.ip().to_string();
        let proto = [("x-forwarded-proto", "http"), ("x-forwarded-port", &port)];
        let fly = [("fly-client-ip", ip.as_str()), ("fly-forwarded-port", &port)];
        for (name, value) in proto.into_iter().chain(fly).chain([("fly-region", &*self.region)]) {
            head.headers.insert(name, HeaderValue::from_str(value)?);
        }
        head.headers.append("x-forwarded-for", HeaderValue::from_str(&ip)?);
        mark(&mut head.headers, id, head.version);
        head.version = if to.h2 { Version::HTTP_2 } else { Version::HTTP_11 };
        head.uri = uri;
        // hyper's own: an upgrade or an original URI is of this connection only
        head.extensions.clear();
        Ok(Request::from_parts(head, body))
    }
}

fn mark(headers: &mut HeaderMap, id: &str, version: Version) {
    let via = if version == Version::HTTP_2 { "2 fly.io" } else { "1.1 fly.io" };
    headers.append(header::VIA, HeaderValue::from_static(via));
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert("fly-request-id", id);
    }
}

/// `te: trailers` stays: gRPC needs it.
fn drop_hop_by_hop(headers: &mut HeaderMap) {
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        headers.remove(name);
    }
}

fn plain(status: StatusCode, text: &str, id: &str) -> Response<Outgoing> {
    let mut response = Response::new(Either::Right(Full::from(text.to_owned())));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    mark(response.headers_mut(), id, Version::HTTP_11);
    response
}

/// The innermost reason, which is the one that says something.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    fn new(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that is in flight until it is dropped.
struct Counted {
    body: Incoming,
    _guard: InFlight,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
