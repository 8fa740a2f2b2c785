//! A client channel to one app: connections to its ready machines, and for
//! every call the cheaper of two of the nearest.
//!
//! Invariants:
//! - A machine is in the ready set exactly while its connection lives, it has
//!   proved in `Hello` that it is who we meant, and its health says SERVING.
//! - A request that the peer has not looked at is tried elsewhere; one that it
//!   may have run is repeated only if the contract calls it idempotent, within
//!   the budget.
//! - No ready machine is an error, never a hang: calls wait for one until
//!   `patience` after the last one was lost, and not at all after that.

mod answer;
mod attempt;
mod connection;
mod hello;
mod load;
mod machine;
mod member;
mod members;
mod outgoing;
mod pick;

pub use answer::ResponseBody;
pub use machine::Machine;

use crate::{
    call::Call,
    discover::Discovery,
    error::{self, Kind},
    identity::Identity,
    keys::Keys,
    methods::{self, Method},
    ready::Readiness,
    retry::Budget,
    token::Issuer,
    wake::{self, Waker},
};
use hello::Greeter;
use http::{Request, Response};
use machine::Failure;
use member::Members;
use outgoing::Outgoing;
use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, body::Body};
use tower_service::Service;

/// Tries of one call, the first included.
const ATTEMPTS: usize = 4;
/// How long calls wait for a machine of our own region before other regions are
/// connected: at start and after a loss it is mostly back at once.
const NEARBY: Duration = Duration::from_millis(250);
/// A waiting call says so this often.
const MISSED: Duration = Duration::from_secs(1);

/// Whom to call, and as whom.
pub struct Target {
    /// The callee's role: the audience of our tokens.
    pub role: &'static str,
    /// The callee's Fly app: what `Hello` must answer.
    pub app: String,
    pub own: Identity,
    pub keys: Arc<Keys>,
    /// How long after the loss of the last machine calls wait for one.
    pub patience: Duration,
    /// How its machines can be woken, if they can.
    pub wake: Option<wake::Means>,
}

/// Cheap to clone; all clones share the connections.
#[derive(Clone)]
pub struct Channel(Arc<Inner>);

struct Inner {
    app: String,
    region: String,
    ready: watch::Receiver<Ready>,
    /// When somebody last needed another region.
    far: watch::Sender<Option<Instant>>,
    waker: Option<Waker>,
    budget: Budget,
    patience: Duration,
    _manager: AbortOnDropHandle<()>,
}

/// The machines that could be called now.
struct Ready {
    machines: Vec<Machine>,
    empty_since: Instant,
}

impl Channel {
    pub fn new(target: Target, discovery: Discovery) -> Self {
        let empty = Ready { machines: Vec::new(), empty_since: Instant::now() };
        let (publish, ready) = watch::channel(empty);
        let (far, far_wanted) = watch::channel(None);
        let Target { role, app, own, keys, patience, wake } = target;
        let region = own.region.clone();
        let issuer = Arc::new(Issuer::new(Arc::clone(&keys)));
        let waker = wake.map(|means| {
            let seen = ready.clone();
            let (app, region, caller) = (app.clone(), region.clone(), own.role);
            let discovery = discovery.clone();
            let target = wake::Target { app, region, caller, discovery, means };
            Waker::new(target, Box::new(move || seen.borrow().machines.clone()))
        });
        let greeter = Arc::new(Greeter { role, app: app.clone(), own, keys });
        let members = Arc::new(Members { greeter, issuer, publish });
        let managing = members::manage(members, discovery, region.clone(), far_wanted);
        let _manager = AbortOnDropHandle::new(tokio::spawn(managing));
        let budget = Budget::default();
        Self(Arc::new(Inner { app, region, ready, far, waker, budget, patience, _manager }))
    }

    /// The Fly app behind this channel.
    pub fn app(&self) -> &str {
        &self.0.app
    }

    /// The machines that could be called now; of other regions only when they
    /// have been needed lately.
    pub fn machines(&self) -> Vec<Machine> {
        self.0.ready.borrow().machines.clone()
    }

    /// The same after giving those of other regions a moment to be connected.
    pub async fn machines_everywhere(&self) -> Vec<Machine> {
        let mut ready = self.0.ready.clone();
        if self.need_far() {
            ready.mark_unchanged();
            let enough = Instant::now() + Duration::from_secs(1);
            let settled = || enough.min(Instant::now() + NEARBY * 2);
            while let Ok(Ok(())) = time::timeout_at(settled(), ready.changed()).await {}
        }
        self.machines()
    }

    /// Connects to machines of other regions too, for some minutes. Says whether
    /// nobody has asked for that lately.
    pub fn need_far(&self) -> bool {
        let now = Instant::now();
        self.0.far.send_if_modified(|at| {
            let stale = at.is_none_or(|at| now - at > Duration::from_secs(10));
            if stale {
                *at = Some(now);
            }
            stale
        })
    }

