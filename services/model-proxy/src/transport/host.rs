//! The connections to one host, and who gets a place on which.
//!
//! HTTP/2 is what providers speak: few connections with many streams each, the
//! first ones filled first, so that those of a busy hour empty out and close.
//! HTTP/1.1 takes a connection per call.
//!
//! Invariants:
//! - Nobody waits who finds a place free when he asks, and whoever waits has a
//!   connection under way for him.
//! - Whoever still waits when no connection is under way any more is told so.
//! - A connection that is too old gets no new calls as soon as there is a
//!   younger one; calls on it end in their own time.
//! - No place is dropped while the state is locked: an HTTP/1.1 connection comes
//!   back through that lock.

use super::{
    Lost,
    connect::{Connector, Opened, Origin},
    gauge::Gauges,
    lane::{Lane, Place},
    line::{Held, Line},
};
use crate::config::Network;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::oneshot,
    time::{self, Instant},
};

/// Between two looks at what is old or unused.
const TIDY: Duration = Duration::from_secs(5);
/// An HTTP/1.1 connection without a call: below every provider's own limit, so
/// that we never write into a connection that the other side is closing.
const IDLE: Duration = Duration::from_secs(20);
/// The same of HTTP/2, which finds out by its pings.
const QUIET: Duration = Duration::from_secs(90);
/// Between two tries to have a connection ahead, doubling.
const WARM_AGAIN: Duration = Duration::from_secs(5);
const WARM_SELDOM: Duration = Duration::from_secs(300);

pub(super) struct Host {
    pub(super) origin: Origin,
    connector: Arc<Connector>,
    streams: usize,
    age: Duration,
    pub(super) gauges: Gauges,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lanes: Vec<Known>,
    idle: Vec<(Line, Instant)>,
    waiting: VecDeque<oneshot::Sender<Result<Seat, Lost>>>,
    connecting: usize,
    /// It speaks HTTP/1.1.
    single: bool,
    /// Keep a connection ahead, with this patience.
    warm: Option<Duration>,
    warm_next: Option<Instant>,
    failures: u32,
    tidying: bool,
}

/// A connection and since when nobody has used it.
struct Known {
    lane: Arc<Lane>,
    used: usize,
    quiet: Option<Instant>,
}

/// The right to make one call.
pub(super) enum Seat {
    Place(Place),
    Held(Held),
}

impl Host {
    pub(super) fn new(
        origin: Origin,
        connector: Arc<Connector>,
        network: &Network,
        label: &str,
    ) -> Self {
        let (streams, age) = (network.streams_per_connection, network.connection_age);
        let state = State { single: origin.scheme == http::uri::Scheme::HTTP, ..State::default() };
        let gauges = Gauges::new(label);
        Self { origin, connector, streams, age, gauges, state: Mutex::new(state) }
    }

    /// A seat, and whether it is on a connection that was there before. `new`
    /// takes none of those.
    pub(super) async fn seat(
        self: &Arc<Self>,
        patience: Duration,
        new: bool,
    ) -> Result<(Seat, bool), Lost> {
        let begun = Instant::now();
        let waiting = {
            let mut state = self.state();
            let seat = if new { None } else { self.free(&mut state) };
            let waiting = seat.is_none().then(|| {
                let (tell, told) = oneshot::channel();
                state.waiting.push_back(tell);
                told
            });
            self.grow(&mut state, patience);
            match (seat, waiting) {
                (Some(seat), _) => Ok(seat),
                (None, Some(waiting)) => Err(waiting),
                (None, None) => return Err(Lost::Unreachable),
            }
        };
        match waiting {
            Ok(seat) => {
                self.gauges.waited(Duration::ZERO);
                Ok((seat, true))
            }
            Err(waiting) => {
                let told = time::timeout(patience, waiting).await;
                self.gauges.waited(begun.elapsed());
                let seat =
                    told.map_err(|_| Lost::ConnectTimeout)?.unwrap_or(Err(Lost::Unreachable));
                Ok((seat?, false))
            }
        }
    }

    /// Keeps a connection ahead of its first call from now on.
    pub(super) fn warm(self: &Arc<Self>, patience: Duration) {
        let mut state = self.state();
        state.warm = Some(patience);
        self.open(&mut state, patience);
        self.keep_tidy(&mut state);
    }

