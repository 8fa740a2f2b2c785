//! The health checks of a `fly.toml`.
//!
//! Invariants:
//! - A duration that flyctl would read as another unit than its author is refused.
//! - Bounds are those of flyctl: 1 to 60 s for a service's checks; for the others
//!   an interval of at least 2 s and a timeout of at most 60 s.

use serde::Deserialize;
use std::{collections::BTreeMap, time::Duration};

// not documented by Fly
const INTERVAL: Duration = Duration::from_secs(15);
const TIMEOUT: Duration = Duration::from_secs(2);
const GRACE: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub name: String,
    /// Of a service: routing depends on it.
    pub service: bool,
    pub port: u16,
    pub probe: Probe,
    pub interval: Duration,
    pub timeout: Duration,
    pub grace: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    Tcp,
    Http { method: String, path: String, headers: Vec<(String, String)> },
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Raw {
    #[serde(rename = "type")]
    kind: Option<String>,
    port: Option<u16>,
    method: Option<String>,
    path: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    interval: Option<toml::Value>,
    timeout: Option<toml::Value>,
    grace_period: Option<toml::Value>,
}

/// `[checks.NAME]`; `public`: where `port` falls back to.
pub(super) fn top_level(
    raw: &BTreeMap<String, Raw>,
    public: Option<u16>,
    complaints: &mut Vec<String>,
) -> Vec<Check> {
    let each = raw.iter().filter_map(|(name, raw)| {
        let path = format!("checks.{name}");
        let Some(port) = raw.port.or(public) else {
            complaints.push(format!("{path}.port: must be set, there is no http_service"));
            return None;
        };
        let http = match raw.kind.as_deref() {
            Some("http") => true,
            Some("tcp") => false,
            _ => {
                complaints.push(format!("{path}.type: must be \"http\" or \"tcp\""));
                return None;
            }
        };
        let check = raw.check(name, &path, (port, http), complaints);
        if check.interval < Duration::from_secs(2) {
            complaints.push(format!("{path}.interval: must be at least 2 s"));
        }
        if check.timeout > Duration::from_secs(60) {
            complaints.push(format!("{path}.timeout: must be at most 60 s"));
        }
        Some(check)
    });
    each.collect()
}

/// Those of a service; `path` is where they stand, `http` what they are.
pub(super) fn of_service(
    raw: &[Raw],
    path: &str,
    (port, http): (u16, bool),
    complaints: &mut Vec<String>,
) -> Vec<Check> {
    let each = raw.iter().enumerate().map(|(number, raw)| {
        let kind = if http { "http" } else { "tcp" };
        let name = format!("servicecheck-{number:02}-{kind}-{port}");
        let mut check = raw.check(&name, path, (port, http), complaints);
        check.service = true;
        for span in [&mut check.interval, &mut check.timeout, &mut check.grace] {
            *span = (*span).clamp(Duration::from_secs(1), Duration::from_secs(60));
        }
        check
    });
    each.collect()
}

impl Raw {
    fn check(
        &self,
        name: &str,
        path: &str,
        (port, http): (u16, bool),
        complaints: &mut Vec<String>,
    ) -> Check {
        let mut span = |key: &str, value: &Option<toml::Value>, default| match value {
            None => default,
            Some(value) => value.as_str().and_then(super::span).unwrap_or_else(|| {
                let why = "must be a string like \"10s\"; flyctl reads integers in three units";
                complaints.push(format!("{path}.{key}: {why}"));
                default
            }),
        };
        let method = self.method.clone().unwrap_or_else(|| "GET".to_owned());
        Check {
            name: name.to_owned(),
            service: false,
            port,
            probe: match http {
                true => Probe::Http {
                    method: method.to_ascii_uppercase(),
                    path: self.path.clone().unwrap_or_else(|| "/".to_owned()),
                    headers: self.headers.clone().into_iter().collect(),
                },
                false => Probe::Tcp,
            },
            interval: span("interval", &self.interval, INTERVAL),
            timeout: span("timeout", &self.timeout, TIMEOUT),
            grace: span("grace_period", &self.grace_period, GRACE),
        }
    }
}
