//! One key at this gateway: calls and slots in hand, and the one exchange with
//! the store that may be under way for them.
//!
//! Invariants:
//! - With something in hand a call is let in without waiting for anybody.
//! - One exchange at a time; whoever waits for it waits at most `PATIENCE`,
//!   after which the store counts as away and this gateway counts alone.
//! - An exchange that was given up and still holds a connection of the pool is not
//!   joined by a second one: a row that is held costs one connection.
//! - A refusal by the store holds for `REFUSED`: a caller that hammers costs
//!   ten exchanges a second, whatever it sends.

use super::{
    Allowance,
    ledger::{Answer, Ask},
    store::LimitStore,
    told::{Limited, Told, What},
    window::{MINUTE, Window},
};
use mesh::clock;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{OwnedMutexGuard, watch},
    time::{Instant, timeout},
};

/// How often what is idle is looked for.
pub const SWEEP: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(1);
const REFUSED: Duration = Duration::from_millis(100);
/// What has not been used for so long goes back.
const IDLE: Duration = Duration::from_secs(1);
const RENEW: Duration = Duration::from_secs(10);
const FORGET: Duration = Duration::from_secs(300);
/// Between two looks at a store that is away.
const PROBE: Duration = Duration::from_secs(1);
/// When a slot comes free nobody can know.
const SLOT_WAIT: Duration = Duration::from_secs(1);

pub struct KeyLimit {
    pub id: String,
    pub allowance: Allowance,
    store: Arc<LimitStore>,
    state: Mutex<State>,
    answered: watch::Sender<()>,
    /// Held by an exchange, also by one that nobody waits for any more.
    turn: Arc<tokio::sync::Mutex<()>>,
}

struct State {
    /// Calls granted and not made yet.
    calls: u64,
    /// Slots granted, in use or not.
    slots: u64,
    in_flight: u64,
    /// The most in flight since the last exchange.
    peak: u64,
    waiting: u64,
    /// What the store last said.
    answer: Answer,
    /// Calls made since then, from which the need ahead is taken.
    made: u64,
    ahead: u64,
    asking: bool,
    asked: Instant,
    used: Instant,
    no_calls_until: Option<Instant>,
    no_slots_until: Option<Instant>,
    /// Everything let in here, for when the store is away; and what it has not
    /// been told.
    own: Window,
    owed: Window,
}

enum Take {
    Yes(Told),
    No(Limited),
    Ask,
}

