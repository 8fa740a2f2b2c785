//! The pairs of regions that have a distance, and may be cut apart.
//!
//! Invariants:
//! - A pair is the same pair whichever region is named first.
//! - What a pair is told holds at once, for connections that are open too.

use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// What lies between two regions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub rtt: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Condition {
    pub(crate) rtt: Duration,
    /// Nothing passes.
    pub(crate) cut: bool,
}

#[derive(Default)]
pub(crate) struct Links(Mutex<BTreeMap<[String; 2], watch::Sender<Condition>>>);

impl Links {
    /// Names a pair, or gives it another distance.
    pub(crate) fn set(&self, a: &str, b: &str, link: Link) -> Result<(), Error> {
        if a == b {
            return Err(Error::NoLink(a.to_owned(), b.to_owned()));
        }
        let mut pairs = self.pairs();
        let pair = pairs.entry(pair(a, b)).or_default();
        pair.send_modify(|condition| condition.rtt = link.rtt);
        Ok(())
    }

    pub(crate) fn cut(&self, a: &str, b: &str, cut: bool) -> Result<(), Error> {
        let unnamed = || Error::NoLink(a.to_owned(), b.to_owned());
        let pairs = self.pairs();
        let pair = pairs.get(&pair(a, b)).ok_or_else(unnamed)?;
        pair.send_modify(|condition| condition.cut = cut);
        Ok(())
    }

    /// `None`: the two are not a named pair, and nothing stands between them.
    pub(crate) fn between(&self, a: &str, b: &str) -> Option<watch::Receiver<Condition>> {
        Some(self.pairs().get(&pair(a, b))?.subscribe())
    }

    pub(crate) fn is_cut(&self, a: &str, b: &str) -> bool {
        self.pairs().get(&pair(a, b)).is_some_and(|pair| pair.borrow().cut)
    }

    fn pairs(&self) -> MutexGuard<'_, BTreeMap<[String; 2], watch::Sender<Condition>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pair(a: &str, b: &str) -> [String; 2] {
    let mut pair = [a.to_owned(), b.to_owned()];
    pair.sort();
    pair
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_has_no_direction_and_must_be_named() {
        let links = Links::default();
        let rtt = Duration::from_millis(170);
        assert!(links.cut("nrt", "iad", true).is_err() && links.between("iad", "nrt").is_none());
        links.set("nrt", "iad", Link { rtt }).unwrap();
        links.cut("iad", "nrt", true).unwrap();
        let seen = links.between("nrt", "iad").unwrap();
        assert_eq!((seen.borrow().rtt, seen.borrow().cut), (rtt, true));
        assert!(links.set("iad", "iad", Link { rtt }).is_err());
    }
}
