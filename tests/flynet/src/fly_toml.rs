//! One `fly.toml`, read the way flynet needs it.
//!
//! Invariants:
//! - A file with a key that Fly does not know is refused, every such key named.
//! - What flynet does not emulate is refused, never silently different from Fly.

mod checks;
mod deploy;
mod refused;
mod service;

pub use checks::{Check, Probe};
pub use deploy::{DeployTable, Strategy};
pub use service::{AutoStop, Concurrency, HttpOptions, HttpService, Proxied, Service, Unit};

pub(crate) use deploy::pool;

use crate::{error::Error, schema};
use nix::sys::signal::Signal;
use serde::Deserialize;
use std::{collections::BTreeMap, fs, path::Path, str::FromStr as _, time::Duration};

/// Fly's own defaults; `fly/*.toml` sets better ones.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
const RETRIES: usize = 10;

#[derive(Clone, Debug)]
pub struct FlyToml {
    pub app: String,
    pub primary_region: String,
    pub kill_signal: Signal,
    pub kill_timeout: Duration,
    pub env: BTreeMap<String, String>,
    pub http_service: Option<HttpService>,
    pub services: Vec<Service>,
    /// Every port that the file says the app listens on.
    pub ports: Vec<u16>,
    /// Port and path of the HTTP check that says "ready".
    pub ready: Option<(u16, String)>,
    /// Of services and of `[checks]`.
    pub checks: Vec<Check>,
    pub deploy: DeployTable,
    pub mounts: Vec<Mount>,
    pub files: Vec<File>,
    pub restart: Restart,
    /// Restarts of `on-failure` in one window.
    pub retries: usize,
    pub memory_mb: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Mount {
    pub source: String,
    pub destination: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct File {
    pub guest_path: String,
    pub local_path: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    Always,
    Never,
    OnFailure,
}

#[derive(Deserialize)]
struct Raw {
    app: String,
    primary_region: String,
    kill_signal: Option<String>,
    kill_timeout: Option<toml::Value>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    http_service: Option<HttpService>,
    #[serde(default)]
    services: Vec<service::Raw>,
    processes: Option<toml::Value>,
    #[serde(default)]
    checks: BTreeMap<String, checks::Raw>,
    #[serde(default)]
    deploy: deploy::Raw,
    #[serde(default)]
    mounts: Vec<Mount>,
    #[serde(default)]
    files: Vec<File>,
    #[serde(default)]
    restart: Vec<RestartTable>,
    #[serde(default)]
    vm: Vec<Vm>,
    #[serde(default)]
    metrics: Vec<Metrics>,
}

#[derive(Deserialize)]
struct Metrics {
    port: u16,
}

#[derive(Deserialize)]
struct RestartTable {
    policy: Restart,
    retries: Option<usize>,
}

#[derive(Deserialize)]
struct Vm {
    memory: Option<toml::Value>,
}

impl FlyToml {
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        Self::parse(&text).map_err(|complaints| Error::FlyToml { path: path.into(), complaints })
    }

    /// Every complaint at once.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| vec![e.to_string()])?;
        let mut complaints = schema::complaints(&table);
        complaints.extend(refused::complaints(&table));
        let raw: Raw = match table.try_into() {
            Ok(raw) => raw,
            Err(error) => {
                complaints.push(error.to_string().trim().to_owned());
                return Err(complaints);
            }
        };
        let file = raw.check(&mut complaints);
        if complaints.is_empty() { Ok(file) } else { Err(complaints) }
    }
}

impl Raw {
    fn check(self, complaints: &mut Vec<String>) -> FlyToml {
        if self.processes.is_some() {
            complaints.push("processes: flynet emulates one process group only".to_owned());
        }
        for name in self.env.keys().filter(|name| name.starts_with("FLY_")) {
            complaints.push(format!("env.{name}: names that begin with FLY_ belong to Fly"));
        }
        if self.files.iter().any(|file| file.local_path.is_none()) {
            complaints.push("files: flynet emulates local_path only".to_owned());
        }
        if self.services.len() + usize::from(self.http_service.is_some()) > 1 {
            complaints.push("services: flynet emulates one service per app".to_owned());
        }
        let (kill_signal, kill_timeout) = self.kill(complaints);
        let public = self.http_service.as_ref().map(|service| service.proxied.internal_port);
        let mut found = checks::top_level(&self.checks, public, complaints);
        let ready = found.iter().find_map(|check| match &check.probe {
            Probe::Http { path, .. } => Some((check.port, path.clone())),
            Probe::Tcp => None,
        });
        if let Some(service) = &self.http_service {
            let what = (service.proxied.internal_port, true);
            let path = "http_service.checks";
            found.extend(checks::of_service(&service.checks, path, what, complaints));
        }
        let mut services = Vec::new();
        for service in self.services {
            let (service, checks) = service.check(complaints);
            services.push(service);
            found.extend(checks);
        }
        let restart = self.restart.first();
        let checks = found.iter().map(|check| check.port);
        let metrics = self.metrics.iter().map(|metrics| metrics.port);
        let served = services.iter().map(|service| service.proxied.internal_port);
        let ports = public.into_iter().chain(served).chain(checks).chain(metrics).collect();
        let memory = self.vm.first().and_then(|vm| vm.memory.as_ref());
        FlyToml {
            app: self.app,
            primary_region: self.primary_region,
            kill_signal,
            kill_timeout,
            env: self.env,
            ready: ready.or_else(|| public.map(|port| (port, "/readyz".to_owned()))),
            http_service: self.http_service,
            services,
            ports,
            mounts: self.mounts,
            files: self.files,
            restart: restart.map_or(Restart::OnFailure, |table| table.policy),
            retries: restart.and_then(|table| table.retries).unwrap_or(RETRIES),
            checks: found,
            deploy: self.deploy.check(complaints),
            memory_mb: memory.and_then(megabytes).unwrap_or(256),
        }
    }

