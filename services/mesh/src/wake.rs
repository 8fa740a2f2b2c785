//! Waking machines of an app that we call: the caller's side of scale to zero.
//!
//! A machine that has nothing to do leaves ([`crate::idle`]), so a caller may
//! find its own region empty, or the whole app. It then asks
//! 1. any live machine of that app to start one in our region
//!    (`PeerService.Wake`), while calls go to the next best region;
//! 2. when nothing of the app is started, Fly's proxy, which starts a machine
//!    for whoever connects to `<app>.flycast`, while calls wait for it.
//!
//! Invariants:
//! - One question a second at most, after a random moment; fewer while nothing
//!   comes of them and other regions serve.
//! - Only what the platform says exists is woken: a region without machines of
//!   the app is never asked for, and flycast never while something is started.
//! - Nobody waits for a wake that was not asked for, nor longer than `WOKEN`.

use crate::{
    call::Call,
    channel::Machine,
    discover::{Discovery, Resolver},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use skein_proto::mesh::v1::{WakeRequest, peer_service_client::PeerServiceClient};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::Notify,
    time::{self, Instant},
};
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;

const JITTER: Duration = Duration::from_millis(100);
/// How long a call waits until it is known whether anything can be woken.
const ASKING: Duration = Duration::from_secs(3);
/// From the first question to a machine that serves: Fly starts one in two
/// seconds or so.
const WOKEN: Duration = Duration::from_secs(15);
/// After a wake that led to nothing calls wait for another one no sooner.
const EPISODE: Duration = Duration::from_secs(60);
const ROUND: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// DNS names a machine as soon as it is started.
const LOOK: Duration = Duration::from_millis(250);
/// Machines of other regions are connected when they are first needed.
const NEARBY: Duration = Duration::from_millis(750);
const ASK: Duration = Duration::from_secs(5);

/// By what an app can be woken.
pub struct Means {
    pub resolver: Resolver,
    /// Of the app's `[[services]]`, the same as its gRPC port.
    pub port: u16,
}

/// Who wakes what.
pub(crate) struct Target {
    pub(crate) app: String,
    pub(crate) region: String,
    /// Our own role: the principal of the question.
    pub(crate) caller: &'static str,
    pub(crate) discovery: Discovery,
    pub(crate) means: Means,
}

type Ready = Box<dyn Fn() -> Vec<Machine> + Send + Sync>;

/// Dropped, it wakes nobody any more.
pub(crate) struct Waker {
    hope: Arc<Hope>,
    _asking: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Hope {
    wanted: Notify,
    until: Mutex<Until>,
}

#[derive(Default)]
struct Until {
    /// When a call missed a machine after nobody had for a while.
    asking: Option<Instant>,
    /// When a call last missed one.
    missed: Option<Instant>,
    /// When the first wake of this episode was asked for.
    woken: Option<Instant>,
}

impl Waker {
    /// `ready` are the machines that can be called now.
    pub(crate) fn new(target: Target, ready: Ready) -> Self {
        let hope = Arc::<Hope>::default();
        let asker = Asker { target, ready, hope: Arc::clone(&hope), held: None };
        Self { hope, _asking: AbortOnDropHandle::new(tokio::spawn(asker.follow())) }
    }

    /// A call found no machine of our region. Until when waiting for one may be
    /// worth it, which may have passed.
    pub(crate) fn missed(&self) -> Instant {
        let now = Instant::now();
        let until = {
            let mut until = self.hope.until.lock().unwrap_or_else(PoisonError::into_inner);
            until.missed(now)
        };
        self.hope.wanted.notify_one();
        until
    }
}

impl Until {
    fn missed(&mut self, now: Instant) -> Instant {
        // Under constant calls the question is asked once: who comes later, while
        // nothing has come of it, is told so at once.
        if self.missed.is_none_or(|at| now - at > ASKING * 2) {
            self.asking = Some(now);
        }
        self.missed = Some(now);
        let asked = self.asking.map_or(now, |at| at + ASKING);
        self.woken.map_or(asked, |at| asked.max(at + WOKEN))
    }

    fn woken(&mut self, now: Instant) {
        if self.woken.is_none_or(|at| now - at > EPISODE) {
            self.woken = Some(now);
        }
    }
}

/// What came of one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// A machine of our region is ready.
    Home,
    Woken,
    Nothing,
}

struct Asker {
    target: Target,
    ready: Ready,
    hope: Arc<Hope>,
    /// The connection that keeps Fly's proxy at it.
    held: Option<AbortOnDropHandle<()>>,
}

