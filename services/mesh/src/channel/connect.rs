//! Keeps one connection to every endpoint of the latest snapshot.
//!
//! The state of an endpoint is *where its task stands*: connecting, greeting,
//! watching its health. There is no enum to fall out of step.
//!
//! Invariants:
//! - An endpoint that DNS no longer names stays while its connection is alive
//!   and healthy, and is forgotten when that ends: DNS may blink.
//! - A callee that is not the app and role we meant, or cannot prove it, never
//!   enters the ready set; that is logged once per address.

use super::{Machine, Target};
use crate::{
    discover::{Endpoint, Endpoints},
    h2,
    peer::hello_text,
    token::Issuer,
};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use skein_proto::mesh::v1::{HelloRequest, Identity, peer_service_client::PeerServiceClient};
use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{self, Instant},
};
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

const CONNECT: Duration = Duration::from_secs(1);
const GREET: Duration = Duration::from_secs(2);
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

pub(super) struct Connector {
    pub(super) target: Target,
    pub(super) issuer: Arc<Issuer>,
    pub(super) publish: watch::Sender<Vec<Machine>>,
}

/// Why an endpoint is not, or no longer, connected.
#[derive(Debug, thiserror::Error)]
enum Gone {
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("{0}")]
    NotMeant(String),
    #[error("greeting failed: {0}")]
    Greeting(String),
    #[error("closed")]
    Closed,
}

impl Connector {
    pub(super) async fn manage(self: Arc<Self>, mut endpoints: Endpoints) {
        let mut tasks: HashMap<SocketAddr, AbortOnDropHandle<()>> = HashMap::new();
        loop {
            let wanted = Arc::clone(&endpoints.borrow_and_update());
            tasks.retain(|_, task| !task.is_finished());
            for endpoint in wanted.iter() {
                tasks.entry(endpoint.addr).or_insert_with(|| {
                    let keep = Arc::clone(&self).keep(endpoint.clone(), endpoints.clone());
                    AbortOnDropHandle::new(tokio::spawn(keep))
                });
            }
            if endpoints.changed().await.is_err() {
                std::future::pending::<()>().await; // a fixed set never changes again
            }
        }
    }

    async fn keep(self: Arc<Self>, endpoint: Endpoint, endpoints: Endpoints) {
        let mut backoff = FIRST_BACKOFF;
        let mut complained = false;
        loop {
            let gone = self.connected(&endpoint, &mut backoff).await;
            if !endpoints.borrow().contains(&endpoint) {
                return;
            }
            let app = &self.target.app;
            if matches!(gone, Gone::NotMeant(_)) && !complained {
                complained = true;
                tracing::warn!(app, addr = %endpoint.addr, %gone, "not the machine we meant");
            }
            tracing::debug!(app, addr = %endpoint.addr, %gone, "disconnected");
            time::sleep(backoff.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }

    /// Connects, greets, and stays a member of the ready set while the health
    /// watch says SERVING. Open streams outlive the end of this: the connection
    /// is driven by a task of its own.
    async fn connected(&self, endpoint: &Endpoint, backoff: &mut Duration) -> Gone {
        let machine = match self.open(endpoint).await {
            Ok(machine) => machine,
            Err(gone) => return gone,
        };
        let mut health = HealthClient::new(machine.clone());
        let watching = health.watch(HealthCheckRequest::default());
        let mut states = match time::timeout(GREET, watching).await {
            Ok(Ok(states)) => states.into_inner(),
            Ok(Err(status)) => return Gone::Greeting(status.message().to_owned()),
            Err(_) => return Gone::Greeting("no answer to the health watch".to_owned()),
        };
        let mut member = None;
        while let Ok(Some(state)) = states.message().await {
            if state.status() == ServingStatus::Serving {
                *backoff = FIRST_BACKOFF;
                if member.is_none() {
                    member = Some(Membership::join(&self.publish, machine.clone()));
                }
            } else {
                member = None;
            }
        }
        drop(member);
        Gone::Closed
    }

    async fn open(&self, endpoint: &Endpoint) -> Result<Machine, Gone> {
        let connect = |error: &dyn std::fmt::Display| Gone::Connect(error.to_string());
        let stream = time::timeout(CONNECT, TcpStream::connect(endpoint.addr))
            .await
            .map_err(|error| connect(&error))?
            .map_err(|error| connect(&error))?;
        stream.set_nodelay(true).map_err(|error| connect(&error))?;
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(h2::STREAM_WINDOW)
            .initial_connection_window_size(h2::CONNECTION_WINDOW)
            .keep_alive_interval(h2::PING_INTERVAL)
            .keep_alive_timeout(h2::PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake::<_, Body>(TokioIo::new(stream));
        let (send, connection) = time::timeout(CONNECT, handshake)
            .await
            .map_err(|error| connect(&error))?
            .map_err(|error| connect(&error))?;
        tokio::spawn(connection);
        let mut machine = Machine {
            addr: endpoint.addr,
            role: self.target.role,
            region: endpoint.region.clone(),
            identity: Identity { app: self.target.app.clone(), ..Identity::default() },
            rtt: Duration::ZERO,
            send,
            in_flight: Arc::default(),
            issuer: Arc::clone(&self.issuer),
        };
        let began = Instant::now();
        let callee = time::timeout(GREET, self.greet(machine.clone()))
            .await
            .map_err(|_| Gone::Greeting("no answer to Hello".to_owned()))??;
        machine.rtt = began.elapsed();
        machine.identity = callee;
        Ok(machine)
    }

    async fn greet(&self, machine: Machine) -> Result<Identity, Gone> {
        let mut nonce = vec![0; 32];
        getrandom::fill(&mut nonce).map_err(|error| Gone::Greeting(error.to_string()))?;
        let caller = Some(self.target.own.to_wire());
        let hello = HelloRequest { nonce: nonce.clone().into(), caller };
        let answer = PeerServiceClient::new(machine).hello(hello).await;
        let answer = answer.map_err(|status| Gone::Greeting(status.message().to_owned()))?;
        let answer = answer.into_inner();
        let callee = answer.callee.unwrap_or_default();
        let (app, role) = (&self.target.app, self.target.role);
        if callee.app != *app || callee.role != role {
            let message = format!("it says it is {:?} ({:?})", callee.app, callee.role);
            return Err(Gone::NotMeant(message));
        }
        let text = hello_text(&nonce, &callee);
        if !self.target.keys.verify(role, &text, &answer.signature) {
            return Err(Gone::NotMeant(format!("it cannot prove that it is {app}")));
        }
        Ok(callee)
    }
}

/// Membership of the ready set, left on drop.
struct Membership<'a> {
    publish: &'a watch::Sender<Vec<Machine>>,
    addr: SocketAddr,
}

impl<'a> Membership<'a> {
    fn join(publish: &'a watch::Sender<Vec<Machine>>, machine: Machine) -> Self {
        let addr = machine.addr;
        publish.send_modify(|ready| ready.push(machine));
        Self { publish, addr }
    }
}

impl Drop for Membership<'_> {
    fn drop(&mut self) {
        self.publish.send_modify(|ready| ready.retain(|member| member.addr != self.addr));
    }
}