    fn kill(&self, complaints: &mut Vec<String>) -> (Signal, Duration) {
        let signal = self.kill_signal.as_deref().unwrap_or("SIGINT");
        let kill_signal = Signal::from_str(signal).unwrap_or_else(|_| {
            complaints.push(format!("kill_signal: {signal:?} is not a signal"));
            Signal::SIGINT
        });
        let kill_timeout = match &self.kill_timeout {
            None => KILL_TIMEOUT,
            Some(value) => seconds(value).unwrap_or_else(|| {
                complaints.push("kill_timeout: must be like \"35s\", 300 s at most".to_owned());
                KILL_TIMEOUT
            }),
        };
        (kill_signal, kill_timeout)
    }
}

/// `"500ms"`, `"10s"`, `"5m"`.
fn span(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        _ => None,
    }
}

/// `"35s"`, `"2m"` or an integer of seconds, within Fly's maximum.
fn seconds(value: &toml::Value) -> Option<Duration> {
    let span = match value {
        toml::Value::Integer(seconds) => Duration::from_secs(u64::try_from(*seconds).ok()?),
        toml::Value::String(text) => span(text)?,
        _ => return None,
    };
    (span <= Duration::from_secs(300)).then_some(span)
}

fn megabytes(value: &toml::Value) -> Option<u32> {
    match value {
        toml::Value::Integer(mb) => u32::try_from(*mb).ok(),
        toml::Value::String(text) => match text.strip_suffix("gb") {
            Some(gb) => gb.parse::<u32>().ok()?.checked_mul(1024),
            None => text.strip_suffix("mb")?.parse().ok(),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_flys() {
        let file = FlyToml::parse("app='a'\nprimary_region='iad'").unwrap();
        assert_eq!(file.kill_signal, Signal::SIGINT);
        assert_eq!(file.kill_timeout, Duration::from_secs(5));
        assert_eq!((file.restart, file.retries), (Restart::OnFailure, 10));
        assert_eq!(file.deploy.strategy, Strategy::Rolling);
        assert_eq!(file.deploy.wait_timeout, Duration::from_secs(300));
        assert_eq!(file.memory_mb, 256);
    }

    #[test]
    fn all_complaints_come_at_once() {
        let text = "app='a'\nprimary_region='iad'\nkill_signal='SIGNOPE'\nkill_timeout='1h'\n\
                    typo=1\n[env]\nFLY_X='1'\n[processes]\napp='x'\n\
                    [[services]]\ninternal_port=1\nprotocol='udp'";
        let found = FlyToml::parse(text).unwrap_err().join("\n");
        for part in ["kill_signal", "kill_timeout", "typo", "env.FLY_X", "processes", "services"] {
            assert!(found.contains(part), "{part} in {found}");
        }
    }

    #[test]
    fn checks_keep_flys_bounds_and_units() {
        let file = FlyToml::parse(
            "app='a'\nprimary_region='iad'\n[http_service]\ninternal_port=8080\n\
             [[http_service.checks]]\npath='/healthz'\ninterval='5m'\ntimeout='2s'\n\
             [checks.up]\ntype='tcp'\ninterval='3s'",
        )
        .unwrap();
        let (up, service) = (&file.checks[0], &file.checks[1]);
        assert_eq!((up.port, up.service, &up.probe), (8080, false, &Probe::Tcp));
        assert!(service.service && service.interval == Duration::from_secs(60), "clamped");
        let found = FlyToml::parse(
            "app='a'\nprimary_region='iad'\n[deploy]\nstrategy='canary'\n\
             release_command='x'\n[[machine_checks]]\ncommand=['x']\n\
             [[vm]]\npersist_rootfs='always'\n\
             [checks.a]\ntype='grpc'\nport=1\n[checks.b]\ntype='tcp'\n\
             [checks.c]\ntype='tcp'\nport=1\ninterval='1s'\ntimeout='61s'\n\
             [checks.d]\ntype='tcp'\nport=1\ninterval=10000",
        );
        let found = found.unwrap_err().join("\n");
        for part in [
            "checks.a.type",
            "checks.b.port",
            "c.interval",
            "c.timeout",
            "d.interval",
            "canary",
            "release_command",
            "machine_checks",
            "vm.persist_rootfs",
        ] {
            assert!(found.contains(part), "{part} in {found}");
        }
    }
}
