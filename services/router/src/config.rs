//! The router's settings.
//!
//! Invariant: agents are read with the rest, so that a wrong `agents.toml` is one
//! of the complaints at start.

use crate::agents::Agents;
use mesh::config::{Common, ConfigError, Setting, Sources, Time, key};
use std::path::Path;
use std::time::Duration;

/// `agents.toml` beside the process, if nothing else is said.
const AGENTS: &str = "agents.toml";

pub struct Config {
    pub common: Common,
    pub database_url: String,
    pub agents: Agents,
    /// The home whose threads live in our store; part of their ids.
    pub home: String,
    /// How often other machines' writes are looked for.
    pub poll: Duration,
    /// Longest life of a live event stream.
    pub lease: Duration,
}

impl Config {
    pub fn read(sources: &Sources) -> Result<(Self, Vec<Setting>), ConfigError> {
        let mut reader = sources.reader();
        let common = Common::read(&mut reader, "router");
        let database = key("database.url").env("DATABASE_URL");
        let url = reader.optional(database);
        let database_url = common.as_ref().and_then(|common| {
            common
                .state_url(url, "DATABASE_URL")
                .map_err(|message| reader.complain(database, message))
                .ok()
        });
        let file = key("router.agents");
        let agents = read_agents(reader.optional::<String>(file).as_deref())
            .map_err(|message| reader.complain(file, message))
            .ok();
        let home_key = key("router.home");
        let home = reader.or(home_key, "us".to_owned());
        if home.is_empty() || !home.bytes().all(|byte| byte.is_ascii_lowercase()) {
            reader.complain(home_key, "a home is a short name of a-z, such as us or eu");
        }
        let poll = reader.or(key("router.poll"), Time::from_millis(500)).0;
        if poll.is_zero() {
            reader.complain(key("router.poll"), "must be above 0");
        }
        let lease = reader.or(key("router.lease"), Time::from_secs(300)).0;
        if lease.is_zero() || lease > Duration::from_secs(300) {
            reader.complain(key("router.lease"), "must be above 0 and at most 5m");
        }
        reader.finish(|| {
            let (common, database_url, agents) = (common?, database_url?, agents?);
            Some(Self { common, database_url, agents, home, poll, lease })
        })
    }
}

fn read_agents(named: Option<&str>) -> Result<Agents, String> {
    let path = named.unwrap_or(AGENTS);
    if named.is_none() && !Path::new(path).exists() {
        return Ok(Agents::default());
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("read {path}: {error}"))?;
    Agents::parse(path, &text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_complaint_is_reported_at_once() {
        let sources = Sources::of(&[
            ("SKEIN_MESH_KEY", "k"),
            ("SKEIN_MESH_PEERS", "p"),
            ("SKEIN_ROUTER__AGENTS", "no-such-file.toml"),
            ("SKEIN_ROUTER__HOME", "US-1"),
            ("SKEIN_ROUTER__LEASE", "1h"),
            ("FLY_MACHINE_ID", "148e"),
        ]);
        let error = Config::read(&sources).err().unwrap().to_string();
        for part in
            ["no-such-file.toml", "SKEIN_ROUTER__HOME", "SKEIN_ROUTER__LEASE", "DATABASE_URL"]
        {
            assert!(error.contains(part), "{error}");
        }
    }
}
