//! What the proxy does with a service of a `fly.toml`.
//!
//! Invariants:
//! - Missing keys mean what they mean on Fly: autostop off, autostart on, connections
//!   counted, a soft limit of 20 and no hard one.

use super::checks;
use serde::Deserialize;

const SOFT: usize = 20;

/// What `[http_service]` and `[[services]]` have in common.
#[derive(Clone, Debug, Deserialize)]
pub struct Proxied {
    pub internal_port: u16,
    #[serde(default, rename = "auto_stop_machines")]
    pub auto_stop: AutoStop,
    #[serde(default = "yes", rename = "auto_start_machines")]
    pub auto_start: bool,
    /// In the primary region, while autostop is on.
    #[serde(default)]
    pub min_machines_running: usize,
    #[serde(default)]
    pub concurrency: Concurrency,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Spelling")]
pub enum AutoStop {
    #[default]
    Off,
    Stop,
    Suspend,
}

/// Booleans are the old form.
#[derive(Deserialize)]
#[serde(untagged)]
enum Spelling {
    Old(bool),
    New(Word),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Off,
    Stop,
    Suspend,
}

impl From<Spelling> for AutoStop {
    fn from(spelling: Spelling) -> Self {
        match spelling {
            Spelling::Old(false) | Spelling::New(Word::Off) => Self::Off,
            Spelling::Old(true) | Spelling::New(Word::Stop) => Self::Stop,
            Spelling::New(Word::Suspend) => Self::Suspend,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Concurrency {
    #[serde(rename = "type")]
    pub unit: Unit,
    pub soft_limit: usize,
    pub hard_limit: Option<usize>,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self { unit: Unit::default(), soft_limit: SOFT, hard_limit: None }
    }
}

/// What a machine's load is counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    #[default]
    Connections,
    Requests,
}

#[derive(Clone, Debug, Deserialize)]
pub struct HttpService {
    #[serde(flatten)]
    pub proxied: Proxied,
    #[serde(default)]
    pub http_options: HttpOptions,
    #[serde(default)]
    pub(super) checks: Vec<checks::Raw>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct HttpOptions {
    #[serde(default)]
    pub h2_backend: bool,
    /// In seconds; Fly's default is not documented.
    pub idle_timeout: Option<u32>,
}

/// Bytes passed through, for `<app>.flycast`.
#[derive(Clone, Debug)]
pub struct Service {
    pub proxied: Proxied,
    /// Where callers find it.
    pub ports: Vec<u16>,
}

#[derive(Deserialize)]
pub(super) struct Raw {
    #[serde(flatten)]
    proxied: Proxied,
    protocol: Option<String>,
    #[serde(default)]
    ports: Vec<Port>,
    #[serde(default)]
    tcp_checks: Vec<checks::Raw>,
    #[serde(default)]
    http_checks: Vec<checks::Raw>,
}

#[derive(Deserialize)]
struct Port {
    port: Option<u16>,
    #[serde(default)]
    handlers: Vec<String>,
}

impl Raw {
    /// The service, and the checks that routing to it depends on.
    pub(super) fn check(self, complaints: &mut Vec<String>) -> (Service, Vec<checks::Check>) {
        let mut refuse = |what: &str, why: &str| complaints.push(format!("services.{what}: {why}"));
        if self.protocol.as_deref().is_some_and(|protocol| protocol != "tcp") {
            refuse("protocol", "flynet emulates \"tcp\" only");
        }
        if self.ports.iter().any(|port| !port.handlers.is_empty()) {
            refuse("ports.handlers", "flynet emulates ports without handlers only");
        }
        if self.ports.is_empty() || self.ports.iter().any(|port| port.port.is_none()) {
            refuse("ports", "flynet emulates single ports, and at least one must be there");
        }
        if self.proxied.concurrency.unit == Unit::Requests {
            refuse("concurrency.type", "bytes without a handler have no requests to count");
        }
        let port = self.proxied.internal_port;
        let mut found =
            checks::of_service(&self.tcp_checks, "services.tcp_checks", (port, false), complaints);
        let http = (port, true);
        found.extend(checks::of_service(
            &self.http_checks,
            "services.http_checks",
            http,
            complaints,
        ));
        let ports = self.ports.iter().filter_map(|port| port.port).collect();
        (Service { proxied: self.proxied, ports }, found)
    }
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::super::FlyToml;
    use super::*;

    const HEAD: &str = "app='a'\nprimary_region='iad'\n";

    #[test]
    fn defaults_are_flys() {
        let text = "[[services]]\ninternal_port=50051\n[[services.ports]]\nport=50051";
        let file = FlyToml::parse(&format!("{HEAD}{text}")).unwrap();
        let service = &file.services[0];
        let Proxied { auto_stop, auto_start, min_machines_running, concurrency, .. } =
            &service.proxied;
        assert_eq!((*auto_stop, *auto_start, *min_machines_running), (AutoStop::Off, true, 0));
        assert_eq!((concurrency.unit, concurrency.soft_limit), (Unit::Connections, 20));
        assert_eq!((concurrency.hard_limit, service.ports.as_slice()), (None, &[50051][..]));
        assert!(file.ports.contains(&50051));
    }

    #[test]
    fn both_spellings_of_autostop() {
        for (text, meaning) in [
            ("true", AutoStop::Stop),
            ("false", AutoStop::Off),
            ("'off'", AutoStop::Off),
            ("'stop'", AutoStop::Stop),
            ("'suspend'", AutoStop::Suspend),
        ] {
            let text = format!("{HEAD}[http_service]\ninternal_port=1\nauto_stop_machines={text}");
            let file = FlyToml::parse(&text).unwrap();
            assert_eq!(file.http_service.unwrap().proxied.auto_stop, meaning);
        }
    }

    #[test]
    fn what_is_not_emulated_is_refused() {
        let text = "[[services]]\nprotocol='udp'\ninternal_port=1\n[services.concurrency]\n\
                    type='requests'\n[[services.ports]]\nhandlers=['tls']";
        let found = FlyToml::parse(&format!("{HEAD}{text}")).unwrap_err().join("\n");
        for part in ["services.protocol", "ports.handlers", "services.ports:", "concurrency.type"] {
            assert!(found.contains(part), "{part} in {found}");
        }
    }
}