    /// A place that is free now.
    fn free(self: &Arc<Self>, state: &mut State) -> Option<Seat> {
        state.lanes.retain(|known| known.lane.is_open());
        if let Some(lane) = state.choose(Instant::now()) {
            return Some(Seat::Place(Place::on(lane, self.gauges.stream())));
        }
        while let Some((line, _)) = state.idle.pop() {
            // One that is not ready was closed by the other side meanwhile.
            if line.send.is_ready() {
                return Some(self.hold(line));
            }
        }
        None
    }

    fn hold(self: &Arc<Self>, line: Line) -> Seat {
        Seat::Held(Held::new(line, Arc::downgrade(self), self.gauges.stream()))
    }

    /// As many connections as those who wait need, and one ahead where the last
    /// one is filling.
    fn grow(self: &Arc<Self>, state: &mut State, patience: Duration) {
        state.waiting.retain(|waiting| !waiting.is_closed());
        let each = if state.single { 1 } else { Lane::room(self.streams) };
        let mut wanted = state.waiting.len().div_ceil(each);
        if wanted == 0 && state.is_filling(Instant::now()) {
            wanted = 1;
        }
        while state.connecting < wanted {
            self.open(state, patience);
        }
    }

    /// In a task of its own: who asked may leave, and the next one finds it.
    fn open(self: &Arc<Self>, state: &mut State, patience: Duration) {
        state.connecting += 1;
        let host = Arc::clone(self);
        tokio::spawn(async move {
            let opened = time::timeout(patience, host.connector.connect(&host.origin)).await;
            host.gauges.connected(matches!(opened, Ok(Ok(_))));
            match opened {
                Ok(Ok(opened)) => host.opened(opened, patience),
                Ok(Err(error)) => host.failed(Lost::Unreachable, &error.to_string()),
                Err(_) => host.failed(Lost::ConnectTimeout, "took too long"),
            }
        });
    }

    fn opened(self: &Arc<Self>, opened: Opened, patience: Duration) {
        let counted = self.gauges.connection();
        let weak = Arc::downgrade(self);
        let seat = match opened {
            Opened::Http2(send, connection) => {
                let (lane, driver) = Lane::new(send, *connection, self.streams, self.age);
                tokio::spawn(async move {
                    driver.await;
                    drop(counted);
                    weak.upgrade().inspect(|host| host.forget());
                });
                self.settle(&Arc::new(lane), patience);
                None
            }
            Opened::Http1(send, connection, forward) => {
                tokio::spawn(async move {
                    let ended = (*connection).await;
                    drop(counted);
                    tracing::debug!(?ended, "a connection to a provider ended");
                });
                self.state().connected(true);
                self.offer(Line::new(send, forward), patience)
            }
        };
        drop(seat); // after the lock
    }

    /// A new HTTP/2 connection: those who waited share it.
    fn settle(self: &Arc<Self>, lane: &Arc<Lane>, patience: Duration) {
        let mut left = None;
        let mut state = self.state();
        state.connected(false);
        state.lanes.push(Known { lane: Arc::clone(lane), used: 0, quiet: None });
        while !lane.is_full() && !state.waiting.is_empty() {
            left = state.serve(Seat::Place(Place::on(lane, self.gauges.stream())));
        }
        self.grow(&mut state, patience);
        self.keep_tidy(&mut state);
        drop(state);
        drop(left);
    }

    /// An HTTP/1.1 connection without a call; what comes back has no taker.
    fn offer(self: &Arc<Self>, line: Line, patience: Duration) -> Option<Seat> {
        let mut state = self.state();
        let left = if state.waiting.is_empty() {
            state.idle.push((line, Instant::now()));
            None
        } else {
            state.serve(self.hold(line))
        };
        self.grow(&mut state, patience);
        self.keep_tidy(&mut state);
        left
    }

    pub(super) fn take_back(host: &Weak<Self>, line: Line) {
        let Some(host) = host.upgrade() else { return };
        let left = host.offer(line, IDLE);
        drop(left);
    }

    fn failed(self: &Arc<Self>, lost: Lost, why: &str) {
        let host = self.origin.authority.as_str();
        let (served, told) = {
            let mut state = self.state();
            state.connecting = state.connecting.saturating_sub(1);
            state.failures = state.failures.saturating_add(1);
            let wait = WARM_AGAIN.saturating_mul(1 << state.failures.min(6)).min(WARM_SELDOM);
            state.warm_next = Some(Instant::now() + wait);
            // Once for a row of them.
            if state.failures == 1 {
                tracing::warn!(host, why, "cannot connect to a provider");
            }
            let mut served = Vec::new();
            while !state.waiting.is_empty() {
                let Some(seat) = self.free(&mut state) else { break };
                served.extend(state.serve(seat));
            }
            let told = if state.connecting == 0 {
                std::mem::take(&mut state.waiting)
            } else {
                VecDeque::new()
            };
            (served, told)
        };
        drop(served);
        for waiting in told {
            // Whoever has left needs no answer.
            let _ = waiting.send(Err(lost));
        }
    }

