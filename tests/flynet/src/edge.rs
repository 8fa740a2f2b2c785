//! The public edge: what Fly Proxy does in front of an app with `[http_service]`.
//!
//! Invariants:
//! - HTTP/2 goes on as h2c where `h2_backend` is set, everything else as HTTP/1.1.
//! - Bodies stream both ways as they come, trailers included; nothing is kept.
//! - A machine that cannot be connected to costs another try, never the request; what
//!   a machine may have seen is not sent again.
//! - A client that goes away takes its request to the machine with it.
//! - What a client says in `fly-*` headers never arrives; the edge's own do.
//! - A machine's load is its requests in flight, to the end of the body, or the
//!   clients' connections that have reached it, as its fly.toml counts.

mod body;
mod headers;

use crate::{
    fly_toml::{HttpService, Unit},
    idle::Watched,
    machine::Machine,
    proxy::{Proxy, Seat, Wish},
};
use body::{Counted, Lender, Lent};
use bytes::Bytes;
use headers::{Told, drop_hop_by_hop, mark, onward};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header, request};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};

/// Above the 40 MiB messages and many streams of the services behind.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;
const STREAMS: u32 = 1024;

type Outgoing = Either<Counted, Full<Bytes>>;

pub(crate) struct Edge {
    proxy: Arc<Proxy>,
    /// The edge's own region.
    region: String,
    port: u16,
    h1: Client<HttpConnector, Lent>,
    h2: Client<HttpConnector, Lent>,
}

/// One client's connection.
struct Connection {
    edge: Arc<Edge>,
    client: SocketAddr,
    /// Machines it has reached, where connections are counted.
    seats: Mutex<BTreeMap<String, Seat>>,
}

impl Edge {
    pub(crate) fn new(proxy: Arc<Proxy>, region: String, port: u16) -> Self {
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
        Self { proxy, region, port, h1, h2 }
    }

    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        tokio::spawn(Arc::clone(&self.proxy).autostop());
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

    async fn connection(self: Arc<Self>, socket: TcpStream, client: SocketAddr) {
        let _best_effort = socket.set_nodelay(true);
        let (cut, idle) = (self.proxy.times.cut, self.idle_timeout());
        let connection = Arc::new(Connection { edge: self, client, seats: Mutex::default() });
        let answer = hyper::service::service_fn(move |request| {
            let connection = Arc::clone(&connection);
            async move { Ok::<_, Infallible>(connection.answer(request).await) }
        });
        let mut server = auto::Builder::new(TokioExecutor::new());
        server.http1().timer(TokioTimer::new());
        server
            .http2()
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(STREAMS);
        let socket = Watched::new(socket);
        let activity = socket.activity();
        tokio::select! {
            ended = server.serve_connection(TokioIo::new(socket), answer) => {
                if let Err(error) = ended {
                    tracing::debug!(error, "connection at the edge");
                }
            }
            () = sleep(cut) => {}
            () = activity.idle(idle) => {}
        }
    }

    fn idle_timeout(&self) -> Option<Duration> {
        let machines = self.proxy.fabric.fleet.of(&self.proxy.app);
        let release = machines.first()?.release();
        let seconds = release.config.http_service.as_ref()?.http_options.idle_timeout?;
        Some(Duration::from_secs(seconds.into()))
    }

    /// The regions the client prefers, then the edge's own.
    fn wish(&self, headers: &HeaderMap) -> Wish {
        let preferred = headers.get("fly-prefer-region").and_then(|value| value.to_str().ok());
        let preferred = preferred.unwrap_or_default().split(',').map(str::trim);
        let preferred = preferred.filter(|region| !region.is_empty()).map(str::to_owned);
        Wish {
            first: preferred.chain([self.region.clone()]).collect(),
            near: self.region.clone(),
            ..Wish::default()
        }
    }
}

/// One attempt, at one machine.
struct Attempt {
    machine: Arc<Machine>,
    host: SocketAddr,
    h2: bool,
}

impl Connection {
    async fn answer(&self, request: Request<Incoming>) -> Response<Outgoing> {
        let edge = &self.edge;
        let id = format!("{}-{}", uuid::Uuid::now_v7().simple(), edge.region);
        let (head, body) = request.into_parts();
        let body = Lender::new(body);
        let mut wish = edge.wish(&head.headers);
        wish.held = self.seats().keys().cloned().collect();
        let until = Instant::now() + edge.proxy.times.queue;
        let (mut tried, mut refused) = (Vec::new(), None);
        while let Some((machine, seat)) = edge.proxy.seat(&wish, &mut tried, until).await {
            let release = machine.release();
            let Some(service) = &release.config.http_service else { break };
            let h2 = head.version == Version::HTTP_2 && service.http_options.h2_backend;
            let host = SocketAddr::from((machine.address, service.proxied.internal_port));
            let attempt = Attempt { machine, host, h2 };
            let Ok(outgoing) = self.outgoing(&head, body.lend(), &attempt, &id) else {
                let text = "the request's target is not a path\n";
                return plain(StatusCode::BAD_REQUEST, text, &id);
            };
            match if h2 { &edge.h2 } else { &edge.h1 }.request(outgoing).await {
                Ok(response) => {
                    let seat = self.keep(service, &attempt.machine.id, seat);
                    let (mut head, body) = response.into_parts();
                    drop_hop_by_hop(&mut head.headers);
                    mark(&mut head.headers, &id, head.version);
                    return Response::from_parts(head, Either::Left(Counted { body, _seat: seat }));
                }
                Err(error) if error.is_connect() && body.is_whole() => {
                    tried.push(attempt.machine.id.clone());
                    refused = Some(silent(&attempt, &error));
                }
                Err(error) => {
                    return plain(StatusCode::BAD_GATEWAY, &silent(&attempt, &error), &id);
                }
            }
        }
        match refused {
            Some(text) => plain(StatusCode::BAD_GATEWAY, &text, &id),
            None => plain(StatusCode::SERVICE_UNAVAILABLE, &edge.proxy.refusal(), &id),
        }
    }

    fn outgoing(
        &self,
        head: &request::Parts,
        body: Lent,
        to: &Attempt,
        id: &str,
    ) -> Result<Request<Lent>, http::Error> {
        let Edge { region, port, .. } = &*self.edge;
        let told = Told { id, region, port: *port, client: self.client.ip() };
        onward(head, to.host, to.h2, &told)?.body(body)
    }

    /// The seat of a request; that of a connection stays with the connection.
    fn keep(&self, service: &HttpService, machine: &str, seat: Seat) -> Option<Seat> {
        match service.proxied.concurrency.unit {
            Unit::Requests => Some(seat),
            Unit::Connections => {
                self.seats().entry(machine.to_owned()).or_insert(seat);
                None
            }
        }
    }

    fn seats(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn silent(to: &Attempt, error: &legacy::Error) -> String {
    let (id, app, host) = (&to.machine.id, &to.machine.app, to.host);
    tracing::debug!(machine = id, %error, "forward at the edge");
    let why = cause(error);
    format!("machine {id} of {app} at {host} did not answer ({why}); see `flynet logs {id}`\n")
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
