//! Fly Proxy in front of one app: seats for requests and connections, autostart,
//! autostop.
//!
//! Invariants:
//! - Who finds no machine waits, for as long as the proxy queues, and is then refused.
//! - A machine that is stopping, unhealthy or cordoned gets nothing new.
//! - What does not pass here is not counted and wakes nobody: direct 6PN traffic.

use crate::{
    balance::{self, Seen},
    fabric::Fabric,
    fly_toml::{AutoStop, FlyToml, Proxied},
    lifecycle,
    machine::{Machine, Order, State},
    spec::Intervals,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, interval, sleep};

/// Between two looks for a machine.
const PAUSE: Duration = Duration::from_millis(20);
/// Between the cordon of an autostop and the stop; Fly's is not documented.
const BRIEFLY: Duration = Duration::from_secs(1);
/// How long the proxy queues; Fly tries up to 90 times.
const QUEUE: Duration = Duration::from_secs(5);
/// The longest drain of a proxy that is restarted.
const CUT: Duration = Duration::from_secs(600);
/// "Every few minutes".
const AUTOSTOP: Duration = Duration::from_secs(120);

/// The proxy's clocks. What ends a connection is not divided by the speed of the
/// network: the heartbeats of the services that it has to outlast are not either.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) queue: Duration,
    pub(crate) cut: Duration,
    autostop: Duration,
    briefly: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self::of(&Intervals::default())
    }
}

impl Times {
    pub(crate) fn of(intervals: &Intervals) -> Self {
        let speed = intervals.speed.unwrap_or(1).max(1);
        Self {
            queue: intervals.proxy_queue.unwrap_or(QUEUE),
            cut: intervals.proxy_cut.unwrap_or(CUT),
            autostop: intervals.autostop.unwrap_or(AUTOSTOP / speed),
            briefly: BRIEFLY / speed,
        }
    }
}

pub(crate) struct Proxy {
    pub(crate) fabric: Arc<Fabric>,
    pub(crate) app: String,
    pub(crate) times: Times,
}

/// Where somebody wants to go.
#[derive(Debug, Default)]
pub(crate) struct Wish {
    /// Regions, the most wanted first.
    pub(crate) first: Vec<String>,
    /// After these by distance from here.
    pub(crate) near: String,
    /// Whether a cut between regions stands in the way.
    pub(crate) across: bool,
    /// Machines that count this connection already.
    pub(crate) held: Vec<String>,
}

/// A unit of a machine's load, until dropped.
pub(crate) struct Seat(Arc<AtomicUsize>);

impl Proxy {
    /// The service of a release.
    pub(crate) fn service(config: &FlyToml) -> Option<&Proxied> {
        let http = config.http_service.as_ref().map(|service| &service.proxied);
        http.or_else(|| Some(&config.services.first()?.proxied))
    }

    /// A machine that was not tried yet, or any when all were; `None`: refused.
    pub(crate) async fn seat(
        &self,
        wish: &Wish,
        tried: &mut Vec<String>,
        until: Instant,
    ) -> Option<(Arc<Machine>, Seat)> {
        loop {
            let (machines, mut seen) = self.look(wish);
            let chosen = balance::pick(&seen, &|at| tried.contains(&machines[at].id));
            let chosen = chosen.map(|at| {
                seen[at].load += 1;
                (Arc::clone(&machines[at]), Seat::take(&machines[at]))
            });
            if let Some(at) = balance::wake(&seen) {
                let machine = Arc::clone(&machines[at]);
                tokio::spawn(async move { lifecycle::start(&machine).await });
            }
            if chosen.is_some() || Instant::now() >= until {
                return chosen;
            }
            tried.clear();
            sleep(PAUSE).await;
        }
    }

    fn look(&self, wish: &Wish) -> (Vec<Arc<Machine>>, Vec<Seen>) {
        let all = self.fabric.fleet.of(&self.app).into_iter();
        all.filter_map(|machine| Some((Arc::clone(&machine), self.seen(&machine, wish)?))).unzip()
    }

    fn seen(&self, machine: &Machine, wish: &Wish) -> Option<Seen> {
        let release = machine.release();
        let service = Self::service(&release.config)?;
        let reached = !wish.across || !self.fabric.links.is_cut(&wish.near, &machine.region);
        let named = wish.first.iter().position(|region| *region == machine.region);
        let rank = match named {
            Some(place) => (place, Duration::ZERO),
            None => (wish.first.len(), self.fabric.rtt(&wish.near, &machine.region)),
        };
        let asleep = matches!(machine.state(), State::Stopped | State::Suspended);
        let own = usize::from(wish.held.contains(&machine.id));
        Some(Seen {
            region: machine.region.clone(),
            rank,
            up: reached && machine.routable(),
            asleep: reached && asleep && service.auto_start,
            load: machine.load().saturating_sub(own),
            soft: service.concurrency.soft_limit,
            hard: service.concurrency.hard_limit,
        })
    }

    /// Why nobody was found, for people.
    pub(crate) fn refusal(&self) -> String {
        let machines = self.fabric.fleet.of(&self.app);
        let started = machines.iter().filter(|m| m.state() == State::Started).count();
        let fit = machines.iter().filter(|machine| machine.routable()).count();
        format!(
            "no machine of {} is free after {} ms: {started} of {} started, {} of these unhealthy \
             or cordoned, {fit} at the hard limit or not answering (`flynet ps` shows them)\n",
            self.app,
            self.times.queue.as_millis(),
            machines.len(),
            started - fit,
        )
    }

    /// The loop that stops machines nobody needs, where the fly.toml asks for it.
    pub(crate) async fn autostop(self: Arc<Self>) {
        let mut every = interval(self.times.autostop.max(PAUSE));
        every.tick().await;
        loop {
            every.tick().await;
            let (machines, seen) = self.look(&Wish::default());
            let mut regions = BTreeMap::<_, (Vec<_>, Vec<_>)>::new();
            for (machine, seen) in machines.into_iter().zip(seen) {
                let (there, seen_there) = regions.entry(machine.region.clone()).or_default();
                there.push(machine);
                seen_there.push(seen);
            }
            // at most one machine per region and pass
            let passes = regions.values().map(|(there, seen)| self.pass(there, seen));
            futures_util::future::join_all(passes).await;
        }
    }

    async fn pass(&self, there: &[Arc<Machine>], seen: &[Seen]) {
        let Some(release) = there.first().map(|machine| machine.release()) else { return };
        let Some(service) = Self::service(&release.config) else { return };
        let primary = there[0].region == release.config.primary_region;
        let least = if primary { service.min_machines_running } else { 0 };
        if service.auto_stop == AutoStop::Off {
            return;
        }
        let Some(machine) = balance::surplus(seen, least).map(|at| &there[at]) else { return };
        let before = machine.load();
        machine.status.send_modify(|status| status.cordoned = true);
        sleep(self.times.briefly).await;
        if machine.load() <= before {
            match service.auto_stop {
                AutoStop::Suspend => lifecycle::suspend(machine).await,
                AutoStop::Stop | AutoStop::Off => lifecycle::stop(machine, Order::Stop).await,
            }
        }
        machine.status.send_modify(|status| status.cordoned = false);
    }
}

impl Seat {
    fn take(machine: &Machine) -> Self {
        machine.load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&machine.load))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
