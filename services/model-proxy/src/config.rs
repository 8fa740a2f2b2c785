//! The settings of model-proxy.
//!
//! Invariant: a provider joins by its own SDK's variables; nothing else has to
//! be set for the embedded models to answer.

use mesh::config::{Common, ConfigError, Reader, Secret, Setting, Sources, Time, key};
use std::{path::PathBuf, time::Duration};

pub const ROLE: &str = "model-proxy";
const OPENAI: &str = "https://api.openai.com/v1";

#[derive(Clone, Debug)]
pub struct Config {
    pub common: Common,
    pub openai: Option<OpenAiSettings>,
    pub timers: Timers,
    pub local: LocalSettings,
}

#[derive(Clone, Debug)]
pub struct OpenAiSettings {
    pub base_url: String,
    pub api_key: Option<Secret>,
}

/// The four timers on a provider call.
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    pub connect: Duration,
    /// From the request to the first event.
    pub first_token: Duration,
    /// Between any two pieces that the provider sends, its pings included.
    pub idle: Duration,
    pub total: Duration,
}

#[derive(Clone, Debug)]
pub struct LocalSettings {
    /// Holds `minilm/` and `smollm2/`, as `make models` lays them.
    pub models: PathBuf,
    /// Threads that compute.
    pub threads: usize,
    /// Jobs that may wait for them.
    pub queue: usize,
}

impl Config {
    pub fn read(sources: &Sources) -> Result<(Self, Vec<Setting>), ConfigError> {
        let mut reader = sources.reader();
        let common = Common::read(&mut reader, ROLE);
        let openai = openai(&mut reader);
        let time = |reader: &mut Reader<'_>, path, default| {
            reader.or(key(path), Time::from_secs(default)).0
        };
        let timers = Timers {
            connect: time(&mut reader, "provider.connect_timeout", 5),
            first_token: time(&mut reader, "provider.first_token_timeout", 60),
            idle: time(&mut reader, "provider.idle_timeout", 60),
            total: time(&mut reader, "provider.total_timeout", 600),
        };
        let local = LocalSettings {
            models: reader.or(key("local.models"), "./models".to_owned()).into(),
            threads: positive(&mut reader, "local.threads", cores()),
            queue: positive(&mut reader, "local.queue", 64),
        };
        reader.finish(|| Some(Self { common: common?, openai, timers, local }))
    }
}

fn openai(reader: &mut Reader<'_>) -> Option<OpenAiSettings> {
    let address = key("openai.base_url").env("OPENAI_BASE_URL");
    let api_key = reader.secret(key("openai.api_key").env("OPENAI_API_KEY"));
    let base_url: Option<String> = reader.optional(address);
    if let Some(url) = &base_url
        && !url.starts_with("http://")
        && !url.starts_with("https://")
    {
        reader.complain(address, "must begin with http:// or https://");
    }
    (api_key.is_some() || base_url.is_some()).then(|| OpenAiSettings {
        base_url: base_url.unwrap_or_else(|| OPENAI.to_owned()),
        api_key,
    })
}

fn positive(reader: &mut Reader<'_>, path: &'static str, default: usize) -> usize {
    let value = reader.or(key(path), default);
    if value == 0 {
        reader.complain(key(path), "must be at least 1");
    }
    value
}

/// More threads than two gain nothing on models this small.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(2))
}
