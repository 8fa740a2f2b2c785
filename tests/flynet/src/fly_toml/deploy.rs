//! `[deploy]` of a `fly.toml`.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How machines are replaced; Fly's other two are refused with volumes, and here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// One first, then as many at a time as may be unavailable, each waited for.
    #[default]
    Rolling,
    /// All at once, not waited for.
    Immediate,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeployTable {
    pub strategy: Strategy,
    /// Below 1 a share of the machines, else a number of them.
    pub max_unavailable: f64,
    pub wait_timeout: Duration,
}

#[derive(Default, Deserialize)]
pub(super) struct Raw {
    strategy: Option<String>,
    max_unavailable: Option<toml::Value>,
    wait_timeout: Option<toml::Value>,
}

/// How many of `machines` may be down at once.
pub(crate) fn pool(machines: usize, max_unavailable: f64) -> usize {
    let many = if max_unavailable < 1.0 {
        // a share of at most 253 machines: exact
        (0..machines).find(|n| share(*n) >= share(machines) * max_unavailable).unwrap_or(machines)
    } else {
        (0..machines).find(|n| share(*n) >= max_unavailable).unwrap_or(machines)
    };
    many.max(1)
}

fn share(machines: usize) -> f64 {
    f64::from(u16::try_from(machines).unwrap_or(u16::MAX))
}

impl Raw {
    pub(super) fn check(&self, complaints: &mut Vec<String>) -> DeployTable {
        let strategy = match self.strategy.as_deref() {
            None | Some("rolling") => Strategy::Rolling,
            Some("immediate") => Strategy::Immediate,
            Some(other) => {
                complaints.push(format!(
                    "deploy.strategy: flynet does not emulate {other:?}, only rolling and immediate"
                ));
                Strategy::Rolling
            }
        };
        let unavailable = match &self.max_unavailable {
            None => Some(0.33),
            Some(toml::Value::Float(share)) => Some(*share),
            Some(toml::Value::Integer(n)) => u16::try_from(*n).ok().map(f64::from),
            Some(_) => None,
        };
        let max_unavailable = unavailable.filter(|n| *n > 0.0).unwrap_or_else(|| {
            complaints.push("deploy.max_unavailable: must be like 0.33 or 2".to_owned());
            1.0
        });
        let patience = match &self.wait_timeout {
            None => Some(Duration::from_secs(300)),
            Some(value) => value.as_str().and_then(super::span),
        };
        let wait_timeout = patience.unwrap_or_else(|| {
            complaints.push("deploy.wait_timeout: must be a string like \"5m\"".to_owned());
            Duration::from_secs(300)
        });
        DeployTable { strategy, max_unavailable, wait_timeout }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_flyctls() {
        // ceil(n x share), or a number
        for (machines, unavailable, expected) in
            [(3, 0.33, 1), (4, 0.33, 2), (10, 0.33, 4), (2, 0.5, 1), (5, 2.0, 2), (1, 3.0, 1)]
        {
            assert_eq!(pool(machines, unavailable), expected, "{machines} x {unavailable}");
        }
    }
}
