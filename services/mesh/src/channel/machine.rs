//! One machine we are connected to: who it is, how loaded it is, and how a
//! request goes out to it.
//!
//! Invariants:
//! - A request leaves with a token for its callee, its deadline and its trace.
//! - Many callers that doubt a machine at once cost it one `Hello`.

use super::{
    answer::{InFlight, ResponseBody},
    connection::{self, Connection, lost},
    hello::Greeter,
    load::Load,
};
use crate::{
    call::{self, Call},
    deadline,
    error::{self, Kind},
    h2,
    methods::Method,
    token::{self, Issuer},
};
use http::{HeaderMap, HeaderValue, Request, Response, uri::Authority};
use skein_proto::mesh::v1::Identity;
use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{self, Instant},
};
use tonic::{Code, Status, body::Body};
use tower_service::Service;

/// Beyond any deadline, for the calls that have none.
const NO_DEADLINE: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long a machine has to show that it lives, and how many round trips.
const PROOF: Duration = Duration::from_secs(1);
/// Streams on a connection beyond which another one is worth opening.
const CROWDED: usize = h2::STREAMS as usize / 5 * 4;
const MOST_CONNECTIONS: usize = 8;
/// How long a machine that is too busy is left alone when it does not say.
const BUSY: Duration = Duration::from_millis(100);

/// Clones share the machine's connections and load.
#[derive(Clone)]
pub struct Machine(Arc<Shared>);

struct Shared {
    addr: SocketAddr,
    region: String,
    identity: Identity,
    authority: Authority,
    issuer: Arc<Issuer>,
    greeter: Arc<Greeter>,
    /// Connections worth having, as the machine said.
    runtimes: usize,
    rtt_us: AtomicU64,
    load: Load,
    connections: Mutex<Vec<Connection>>,
    proof: tokio::sync::Mutex<Proof>,
    nudge: Notify,
}

/// The outcome of the last `Hello`.
struct Proof {
    at: Instant,
    alive: bool,
}

/// Why a request did not come back with a response.
pub(super) enum Failure {
    /// It never reached the wire.
    Unsent(Box<Request<Body>>),
    /// It reached the peer, which says that it has not looked at it.
    Refused(Status),
    /// The peer had too much to do to look at it.
    Busy(Status),
    /// It was on the wire when the connection broke.
    Lost(Status),
    /// Trying again would not help.
    Final(Status),
}

impl Failure {
    pub(super) fn status(self, addr: SocketAddr) -> Status {
        match self {
            Self::Unsent(_) => lost(addr, &"it was closed"),
            Self::Refused(status) | Self::Busy(status) => status,
            Self::Lost(status) | Self::Final(status) => status,
        }
    }
}

/// What a machine is made from once it has proved itself.
pub(super) struct Proved {
    pub(super) connection: Connection,
    pub(super) region: String,
    pub(super) identity: Identity,
    pub(super) runtimes: usize,
    pub(super) rtt: Duration,
}

