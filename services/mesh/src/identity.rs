//! Who this process is, from what the platform says.

use crate::config::Reader;
use skein_proto::mesh::v1;
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Fly app name, such as `acme-router`.
    pub app: String,
    /// What the app is to the mesh: `gateway`, `router`, …
    pub role: &'static str,
    pub machine: String,
    pub region: String,
    pub release: String,
}

impl Identity {
    pub fn read(reader: &Reader<'_>, role: &'static str) -> Self {
        let or =
            |name: &str, default: &str| reader.platform(name).unwrap_or_else(|| default.to_owned());
        Self {
            app: reader.platform("FLY_APP_NAME").unwrap_or_else(|| format!("skein-{role}")),
            role,
            machine: or("FLY_MACHINE_ID", "local"),
            region: or("FLY_REGION", "local"),
            release: or("FLY_MACHINE_VERSION", env!("CARGO_PKG_VERSION")),
        }
    }

    /// For tests and tools that are no Fly machine.
    pub fn local(role: &'static str) -> Self {
        Self {
            app: format!("skein-{role}"),
            role,
            machine: "local".to_owned(),
            region: "local".to_owned(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    pub fn to_wire(&self) -> v1::Identity {
        v1::Identity {
            app: self.app.clone(),
            role: self.role.to_owned(),
            machine: self.machine.clone(),
            region: self.region.clone(),
            release: self.release.clone(),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} in {}", self.app, self.machine, self.region)
    }
}
