//! A client channel to one app: a connection to each of its ready machines, and
//! for every call the less loaded of two of the nearest.
//!
//! Invariants:
//! - A machine is in the ready set exactly while its connection lives, it has
//!   proved in `Hello` that it is who we meant, and its health says SERVING.
//! - In-flight counts end with the response *body*, so streams weigh too.
//! - A request that never reached the wire is tried elsewhere; one that did is
//!   repeated only if the contract calls it idempotent, within the budget.
//! - No ready machine for `patience` is an error, never a hang.

mod connect;
mod machine;

pub use machine::{Machine, ResponseBody};

use crate::{
    call::Call,
    discover::Endpoints,
    error::{self, Kind},
    identity::Identity,
    keys::Keys,
    methods,
    ready::Readiness,
    retry::Budget,
    token::Issuer,
};
use connect::Connector;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use machine::Failure;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{sync::watch, time};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, body::Body};
use tower_service::Service;

/// Tries of one call, the first included.
const ATTEMPTS: usize = 4;

/// Whom to call, and as whom.
pub struct Target {
    /// The callee's role: the audience of our tokens.
    pub role: &'static str,
    /// The callee's Fly app: what `Hello` must answer.
    pub app: String,
    pub own: Identity,
    pub keys: Arc<Keys>,
    /// How long a call waits for a first ready machine.
    pub patience: Duration,
}

/// Cheap to clone; all clones share the connections.
#[derive(Clone)]
pub struct Channel(Arc<Inner>);

struct Inner {
    app: String,
    region: String,
    ready: watch::Receiver<Vec<Machine>>,
    budget: Budget,
    patience: Duration,
    _manager: AbortOnDropHandle<()>,
}

impl Channel {
    pub fn new(target: Target, endpoints: Endpoints) -> Self {
        let (publish, ready) = watch::channel(Vec::new());
        let (app, region, patience) =
            (target.app.clone(), target.own.region.clone(), target.patience);
        let issuer = Arc::new(Issuer::new(Arc::clone(&target.keys)));
        let connector = Arc::new(Connector { target, issuer, publish });
        let manager = AbortOnDropHandle::new(tokio::spawn(connector.manage(endpoints)));
        let budget = Budget::default();
        Self(Arc::new(Inner { app, region, ready, budget, patience, _manager: manager }))
    }

    /// The Fly app behind this channel.
    pub fn app(&self) -> &str {
        &self.0.app
    }

    /// The machines that could be called now.
    pub fn machines(&self) -> Vec<Machine> {
        self.0.ready.borrow().clone()
    }

    /// Waits until a machine can be called.
    pub async fn connected(&self) {
        let mut ready = self.0.ready.clone();
        if ready.wait_for(|set| !set.is_empty()).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Says in `readyz` and `status` while no machine can be called. That never
    /// makes the process itself unready. Ends with the channel.
    pub async fn report_missing(self, readiness: Readiness) {
        let mut machines = self.0.ready.clone();
        loop {
            let missing = machines.borrow_and_update().is_empty();
            let _reason = missing
                .then(|| readiness.degraded(format!("no machine of {} is ready", self.0.app)));
            let changed = |set: &Vec<_>| set.is_empty() != missing;
            if machines.wait_for(changed).await.is_err() {
                return;
            }
        }
    }

    async fn pick(&self, not: Option<&Machine>) -> Result<Machine, Status> {
        let mut ready = self.0.ready.clone();
        let wait = ready.wait_for(|set| !set.is_empty());
        let set = time::timeout(self.0.patience, wait).await;
        let picked = match set {
            Ok(Ok(set)) => pick(&set, &self.0.region, not).cloned(),
            Ok(Err(_)) | Err(_) => None,
        };
        picked.ok_or_else(|| {
            let message = format!("no machine of {} is ready", self.0.app);
            error::status(Kind::Unavailable, Some("NO_ENDPOINT"), None, message)
        })
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<ResponseBody>, Status> {
        self.0.budget.deposit();
        let repeatable = methods::method(request.uri().path())
            .is_some_and(|method| method.idempotent && !method.client_streaming);
        let (head, body) = request.into_parts();
        let (kept, mut once) = if repeatable {
            (Some(body.collect().await?.to_bytes()), None)
        } else {
            (None, Some(Request::from_parts(head.clone(), body)))
        };
        let (mut last, mut failure) = (None, None);
        for attempt in 0..ATTEMPTS {
            let request = match (&kept, once.take()) {
                (Some(bytes), _) => {
                    let body = Body::new(Full::new(bytes.clone()).map_err(|never| match never {}));
                    Request::from_parts(head.clone(), body)
                }
                (None, Some(request)) => request,
                (None, None) => break,
            };
            if attempt > 0 && failure.is_some() {
                metrics::counter!("skein_retries_total", "app" => self.0.app.clone()).increment(1);
                time::sleep(backoff(attempt)).await;
            }
            let machine = self.pick(last.as_ref()).await?;
            match machine.send(request).await {
                Ok(response) => return Ok(response),
                Err(Failure::Unsent(request)) => once = kept.is_none().then_some(*request),
                Err(Failure::Lost(status)) => {
                    let retry = repeatable && self.0.budget.withdraw();
                    if !retry {
                        return Err(status);
                    }
                    failure = Some(status);
                }
                Err(Failure::Final(status)) => return Err(status),
            }
            last = Some(machine);
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

/// Own region before others, others by measured round trip; within that the
/// less loaded of two random ones. `not` is avoided while there is a choice.
fn pick<'a>(set: &'a [Machine], region: &str, not: Option<&Machine>) -> Option<&'a Machine> {
    let others = |machine: &&Machine| not.is_none_or(|not| not.addr() != machine.addr());
    let mut choice: Vec<_> = set.iter().filter(others).collect();
    if choice.is_empty() {
        choice = set.iter().collect();
    }
    let own = |machine: &&Machine| machine.region() == region;
    if choice.iter().any(own) {
        choice.retain(own);
    } else {
        let nearest = choice.iter().min_by_key(|machine| machine.rtt())?.region().to_owned();
        choice.retain(|machine| machine.region() == nearest);
    }
    let a = fastrand::usize(..choice.len());
    let b = (a + 1 + fastrand::usize(..choice.len().max(2) - 1)) % choice.len();
    let (a, b) = (choice[a], choice[b]);
    Some(if a.in_flight() <= b.in_flight() { a } else { b })
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
