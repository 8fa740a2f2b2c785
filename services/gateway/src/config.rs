//! The gateway's own settings.
//!
//! Invariants:
//! - The body limit stays below the mesh's message limit, so that what the edge
//!   lets in is never refused inside.

mod edge;

pub use edge::Edge;

use crate::keys::SHORTEST;
use mesh::{
    config::{Common, ConfigError, Secret, Setting, Size, Sources, Time, key},
    h2,
};
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Config {
    pub common: Common,
    /// Where the keys are.
    pub database_url: String,
    /// Largest request body on the HTTP surface, in bytes.
    pub max_body: u64,
    /// For calls that name no deadline.
    pub deadline: Duration,
    /// Longest silence on an event stream before a comment is sent.
    pub keep_alive: Duration,
    /// How often other machines' key changes are looked for.
    pub key_poll: Duration,
    /// How often this gateway tells the others that it lives.
    pub heartbeat: Duration,
    pub edge: Edge,
    /// Origins whose pages may call from a browser; `*` for all.
    pub cors_origins: Vec<String>,
    pub bootstrap_key: Option<Secret>,
    pub bootstrap_tenant: String,
}

impl Config {
    pub fn read(sources: &Sources) -> Result<(Self, Vec<Setting>), ConfigError> {
        let mut reader = sources.reader();
        let common = Common::read(&mut reader, "gateway");
        let database = key("database.url").env("DATABASE_URL");
        let url: Option<String> = reader.optional(database);
        let max_body = reader.or(key("gateway.max_body"), Size(h2::MAX_PUBLIC_BODY)).0;
        if max_body == 0 || max_body >= h2::MAX_MESSAGE as u64 {
            let limit = Size(h2::MAX_MESSAGE as u64);
            reader.complain(key("gateway.max_body"), format!("must lie between 1 and {limit}"));
        }
        let time = |seconds| Time(Duration::from_secs(seconds));
        let deadline = reader.or(key("gateway.deadline"), time(600)).0;
        let keep_alive = reader.or(key("gateway.keep_alive"), time(15)).0;
        // Half of the second within which a key works everywhere.
        let key_poll = reader.or(key("gateway.key_poll"), Time::from_millis(500)).0;
        let heartbeat = reader.or(key("gateway.heartbeat"), time(5)).0;
        for (name, span) in [
            ("gateway.deadline", deadline),
            ("gateway.keep_alive", keep_alive),
            ("gateway.key_poll", key_poll),
            ("gateway.heartbeat", heartbeat),
        ] {
            if span.is_zero() {
                reader.complain(key(name), "must be longer than 0s");
            }
        }
        let edge = Edge::read(&mut reader, max_body);
        let origins: String = reader.or(key("gateway.cors_origins"), String::new());
        let cors_origins = origins.split(',').map(str::trim).filter(|origin| !origin.is_empty());
        let cors_origins = cors_origins.map(str::to_owned).collect();
        let bootstrap = key("bootstrap.key").env("SKEIN_BOOTSTRAP_KEY");
        let bootstrap_key = reader.secret(bootstrap);
        let length = bootstrap_key.as_ref().map_or(SHORTEST, |secret| secret.expose().len());
        if length < SHORTEST {
            reader.complain(bootstrap, format!("must have at least {SHORTEST} characters"));
        }
        let bootstrap_tenant = reader.or(key("bootstrap.tenant"), "dev".to_owned());
        if !crate::admin::is_tenant(&bootstrap_tenant) {
            reader.complain(key("bootstrap.tenant"), crate::admin::TENANT_RULE);
        }
        let database_url = common.as_ref().and_then(|common| {
            let url = common.state_url(url, "DATABASE_URL");
            url.map_err(|complaint| reader.complain(database, complaint)).ok()
        });
        reader.finish(|| {
            Some(Self {
                common: common?,
                database_url: database_url?,
                max_body,
                deadline,
                keep_alive,
                key_poll,
                heartbeat,
                edge,
                cors_origins,
                bootstrap_key,
                bootstrap_tenant,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESH: [(&str, &str); 2] = [("SKEIN_MESH_KEY", "k"), ("SKEIN_MESH_PEERS", "p")];

    #[test]
    fn every_wrong_setting_is_named_at_once() {
        let mut environment = MESH.to_vec();
        environment.extend([
            ("SKEIN_BOOTSTRAP_KEY", "short"),
            ("SKEIN_GATEWAY__MAX_BODY", "1GiB"),
            ("SKEIN_GATEWAY__KEEP_ALIVE", "0s"),
            ("SKEIN_BOOTSTRAP__TENANT", "A B"),
            ("SKEIN_GATEWAY__MAX_HEAD", "1KiB"),
            ("SKEIN_GATEWAY__STREAMS", "0"),
        ]);
        let error = Config::read(&Sources::of(&environment)).unwrap_err().to_string();
        for part in
            ["at least 24", "40MiB", "longer than 0s", "a-z 0-9", "8KiB and 1MiB", "more than 0"]
        {
            assert!(error.contains(part), "{part} is not in {error}");
        }
        assert!(!error.contains("short"), "{error}");
    }

    #[test]
    fn the_defaults_serve() {
        let (config, settings) = Config::read(&Sources::of(&MESH)).unwrap();
        assert_eq!(config.max_body, 32 << 20);
        assert_eq!(config.keep_alive, Duration::from_secs(15));
        assert_eq!(config.database_url, "sqlite:data/gateway.db");
        assert!(settings.iter().any(|setting| setting.name == "gateway.deadline"));
    }
}
