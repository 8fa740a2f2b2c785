//! How much this machine has on its hands, and how much it takes on.
//!
//! A call counts to the end of its body: a stream does its work there. What a
//! service does without a caller waiting (an agent run, a backlog) counts too,
//! while the service holds [`Load::work`].
//!
//! Above the hard limit a call is refused at once and nothing is queued: a
//! queue only hides that the machine is full until everybody in it is late. The
//! refusal happened before any work, so a caller may try another machine even
//! with a call that must not be repeated.
//!
//! Invariants:
//! - Health, `Hello` and the other questions between machines are never work
//!   and never refused: an overloaded machine can still say so.
//! - A subscription waits more than it works. It keeps no machine awake and
//!   takes no call's place; there may be as many of them as of calls.
//! - A count goes down exactly once, when its guard is dropped.

use crate::error::{Kind, ServiceError};
use crate::methods;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Why a call was refused by a full machine; callers match on it.
pub const OVERLOADED: &str = "OVERLOADED";
/// What the refused are told to wait, give or take a half: not all at once.
const RETRY: Duration = Duration::from_secs(1);
/// Followed until their lease ends.
const SUBSCRIPTIONS: [&str; 1] = ["/skein.agent.v1.AgentService/StreamEvents"];

/// In calls in flight; see `config::Life` for the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Above it a sibling is started.
    pub soft: u64,
    /// Above it calls are refused.
    pub hard: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { soft: u64::MAX, hard: u64::MAX }
    }
}

/// Cheap to clone; clones count together.
#[derive(Clone, Default)]
pub struct Load(Arc<Counts>);

#[derive(Default)]
struct Counts {
    limits: Limits,
    calls: AtomicU64,
    subscriptions: AtomicU64,
    work: AtomicU64,
    /// Calls and work ever begun: tells "idle since" from "idle again".
    begun: AtomicU64,
}

/// What a call is to the machine that serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Never counted, never refused.
    Free,
    Subscription,
    Call,
}

impl Weight {
    /// `path` is `/package.Service/Method`.
    pub fn of(path: &str) -> Self {
        if path.starts_with("/grpc.health.") || path.starts_with("/skein.mesh.v1.PeerService/") {
            Self::Free
        } else if SUBSCRIPTIONS.contains(&path) {
            Self::Subscription
        } else {
            Self::Call
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("this machine has {limit} calls in flight, as many as it takes; try another one or later")]
pub struct Overloaded {
    limit: u64,
}

impl ServiceError for Overloaded {
    fn kind(&self) -> Kind {
        Kind::RateLimited { retry_after: Some(RETRY.mul_f64(0.5 + fastrand::f64())) }
    }
    fn reason(&self) -> Option<&'static str> {
        Some(OVERLOADED)
    }
}

impl Load {
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Counts { limits, ..Counts::default() }))
    }

    /// Takes a call on, or refuses it. `None`: it does not count.
    pub fn admit(&self, path: &str) -> Result<Option<InFlight>, Overloaded> {
        // Counted before it is compared: two at the limit cannot both pass.
        let (guard, now) = match Weight::of(path) {
            Weight::Free => return Ok(None),
            Weight::Subscription => {
                let guard = InFlight::new(&self.0, |counts| &counts.subscriptions);
                (guard, self.0.subscriptions.load(Relaxed))
            }
            Weight::Call => {
                self.0.begun.fetch_add(1, Relaxed);
                (InFlight::new(&self.0, |counts| &counts.calls), self.in_flight())
            }
        };
        let limit = self.0.limits.hard;
        if now > limit {
            let known = if methods::method(path).is_some() { path } else { "other" };
            metrics::counter!("skein_shed_total", "method" => known.to_owned()).increment(1);
            return Err(Overloaded { limit });
        }
        Ok(Some(guard))
    }

    /// Work that no caller waits for; counts until the answer is dropped.
    pub fn work(&self) -> InFlight {
        self.0.begun.fetch_add(1, Relaxed);
        InFlight::new(&self.0, |counts| &counts.work)
    }

    /// Calls and work, without subscriptions.
    pub fn in_flight(&self) -> u64 {
        self.0.calls.load(Relaxed) + self.0.work.load(Relaxed)
    }

    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    /// Changes with every call and every piece of work that begins.
    pub fn begun(&self) -> u64 {
        self.0.begun.load(Relaxed)
    }
}

/// Counts until it is dropped.
#[must_use = "counts only until this is dropped"]
pub struct InFlight {
    counts: Arc<Counts>,
    count: fn(&Counts) -> &AtomicU64,
}

impl InFlight {
    fn new(counts: &Arc<Counts>, count: fn(&Counts) -> &AtomicU64) -> Self {
        count(counts).fetch_add(1, Relaxed);
        Self { counts: Arc::clone(counts), count }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        (self.count)(&self.counts).fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{reason, retry_after, to_status};
    use tonic::Code;

    const CALL: &str = "/skein.model.v1.ModelService/Generate";

    #[test]
    fn above_the_hard_limit_a_call_is_refused_and_told_when_to_come_back() {
        let load = Load::new(Limits { soft: 1, hard: 2 });
        let first = load.admit(CALL).unwrap();
        let _run = load.work();
        let refused = to_status(&load.admit(CALL).err().unwrap());
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(reason(&refused).as_deref(), Some(OVERLOADED));
        let wait = retry_after(&refused).unwrap();
        assert!((RETRY / 2..=RETRY * 3 / 2).contains(&wait), "{wait:?}");
        assert_eq!(load.in_flight(), 2, "a refused call leaves nothing behind");
        drop(first);
        assert!(load.admit(CALL).is_ok());
    }

    #[test]
    fn questions_between_machines_are_free_and_subscriptions_take_no_calls_place() {
        let load = Load::new(Limits { soft: 1, hard: 1 });
        let _call = load.admit(CALL).unwrap();
        for free in ["/grpc.health.v1.Health/Watch", "/skein.mesh.v1.PeerService/Status"] {
            assert!(load.admit(free).unwrap().is_none(), "{free}");
        }
        let _follower = load.admit(SUBSCRIPTIONS[0]).unwrap();
        assert!(load.admit(SUBSCRIPTIONS[0]).is_err());
        assert_eq!((load.in_flight(), load.begun()), (1, 1));
        assert!(methods::method(SUBSCRIPTIONS[0]).is_some());
    }

    #[test]
    fn many_at_once_never_exceed_the_limit() {
        let load = Load::new(Limits { soft: 4, hard: 8 });
        let admitted = std::thread::scope(|scope| {
            let take = || (0..100).filter_map(|_| load.admit(CALL).ok()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(admitted.len() <= 8, "{}", admitted.len());
        drop(admitted);
        assert_eq!(load.in_flight(), 0);
    }
}
