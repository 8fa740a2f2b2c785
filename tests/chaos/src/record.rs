//! Outcomes of calls, and the figures made of them.

use crate::calls::Kind;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// One call that has ended, or that was given up.
#[derive(Clone, Debug)]
pub struct Record {
    pub kind: Kind,
    /// The caller's.
    pub region: &'static str,
    /// Since the load began.
    pub at: Duration,
    pub took: Duration,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Good,
    /// What the caller was told.
    Failed(String),
    /// Neither answered nor refused when its deadline had long passed.
    Hung,
}

/// Calls, in the order of their beginning.
#[derive(Clone, Debug, Default)]
pub struct Recording(pub Vec<Record>);

impl Recording {
    pub fn between(&self, from: Duration, to: Duration) -> Self {
        let within = |record: &&Record| record.at >= from && record.at < to;
        Self(self.0.iter().filter(within).cloned().collect())
    }

    pub fn only(&self, wanted: impl Fn(&Record) -> bool) -> Self {
        Self(self.0.iter().filter(|record| wanted(record)).cloned().collect())
    }

    pub fn failed(&self) -> impl Iterator<Item = &Record> {
        self.0.iter().filter(|record| record.outcome != Outcome::Good)
    }

    pub fn hung(&self) -> usize {
        self.0.iter().filter(|record| record.outcome == Outcome::Hung).count()
    }

    /// Of the good calls; zero without any.
    pub fn quantile(&self, share: f64) -> Duration {
        let good = self.0.iter().filter(|record| record.outcome == Outcome::Good);
        let mut times: Vec<_> = good.map(|record| record.took).collect();
        times.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of a length"
        )]
        let at = (times.len() as f64 * share).ceil() as usize;
        times.get(at.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// What went wrong, and how often.
    pub fn complaints(&self) -> BTreeMap<String, usize> {
        let mut found = BTreeMap::new();
        for record in self.failed() {
            let what = match &record.outcome {
                Outcome::Failed(what) => what.as_str(),
                _ => "hung",
            };
            *found
                .entry(format!("{:?} from {}: {what}", record.kind, record.region))
                .or_default() += 1;
        }
        found
    }

    pub fn figures(&self) -> Value {
        let ms = |share| self.quantile(share).as_millis();
        json!({
            "calls": self.0.len(), "failed": self.failed().count(), "hung": self.hung(),
            "p50_ms": ms(0.5), "p99_ms": ms(0.99), "max_ms": ms(1.0),
        })
    }

    /// The longest, good or not, longest first.
    pub fn slowest(&self, count: usize) -> Vec<Value> {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by_key(|record| std::cmp::Reverse(record.took));
        let told = |record: &&Record| {
            json!({
                "kind": format!("{:?}", record.kind), "region": record.region,
                "at_ms": record.at.as_millis(), "took_ms": record.took.as_millis(),
                "good": record.outcome == Outcome::Good,
            })
        };
        all.iter().take(count).map(told).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_the_good_calls_and_complaints_of_the_others() {
        let record = |ms, outcome| Record {
            kind: Kind::Embed,
            region: "iad",
            at: Duration::from_millis(ms),
            took: Duration::from_millis(ms),
            outcome,
        };
        let mut calls: Vec<_> = (1..=100).map(|ms| record(ms, Outcome::Good)).collect();
        calls.push(record(900, Outcome::Failed("UNAVAILABLE".to_owned())));
        calls.push(record(950, Outcome::Hung));
        let all = Recording(calls);
        assert_eq!(all.quantile(0.5), Duration::from_millis(50));
        assert_eq!(all.quantile(1.0), Duration::from_millis(100));
        assert_eq!((all.failed().count(), all.hung()), (2, 1));
        assert_eq!(all.complaints()["Embed from iad: UNAVAILABLE"], 1);
        let early = all.between(Duration::ZERO, Duration::from_millis(11));
        assert_eq!(early.0.len(), 10);
    }
}