impl Asker {
    async fn follow(mut self) {
        let mut pause = ROUND;
        loop {
            self.hope.wanted.notified().await;
            time::sleep(JITTER.mul_f64(fastrand::f64())).await;
            let asked = self.ask().await;
            {
                let mut until = self.hope.until.lock().unwrap_or_else(PoisonError::into_inner);
                match asked {
                    Asked::Home => *until = Until::default(),
                    Asked::Woken => until.woken(Instant::now()),
                    Asked::Nothing => {}
                }
            }
            let elsewhere = !(self.ready)().is_empty();
            pause = match asked {
                Asked::Nothing if elsewhere => (pause * 2).min(LONGEST),
                Asked::Nothing | Asked::Home | Asked::Woken => ROUND,
            };
            let next = Instant::now() + pause.mul_f64(0.8 + 0.4 * fastrand::f64());
            while asked == Asked::Woken && Instant::now() < next && !self.is_home() {
                self.target.discovery.look_now();
                time::sleep(LOOK).await;
            }
            time::sleep_until(next).await;
        }
    }

    fn is_home(&self) -> bool {
        (self.ready)().iter().any(|machine| machine.region() == self.target.region)
    }

    async fn ask(&mut self) -> Asked {
        let mut machines = (self.ready)();
        // Nobody to ask and nobody to wait for: that is the quickest to tell.
        if machines.is_empty() && self.through_the_proxy().await {
            return Asked::Woken;
        }
        let enough = Instant::now() + NEARBY;
        while machines.is_empty() && Instant::now() < enough {
            time::sleep(LOOK / 5).await;
            machines = (self.ready)();
        }
        if self.is_home() {
            self.held = None;
            return Asked::Home;
        }
        if machines.is_empty() {
            return Asked::Nothing;
        }
        let any = machines.swap_remove(fastrand::usize(..machines.len()));
        if self.by_a_sibling(any).await { Asked::Woken } else { Asked::Nothing }
    }

    async fn by_a_sibling(&self, machine: Machine) -> bool {
        let Target { app, region, caller, means, .. } = &self.target;
        let deployed = means.resolver.deployed_in(app).await;
        if !deployed.is_some_and(|regions| regions.contains(region)) {
            return false;
        }
        let call = Call::new("", *caller, ASK);
        let request = call.request(WakeRequest { region: region.clone() });
        match PeerServiceClient::new(machine).wake(request).await {
            Ok(answer) => {
                let started = answer.into_inner().started;
                tracing::info!(app, region, started, "asked a sibling to wake a machine");
                started > 0
            }
            Err(status) => {
                tracing::info!(app, region, %status, "no machine was woken");
                false
            }
        }
    }

    /// Nothing of the app is ready. If nothing of it is started either, the
    /// proxy starts a machine for a connection, which is held while it does.
    async fn through_the_proxy(&mut self) -> bool {
        if self.held.as_ref().is_some_and(|held| !held.is_finished()) {
            return true;
        }
        let Target { app, means, .. } = &self.target;
        if means.resolver.started(app).await.is_none_or(|started| !started.is_empty()) {
            return false;
        }
        let Some(proxy) = means.resolver.flycast(app, means.port).await.into_iter().next() else {
            return false;
        };
        tracing::info!(app, "nothing of it is started; asking the proxy for a machine");
        metrics::counter!("skein_flycast_wakes_total", "app" => app.clone()).increment(1);
        let held = tokio::spawn(time::timeout(WOKEN, hold(proxy)));
        self.held = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let _over = held.await;
        })));
        true
    }
}

/// Connects as a gRPC client would and stays until the other side leaves.
async fn hold(proxy: SocketAddr) {
    let Ok(stream) = TcpStream::connect(proxy).await else { return };
    let handshake = hyper::client::conn::http2::handshake::<_, _, Body>;
    if let Ok((_send, connection)) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await {
        let _closed = connection.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_wait_for_an_answer_then_for_a_machine_and_not_for_ever() {
        let mut until = Until::default();
        let began = Instant::now();
        assert_eq!(until.missed(began), began + ASKING);
        time::advance(ASKING / 2).await;
        until.woken(Instant::now());
        assert_eq!(until.missed(Instant::now()), began + ASKING / 2 + WOKEN);
        time::advance(WOKEN).await;
        until.woken(Instant::now());
        assert!(until.missed(Instant::now()) <= Instant::now() + ASKING, "one wake, one wait");
        time::advance(EPISODE).await;
        until.woken(Instant::now());
        assert_eq!(until.missed(Instant::now()), Instant::now() + WOKEN);
    }
    #[tokio::test(start_paused = true)]
    async fn under_constant_calls_nobody_waits_again_for_what_cannot_be_woken() {
        let mut until = Until::default();
        until.missed(Instant::now());
        time::advance(ASKING).await;
        for _ in 0..60 {
            time::advance(Duration::from_secs(1)).await;
            assert!(until.missed(Instant::now()) < Instant::now());
        }
        time::advance(ASKING * 3).await;
        assert_eq!(until.missed(Instant::now()), Instant::now() + ASKING, "after a pause");
    }
}
