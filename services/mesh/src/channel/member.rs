//! The life of one endpoint: connecting, greeting, being a member of the ready
//! set while its health says SERVING, and coming back after it was lost.
//!
//! The state of an endpoint is *where its task stands*. There is no enum to fall
//! out of step.
//!
//! Invariants:
//! - A callee that is not the app and role we meant, or cannot prove it, never
//!   enters the ready set; that is logged once per address.
//! - A health watch that merely ends is begun again; the machine stays.
//! - A machine is asked for a sign of life every few seconds, and more often
//!   while somebody doubts that it lives.
//! - What has gone is tried again within a second.

use super::{
    Machine, Ready,
    connection::Connection,
    hello::{Callee, Doubt, Greeter},
    machine::Proved,
};
use crate::{discover::Endpoint, token::Issuer};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tonic::Status;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

const GREET: Duration = Duration::from_secs(2);
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);
/// Between two signs of life of a machine nobody doubts.
const CHECK: Duration = Duration::from_secs(5);
/// The same of one that did not answer.
const DOUBT: Duration = Duration::from_millis(250);
/// Before a watch that ended is begun again.
const REWATCH: Duration = Duration::from_millis(100);

/// What all endpoints of a channel share.
pub(super) struct Members {
    pub(super) greeter: Arc<Greeter>,
    pub(super) issuer: Arc<Issuer>,
    pub(super) publish: watch::Sender<Ready>,
}

/// Why an endpoint is not, or no longer, connected.
#[derive(Debug, thiserror::Error)]
enum Gone {
    #[error("cannot connect: {0}")]
    Connect(#[from] std::io::Error),
    #[error(transparent)]
    Doubt(#[from] Doubt),
    #[error("closed")]
    Closed,
}

impl Members {
    /// Keeps `endpoint` connected for as long as `listed` says that it exists;
    /// `failing` tells whether it could not be reached, `lost` is told when a
    /// member has gone.
    pub(super) async fn keep(
        self: Arc<Self>,
        endpoint: Endpoint,
        listed: impl Fn(&Endpoint) -> bool,
        failing: Arc<AtomicBool>,
        lost: impl Fn(),
    ) {
        let mut backoff = FIRST_BACKOFF;
        let mut complained = false;
        loop {
            let gone = match self.open(&endpoint).await {
                Ok((machine, first)) => {
                    backoff = FIRST_BACKOFF;
                    failing.store(false, Ordering::Relaxed);
                    tokio::select! {
                        gone = self.follow(&machine, first) => gone,
                        never = self.tend(&machine) => never,
                    }
                }
                Err(gone) => gone,
            };
            let app = &self.greeter.app;
            if matches!(gone, Gone::Doubt(Doubt::NotMeant(_))) && !complained {
                complained = true;
                tracing::warn!(app, addr = %endpoint.addr, %gone, "not the machine we meant");
            }
            tracing::debug!(app, addr = %endpoint.addr, %gone, "disconnected");
            failing.store(true, Ordering::Relaxed);
            lost();
            if !listed(&endpoint) {
                return;
            }
            time::sleep(backoff.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }

    async fn open(&self, endpoint: &Endpoint) -> Result<(Machine, Connection), Gone> {
        let app = |status: Status| Doubt::Failed(status.message().to_owned());
        let connection = Connection::open(endpoint.addr).await?;
        let began = Instant::now();
        let Callee { identity, runtimes } = self.greet(connection.clone()).await?;
        let region = endpoint.region.clone();
        let rtt = began.elapsed();
        let first = connection.clone();
        let proved = Proved { connection, region, identity, runtimes, rtt };
        let machine = Machine::new(proved, Arc::clone(&self.issuer), Arc::clone(&self.greeter));
        Ok((machine.map_err(app)?, first))
    }

    async fn greet(&self, connection: Connection) -> Result<Callee, Doubt> {
        let greeting = time::timeout(GREET, self.greeter.greet(connection)).await;
        greeting.unwrap_or_else(|_| Err(Doubt::Failed("no answer to Hello".to_owned())))
    }

    /// Is a member while the health watch says SERVING; ends with the
    /// connection. Open streams outlive that: the connection is driven by a task
    /// of its own.
    async fn follow(&self, machine: &Machine, connection: Connection) -> Gone {
        let mut member = None;
        while !connection.is_closed() {
            let mut health = HealthClient::new(connection.clone());
            let watching = health.watch(HealthCheckRequest::default());
            let mut states = match time::timeout(GREET, watching).await {
                Ok(Ok(states)) => states.into_inner(),
                Ok(Err(_)) => break,
                Err(_) => return Doubt::Failed("no answer to the health watch".to_owned()).into(),
            };
            while let Ok(Some(state)) = states.message().await {
                if state.status() == ServingStatus::Serving {
                    let join = || Membership::join(&self.publish, machine.clone());
                    member.get_or_insert_with(join);
                } else {
                    member = None;
                }
            }
            time::sleep(REWATCH).await;
        }
        drop(member);
        Gone::Closed
    }

    /// Opens the connections the machine is worth, and asks it for signs of life.
    async fn tend(&self, machine: &Machine) -> Gone {
        loop {
            while machine.wants_connection() {
                let Ok(connection) = Connection::open(machine.addr()).await else { break };
                let Ok(callee) = self.greet(connection.clone()).await else { break };
                if callee.identity != *machine.identity() {
                    break; // the address has a new owner; the first connection will end
                }
                machine.add(connection);
            }
            let doubted = !machine.load().is_usable(Instant::now());
            let pause = if doubted { DOUBT } else { CHECK.mul_f64(0.8 + 0.4 * fastrand::f64()) };
            let nudged = time::timeout(pause, machine.nudged()).await.is_ok();
            if doubted || !nudged {
                machine.is_alive().await;
            }
        }
    }
}

/// Membership of the ready set, left on drop.
struct Membership<'a> {
    publish: &'a watch::Sender<Ready>,
    machine: Machine,
}

impl<'a> Membership<'a> {
    fn join(publish: &'a watch::Sender<Ready>, machine: Machine) -> Self {
        tracing::debug!(app = machine.identity().app, addr = %machine.addr(), "ready");
        publish.send_modify(|ready| ready.machines.push(machine.clone()));
        Self { publish, machine }
    }
}

impl Drop for Membership<'_> {
    fn drop(&mut self) {
        self.publish.send_modify(|ready| {
            ready.machines.retain(|member| !member.is(&self.machine));
            if ready.machines.is_empty() {
                ready.empty_since = Instant::now();
            }
        });
    }
}
