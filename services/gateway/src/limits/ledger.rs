//! The one row that all gateways share for a key: what was let in, who holds
//! which slots. Pure: time is an argument.
//!
//! Invariants:
//! - Never more calls granted in sixty seconds than the limit, never more slots
//!   held than the limit, whatever is asked.
//! - What nobody waits for is granted from an eighth of the rest, divided by the
//!   live gateways, and less what a gateway has in hand: so all together never
//!   have more than an eighth of the limit that is counted and not used.
//! - Slots of a gateway that is silent for [`HOLD`] are free again.

use super::{Allowance, window::Window};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How long slots are held without a renewal, in microseconds.
pub const HOLD: i64 = 30_000_000;
/// One part in so many of what is left may be taken ahead of need.
const AHEAD: u64 = 8;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    #[serde(default)]
    calls: Window,
    #[serde(default)]
    slots: BTreeMap<String, Held>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    slots: u64,
    until: i64,
}

/// What a gateway wants of a key.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    pub gateway: String,
    /// Calls that somebody waits for.
    pub calls: u64,
    /// Calls wanted ahead of need, and those in hand already.
    pub ahead: u64,
    pub hand: u64,
    /// Calls granted before and not used.
    pub back: u64,
    /// Calls let in while the store was away.
    pub owed: Window,
    /// Slots that are in use or waited for, and those wanted beside them.
    pub slots: u64,
    pub spare: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub calls: u64,
    /// Calls that nobody has taken yet.
    pub left: u64,
    pub next_free: Option<i64>,
    pub empty_at: Option<i64>,
    /// All slots this gateway holds now.
    pub slots: u64,
    pub slots_left: u64,
}

impl Ledger {
    pub fn exchange(&mut self, now: i64, allowance: Allowance, live: u64, ask: Ask) -> Answer {
        let part = AHEAD.saturating_mul(live.max(1));
        self.calls.expire(now);
        self.calls.take_back(ask.back);
        self.calls.merge(ask.owed);
        let mut left = allowance.per_minute.saturating_sub(self.calls.total());
        let mut calls = ask.calls.min(left);
        calls += ask.ahead.min((left - calls) / part).saturating_sub(ask.hand);
        left -= calls;
        self.calls.add(now, calls);

        self.slots.retain(|gateway, held| *gateway != ask.gateway && held.until > now);
        let others = self.slots.values().map(|held| held.slots).sum();
        let mut slots_left = allowance.concurrency.saturating_sub(others);
        let mut slots = ask.slots.min(slots_left);
        slots += ask.spare.min((slots_left - slots) / part);
        slots_left -= slots;
        if slots > 0 {
            self.slots.insert(ask.gateway, Held { slots, until: now.saturating_add(HOLD) });
        }
        let (next_free, empty_at) = (self.calls.next_free(), self.calls.empty_at());
        Answer { calls, left, next_free, empty_at, slots, slots_left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Allowance = Allowance { per_minute: 10, concurrency: 10 };

    fn ask(gateway: &str, calls: u64, slots: u64) -> Ask {
        Ask { gateway: gateway.into(), calls, slots, ..Ask::default() }
    }

    #[test]
    fn what_is_waited_for_is_granted_to_the_limit() {
        let mut ledger = Ledger::default();
        let first = ledger.exchange(0, TEN, 2, ask("a", 7, 7));
        assert_eq!((first.calls, first.left, first.slots, first.slots_left), (7, 3, 7, 3));
        let second = ledger.exchange(1, TEN, 2, ask("b", 7, 7));
        assert_eq!((second.calls, second.left, second.slots), (3, 0, 3));
        assert_eq!(ledger.exchange(59_999_999, TEN, 2, ask("b", 1, 3)).calls, 0);
        assert_eq!(ledger.exchange(60_000_000, TEN, 2, ask("b", 9, 3)).calls, 7);
    }

    #[test]
    fn ahead_of_need_there_is_less_the_nearer_the_limit() {
        let allowance = Allowance { per_minute: 160, concurrency: 0 };
        let mut ledger = Ledger::default();
        let greedy = || Ask { ahead: 1000, gateway: "a".into(), ..Ask::default() };
        let mut granted = Vec::new();
        for _ in 0..12 {
            granted.push(ledger.exchange(0, allowance, 2, greedy()).calls);
        }
        assert_eq!(granted, [10, 9, 8, 8, 7, 7, 6, 6, 6, 5, 5, 5]);
        let mut near = Ledger::default();
        assert_eq!(near.exchange(0, TEN, 2, greedy()).calls, 0);
    }

    #[test]
    fn what_was_not_used_and_what_was_owed_are_counted() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.exchange(0, TEN, 1, ask("a", 8, 0)).left, 2);
        let back = Ask { back: 5, ..ask("a", 0, 0) };
        assert_eq!(ledger.exchange(1, TEN, 1, back).left, 7);
        let mut owed = Window::default();
        owed.add(-10, 4);
        let answer = ledger.exchange(2, TEN, 1, Ask { owed, ..ask("b", 9, 0) });
        assert_eq!((answer.calls, answer.next_free), (3, Some(60_000_000 - 10)));
    }

    #[test]
    fn slots_of_a_silent_gateway_are_free_again() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.exchange(0, TEN, 2, ask("a", 0, 9)).slots, 9);
        assert_eq!(ledger.exchange(1, TEN, 2, ask("b", 0, 9)).slots, 1);
        assert_eq!(ledger.exchange(HOLD, TEN, 2, ask("b", 0, 9)).slots, 9);
        assert_eq!(ledger.exchange(HOLD + 1, TEN, 2, ask("b", 0, 0)).slots, 0);
        assert_eq!(ledger.exchange(HOLD + 2, TEN, 2, ask("a", 0, 10)).slots, 10);
    }

    #[test]
    fn it_reads_what_it_wrote_and_what_a_newer_release_wrote() {
        let mut ledger = Ledger::default();
        ledger.exchange(3, TEN, 1, ask("a", 2, 2));
        let text = serde_json::to_string(&ledger).unwrap();
        assert_eq!(serde_json::from_str::<Ledger>(&text).unwrap(), ledger);
        assert_eq!(serde_json::from_str::<Ledger>("{\"new\": 1}").unwrap(), Ledger::default());
    }
}