    /// Waits until a machine can be called.
    pub async fn connected(&self) {
        let mut ready = self.0.ready.clone();
        if ready.wait_for(|ready| !ready.machines.is_empty()).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Says in `readyz` and `status` while no machine can be called. That never
    /// makes the process itself unready. Ends with the channel.
    pub async fn report_missing(self, readiness: Readiness) {
        let mut ready = self.0.ready.clone();
        loop {
            let missing = ready.borrow_and_update().machines.is_empty();
            let _reason = missing
                .then(|| readiness.degraded(format!("no machine of {} is ready", self.0.app)));
            let mut changed = pin!(async {
                ready.wait_for(|ready| ready.machines.is_empty() != missing).await.is_ok()
            });
            let alive = match time::timeout(NEARBY, &mut changed).await {
                Ok(alive) => alive,
                Err(_) => {
                    if missing {
                        self.need_far();
                    }
                    changed.await
                }
            };
            if !alive {
                return;
            }
        }
    }

    async fn pick(&self, method: usize, not: Option<&Machine>) -> Result<Machine, Status> {
        let mut ready = self.0.ready.clone();
        loop {
            let now = Instant::now();
            let (picked, empty_since) = {
                let ready = ready.borrow_and_update();
                let picked = pick::pick(&ready.machines, &self.0.region, method, not);
                // The last one may have been lost without having left yet.
                let leaving = !ready.machines.is_empty();
                (picked, if leaving { now } else { ready.empty_since })
            };
            if let Some(machine) = picked {
                let unhappy = !machine.load().is_usable(now);
                let foreign = machine.region() != self.0.region;
                if unhappy || foreign {
                    self.need_far();
                }
                if foreign {
                    self.missed();
                }
                return Ok(machine);
            }
            if now >= empty_since + NEARBY {
                self.need_far();
            }
            let patience = self.missed().unwrap_or(now).max(empty_since + self.0.patience);
            if now >= patience {
                let message = format!("no machine of {} is ready", self.0.app);
                return Err(error::status(Kind::Unavailable, Some("NO_ENDPOINT"), None, message));
            }
            let wake = if now < empty_since + NEARBY { empty_since + NEARBY } else { now + MISSED };
            let _woken = time::timeout_at(wake.min(patience), ready.changed()).await;
        }
    }

    /// No machine of our region: somebody may wake one. Until when that may be
    /// worth waiting for.
    fn missed(&self) -> Option<Instant> {
        self.0.waker.as_ref().map(Waker::missed)
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<ResponseBody>, Status> {
        self.0.budget.deposit();
        let method = methods::method(request.uri().path());
        let index = method.map_or(usize::MAX, |method| method.index);
        let repeatable = method.is_some_and(Method::repeatable);
        let (head, body) = request.into_parts();
        let mut outgoing = Outgoing::new(method, body).await?;
        let (mut last, mut failure) = (None::<Machine>, None);
        let mut attempt = 0;
        while attempt < ATTEMPTS {
            let Some(request) = outgoing.request(&head) else { break };
            if failure.is_some() {
                metrics::counter!("skein_retries_total", "app" => self.0.app.clone()).increment(1);
                time::sleep(backoff(attempt)).await;
            }
            let machine = match self.pick(index, last.as_ref()).await {
                Ok(machine) => machine,
                Err(status) => return Err(failure.unwrap_or(status)),
            };
            let (again, status) = match self.attempt(&machine, request, method).await {
                Ok(response) => return Ok(response),
                Err(Failure::Unsent(request)) => {
                    // No try: nobody has seen it, and the machine is not picked again.
                    outgoing.put_back(request.into_body());
                    last = Some(machine);
                    tokio::task::yield_now().await;
                    continue;
                }
                Err(Failure::Refused(status)) => (true, status),
                Err(Failure::Busy(status)) => (self.has_other(&machine), status),
                Err(Failure::Lost(status)) => (repeatable, status),
                Err(Failure::Final(status)) => return Err(status),
            };
            let again = again && outgoing.can_repeat() && attempt + 1 < ATTEMPTS;
            if !(again && self.0.budget.withdraw()) {
                return Err(error::already_retried(&status));
            }
            failure = Some(status);
            last = Some(machine);
            attempt += 1;
        }
        Err(failure.unwrap_or_else(|| {
            let message = format!("every chosen machine of {} went away", self.0.app);
            error::status(Kind::Unavailable, Some("NO_ENDPOINT"), None, message)
        }))
    }
}

fn backoff(attempt: usize) -> Duration {
    let longest = Duration::from_millis(20) * (1 << attempt.min(4));
    longest.mul_f64(fastrand::f64())
}

impl Service<Request<Body>> for Channel {
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let channel = self.clone();
        Box::pin(async move {
            let deadline = request.extensions().get::<Call>().map(|call| call.deadline);
            match deadline {
                Some(deadline) => time::timeout_at(deadline, channel.send(request))
                    .await
                    .unwrap_or_else(|_| Err(crate::deadline::exceeded())),
                None => channel.send(request).await,
            }
        })
    }
}