impl KeyLimit {
    pub fn new(id: &str, allowance: Allowance, store: Arc<LimitStore>) -> Arc<Self> {
        let now = Instant::now();
        let state = State {
            calls: 0,
            slots: 0,
            in_flight: 0,
            peak: 0,
            waiting: 0,
            answer: Answer::default(),
            made: 0,
            ahead: 0,
            asking: false,
            asked: now,
            used: now,
            no_calls_until: None,
            no_slots_until: None,
            own: Window::default(),
            owed: Window::default(),
        };
        let (id, state, answered) = (id.to_owned(), Mutex::new(state), watch::Sender::new(()));
        Arc::new(Self { id, allowance, store, state, answered, turn: Arc::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub async fn enter(self: &Arc<Self>) -> Result<(Admitted, Told), Limited> {
        let mut waiting = None;
        loop {
            let mut answered = self.answered.subscribe();
            {
                let mut state = self.lock();
                match self.take(&mut state) {
                    Take::Yes(told) => {
                        let low = state.calls.saturating_mul(2) < state.ahead;
                        if low && self.allowance.per_minute > 0 {
                            self.ask(&mut state);
                        }
                        return Ok((Admitted(Arc::clone(self)), told));
                    }
                    Take::No(limited) => return Err(limited),
                    Take::Ask => {
                        if waiting.is_none() {
                            state.waiting += 1;
                            waiting = Some(Waiting(Arc::clone(self)));
                        }
                        self.ask(&mut state);
                    }
                }
            }
            if timeout(PATIENCE, answered.changed()).await.is_err() {
                self.store.gone("no answer in time");
            }
        }
    }

    fn take(self: &Arc<Self>, state: &mut State) -> Take {
        let (now, wall) = (Instant::now(), clock::now_micros());
        let Allowance { per_minute, concurrency } = self.allowance;
        // A row that somebody holds is away for this key alone.
        let stuck = !state.asking && self.turn.try_lock().is_err();
        let away = stuck || self.store.is_away();
        let share = |limit: u64| (limit / self.store.live()).max(1);
        if away {
            state.own.expire(wall);
            if now.duration_since(state.asked) > PROBE {
                self.ask(state);
            }
        }
        let call =
            per_minute == 0 || state.calls > 0 || (away && state.own.total() < share(per_minute));
        let slot = concurrency == 0
            || state.in_flight < state.slots
            || (away && state.in_flight < share(concurrency));
        if call && slot {
            return Take::Yes(self.took(state, now, wall));
        }
        let refused = |until: Option<Instant>| away || until.is_some_and(|until| now < until);
        if !slot && refused(state.no_slots_until) {
            return Take::No(self.limited(state, What::Slots, SLOT_WAIT, wall));
        }
        if !call && refused(state.no_calls_until) {
            let free = if away { state.own.next_free() } else { state.answer.next_free };
            let wait = free.unwrap_or(wall).saturating_sub(wall).clamp(1000, MINUTE);
            let wait = Duration::from_micros(wait.unsigned_abs());
            return Take::No(self.limited(state, What::Calls, wait, wall));
        }
        Take::Ask
    }

    fn took(&self, state: &mut State, now: Instant, wall: i64) -> Told {
        state.in_flight += 1;
        state.peak = state.peak.max(state.in_flight);
        state.used = now;
        if self.allowance.per_minute > 0 {
            state.made += 1;
            state.own.expire(wall);
            state.own.add(wall, 1);
            if state.calls > 0 {
                state.calls -= 1;
            } else {
                state.owed.add(wall, 1);
            }
        }
        self.told(state, wall)
    }

    fn told(&self, state: &State, wall: i64) -> Told {
        let limit = self.allowance.per_minute;
        let remaining = if self.store.is_away() {
            (limit / self.store.live()).max(1).saturating_sub(state.own.total())
        } else {
            state.calls + state.answer.left
        };
        let last = state.own.empty_at().max(state.answer.empty_at).unwrap_or(wall);
        let reset =
            Duration::from_micros(last.saturating_sub(wall).clamp(0, MINUTE).unsigned_abs());
        Told { limit, remaining, reset: Duration::from_millis(as_millis(reset)) }
    }

    fn limited(&self, state: &State, what: What, retry_after: Duration, wall: i64) -> Limited {
        let told = self.told(state, wall);
        Limited { what, allowance: self.allowance, retry_after, told }
    }

    /// Begins an exchange unless one is under way.
    fn ask(self: &Arc<Self>, state: &mut State) {
        if state.asking {
            return;
        }
        // Without a runtime the process is ending.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let Ok(turn) = Arc::clone(&self.turn).try_lock_owned() else { return };
        let ask = self.next(state);
        runtime.spawn(Arc::clone(self).exchange(ask, turn));
    }

    /// What to ask for, by what was needed since the last time.
    fn next(&self, state: &mut State) -> Ask {
        let now = Instant::now();
        let since = now.duration_since(state.asked).max(Duration::from_millis(100));
        let a_second = state.made.saturating_mul(1000) / as_millis(since).max(1);
        let idle = state.waiting == 0 && now.duration_since(state.used) >= IDLE;
        let (ahead, back) = if idle { (0, state.calls) } else { (a_second.max(1), 0) };
        let Allowance { per_minute, concurrency } = self.allowance;
        let if_limited = |limit: u64, wanted: u64| if limit > 0 { wanted } else { 0 };
        let calls = if_limited(per_minute, state.waiting.saturating_sub(state.calls));
        let tight = idle || state.answer.slots_left == 0;
        let needed = state.in_flight + state.waiting;
        let lately = if tight { 0 } else { state.peak.min(state.slots) };
        let slots = if_limited(concurrency, needed.max(lately));
        // What goes back is not used while it is on its way.
        state.slots = state.slots.min(slots);
        let ask = Ask {
            gateway: self.store.gateway().to_owned(),
            calls,
            ahead,
            hand: state.calls - back,
            back,
            owed: std::mem::take(&mut state.owed),
            slots,
            spare: u64::from(!tight),
        };
        if back > 0 {
            state.calls = 0;
        }
        state.asking = true;
        (state.asked, state.made, state.peak) = (now, 0, state.in_flight);
        ask
    }

    async fn exchange(self: Arc<Self>, ask: Ask, turn: OwnedMutexGuard<()>) {
        let (calls, slots, owed) = (ask.calls, ask.slots, ask.owed.clone());
        let answer = self.store.exchange(&self.id, self.allowance, ask, turn).await;
        let mut state = self.lock();
        state.asking = false;
        let until = Instant::now() + REFUSED;
        match answer {
            Some(answer) => {
                state.calls += answer.calls;
                state.slots = answer.slots;
                if calls > 0 || answer.calls > 0 {
                    state.ahead = state.calls.saturating_sub(calls);
                }
                state.no_calls_until = (answer.calls < calls).then_some(until);
                state.no_slots_until = (answer.slots < slots).then_some(until);
                state.answer = answer;
            }
            None => {
                // What was given back stays given back: it may have arrived.
                state.owed.merge(owed);
            }
        }
        drop(state);
        self.answered.send_replace(());
    }

    /// Gives back or renews if it is time; whether this key can be forgotten.
    pub fn sweep(self: &Arc<Self>) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        let (idle, quiet) = (now.duration_since(state.used), now.duration_since(state.asked));
        let unused = state.calls > 0 && idle >= IDLE;
        let spare = state.slots > state.in_flight && quiet >= IDLE;
        let renew = state.slots > 0 && quiet >= RENEW;
        let owed = state.owed.total() > 0 && quiet >= PROBE;
        let slots = self.allowance.concurrency > 0 && (spare || renew);
        if slots || unused || owed {
            self.ask(&mut state);
        }
        let nothing = state.in_flight + state.waiting + state.calls + state.slots == 0;
        nothing && !state.asking && idle >= FORGET && state.owed.total() == 0
    }

    /// Gives back all that is in hand; for the end of the process.
    pub async fn give_back(self: &Arc<Self>) {
        let ask = {
            let mut state = self.lock();
            if state.calls + state.slots == 0 && state.owed.total() == 0 {
                return;
            }
            let back = std::mem::take(&mut state.calls);
            let owed = std::mem::take(&mut state.owed);
            Ask { gateway: self.store.gateway().to_owned(), back, owed, ..Ask::default() }
        };
        self.store.exchange(&self.id, self.allowance, ask, ()).await;
    }
}

fn as_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Somebody who waits for the store.
struct Waiting(Arc<KeyLimit>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

/// A call that was let in; its slot is free when this is dropped.
pub struct Admitted(Arc<KeyLimit>);

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.in_flight -= 1;
        // Somebody at another gateway may be waiting for it.
        let wanted = state.answer.slots_left == 0 && self.0.store.live() > 1;
        if self.0.allowance.concurrency > 0 && wanted && state.slots > state.in_flight {
            self.0.ask(&mut state);
        }
    }
}