impl Machine {
    pub(super) fn new(
        proved: Proved,
        issuer: Arc<Issuer>,
        greeter: Arc<Greeter>,
    ) -> Result<Self, Status> {
        let Proved { connection, region, identity, runtimes, rtt } = proved;
        let authority = format!("{}.internal", identity.app);
        let authority = Authority::try_from(authority).map_err(|error| {
            let message = format!("{:?} is no app name: {error}", identity.app);
            error::status(Kind::Internal, None, None, message)
        })?;
        Ok(Self(Arc::new(Shared {
            addr: connection.addr,
            region,
            identity,
            authority,
            issuer,
            greeter,
            runtimes: runtimes.clamp(1, MOST_CONNECTIONS),
            rtt_us: AtomicU64::new(micros(rtt)),
            load: Load::new(),
            connections: Mutex::new(vec![connection]),
            proof: tokio::sync::Mutex::new(Proof { at: Instant::now(), alive: true }),
            nudge: Notify::new(),
        })))
    }

    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }
    pub fn addr(&self) -> SocketAddr {
        self.0.addr
    }
    /// Where DNS says it is.
    pub fn region(&self) -> &str {
        &self.0.region
    }
    /// Round trip of a `Hello`, smoothed.
    pub fn rtt(&self) -> Duration {
        Duration::from_micros(self.0.rtt_us.load(Ordering::Relaxed))
    }
    /// Calls we have in flight there.
    pub fn in_flight(&self) -> usize {
        self.0.load.in_flight()
    }
    pub(super) fn load(&self) -> &Load {
        &self.0.load
    }
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The open connection with the fewest streams.
    fn connection(&self) -> Option<Connection> {
        let mut connections = self.0.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|connection| !connection.is_closed());
        let least = connections.iter().min_by_key(|connection| connection.streams())?.clone();
        if least.streams() >= CROWDED && connections.len() < MOST_CONNECTIONS {
            self.0.nudge.notify_one();
        }
        Some(least)
    }

    /// Whether a request could go out to it: a connection may end a moment before
    /// the machine leaves the ready set.
    pub(super) fn is_connected(&self) -> bool {
        let connections = self.0.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.iter().any(|connection| !connection.is_closed())
    }

    /// Whether another connection is worth opening.
    pub(super) fn wants_connection(&self) -> bool {
        let connections = self.0.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let crowded = connections.iter().all(|connection| connection.streams() >= CROWDED);
        let open = connections.len();
        open < self.0.runtimes || (crowded && open < MOST_CONNECTIONS)
    }

    pub(super) fn add(&self, connection: Connection) {
        self.0.connections.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    /// Until somebody doubts that it lives, or finds its connections crowded.
    pub(super) async fn nudged(&self) {
        self.0.nudge.notified().await;
    }

    /// Asks for a sign of life. Whoever asks while an answer is under way gets
    /// that one.
    pub(super) async fn is_alive(&self) -> bool {
        let asked = Instant::now();
        let mut proof = self.0.proof.lock().await;
        if proof.at >= asked {
            return proof.alive;
        }
        let began = Instant::now();
        let patience = PROOF.max(4 * self.rtt());
        let hello = async {
            let connection = self.connection()?;
            let callee = self.0.greeter.greet(connection).await.ok()?;
            (callee.identity == self.0.identity).then_some(())
        };
        let alive = time::timeout(patience, hello).await.is_ok_and(|answer| answer.is_some());
        let now = Instant::now();
        *proof = Proof { at: now, alive };
        if alive {
            let (old, new) = (self.rtt(), now - began);
            self.0.rtt_us.store(micros((old * 3 + new) / 4), Ordering::Relaxed);
        }
        if self.0.load.set_suspect(!alive, now) {
            let (app, machine) = (&self.0.identity.app, &self.0.identity.machine);
            tracing::info!(app, machine, alive, "a machine that was doubted");
            self.0.nudge.notify_one();
        }
        alive
    }

    /// `method` of the contract, where it is one.
    pub(super) async fn send(
        &self,
        request: Request<Body>,
        method: Option<Method>,
    ) -> Result<Response<ResponseBody>, Failure> {
        let began = Instant::now();
        let (request, deadline) = self.address(request).map_err(Failure::Final)?;
        let in_flight = InFlight::new(self);
        let Some(connection) = self.connection() else {
            return Err(Failure::Unsent(Box::new(request)));
        };
        let response = connection.send(request).await?;
        let whole = method.is_some_and(|m| m.repeatable() && !m.server_streaming);
        let (head, body) = response.into_parts();
        let (body, trailers) = if whole {
            ResponseBody::gather(body).await?
        } else {
            (ResponseBody::live(body, deadline, in_flight), None)
        };
        let index = method.map_or(usize::MAX, |method| method.index);
        self.judge(trailers.as_ref().unwrap_or(&head.headers), index, began)?;
        Ok(Response::from_parts(head, body))
    }

    /// Learns from an answer, of which `headers` are those with the status.
    fn judge(&self, headers: &HeaderMap, method: usize, began: Instant) -> Result<(), Failure> {
        let now = Instant::now();
        let code =
            headers.get("grpc-status").map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()));
        match code {
            Code::Internal | Code::Unknown | Code::DataLoss => {
                if self.0.load.failed(now) {
                    let (app, machine) = (&self.0.identity.app, &self.0.identity.machine);
                    tracing::warn!(app, machine, "ejected: it answers with errors alone");
                    metrics::counter!("skein_ejections_total", "app" => app.clone()).increment(1);
                }
            }
            Code::ResourceExhausted => {
                let status = Status::from_header_map(headers)
                    .filter(|status| error::reason(status).as_deref() == Some("OVERLOADED"))
                    .filter(|status| !error::was_retried(status));
                if let Some(status) = status {
                    self.0.load.busy(error::retry_after(&status).unwrap_or(BUSY), now);
                    return Err(Failure::Busy(status));
                }
            }
            _ => self.0.load.answered(method, now - began, now),
        }
        Ok(())
    }

    /// Puts on the envelope what every internal call carries.
    fn address(&self, mut request: Request<Body>) -> Result<(Request<Body>, Instant), Status> {
        connection::address(&mut request, &self.0.authority)?;
        let Some(call) = request.extensions().get::<Call>().cloned() else {
            return Ok((request, Instant::now() + NO_DEADLINE));
        };
        let left = call.remaining();
        if left.is_zero() {
            return Err(deadline::exceeded());
        }
        let headers = request.headers_mut();
        let token = self.0.issuer.token(self.0.greeter.role(), &call.principal, &call.tenant);
        put(headers, token::HEADER, &token);
        put(headers, "grpc-timeout", &deadline::to_grpc_timeout(left));
        put(headers, call::REQUEST_ID, &call.request_id);
        crate::telemetry::inject(headers);
        Ok((request, call.deadline))
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
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
            let method = crate::methods::method(request.uri().path());
            match time::timeout_at(deadline, machine.send(request, method)).await {
                Ok(answer) => answer.map_err(|failure| failure.status(machine.0.addr)),
                Err(_) => Err(deadline::exceeded()),
            }
        })
    }
}