    /// Whether anything is open, under way or wanted.
    pub(super) fn is_used(&self) -> bool {
        self.state().is_used()
    }

    /// Drops what has ended.
    fn forget(&self) {
        self.state().lanes.retain(|known| known.lane.is_open());
    }

    fn keep_tidy(self: &Arc<Self>, state: &mut State) {
        if std::mem::replace(&mut state.tidying, true) {
            return;
        }
        let weak = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                time::sleep(TIDY).await;
                let Some(host) = weak.upgrade() else { return };
                if !host.tidy() {
                    return;
                }
            }
        });
    }

    /// Whether there is anything left to look after.
    fn tidy(self: &Arc<Self>) -> bool {
        let now = Instant::now();
        let mut closed = Vec::new();
        let mut state = self.state();
        state.sweep(now, &mut closed);
        if let Some(patience) = state.wants_another(now) {
            self.open(&mut state, patience);
        }
        state.tidying = state.is_used();
        let more = state.tidying;
        drop(state);
        drop(closed);
        more
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The first connection with room, young ones before old ones; beyond that
    /// the emptiest that is not full.
    fn choose(&self, now: Instant) -> Option<&Arc<Lane>> {
        let lanes = || self.lanes.iter().map(|known| &known.lane);
        let young = || lanes().filter(move |lane| lane.old > now);
        let room = young().find(|lane| !lane.is_full_enough());
        room.or_else(|| young().filter(|lane| !lane.is_full()).min_by_key(|lane| lane.taken()))
            .or_else(|| lanes().filter(|lane| !lane.is_full()).min_by_key(|lane| lane.taken()))
    }

    /// Whether the next call should find another connection.
    fn is_filling(&self, now: Instant) -> bool {
        let mut young = self.lanes.iter().filter(|known| known.lane.old > now);
        !self.lanes.is_empty() && young.all(|known| known.lane.is_full_enough())
    }

    fn is_used(&self) -> bool {
        let open = !self.lanes.is_empty() || !self.idle.is_empty();
        open || self.connecting > 0 || self.warm.is_some()
    }

    fn connected(&mut self, single: bool) {
        self.connecting = self.connecting.saturating_sub(1);
        self.single = single;
        self.failures = 0;
        self.warm_next = None;
    }

    /// Gives the seat to the first who still waits, or back.
    fn serve(&mut self, mut seat: Seat) -> Option<Seat> {
        while let Some(waiting) = self.waiting.pop_front() {
            match waiting.send(Ok(seat)) {
                Ok(()) => return None,
                Err(Ok(back)) => seat = back,
                Err(Err(_)) => return None,
            }
        }
        Some(seat)
    }

    /// Puts what is old, unused or ended into `closed`.
    fn sweep(&mut self, now: Instant, closed: &mut Vec<Known>) {
        self.idle.retain(|(line, since)| line.send.is_ready() && now < *since + IDLE);
        let young = self.lanes.iter().filter(|known| known.lane.is_open() && known.lane.old > now);
        let mut spare = young.count();
        let (lanes, warm) = (std::mem::take(&mut self.lanes), self.warm.is_some());
        for mut known in lanes {
            let used = known.lane.used.load(Ordering::Relaxed);
            let busy = known.lane.taken() > 0 || used != known.used;
            known.used = used;
            known.quiet = if busy { None } else { known.quiet.or(Some(now)) };
            let unused = known.quiet.is_some_and(|since| now >= since + QUIET);
            let old = known.lane.old <= now;
            let needed =
                if old { spare == 0 && (busy || warm) } else { !unused || (warm && spare == 1) };
            if known.lane.is_open() && needed {
                self.lanes.push(known);
            } else {
                spare -= usize::from(!old && known.lane.is_open());
                closed.push(known);
            }
        }
    }

    /// The patience for one more connection, if one should be opened ahead.
    fn wants_another(&self, now: Instant) -> Option<Duration> {
        let young = self.lanes.iter().any(|known| known.lane.old > now);
        let due = self.warm_next.is_none_or(|next| next <= now);
        let wanted = self.warm.is_some() && !self.single || !self.lanes.is_empty();
        (wanted && !young && due && self.connecting == 0).then(|| self.warm.unwrap_or(IDLE))
    }
}
