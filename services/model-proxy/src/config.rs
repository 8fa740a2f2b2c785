//! The settings of model-proxy.
//!
//! Invariant: a provider joins by its own SDK's variables; nothing else has to
//! be set for the embedded models to answer.

mod providers;

pub use providers::{Kind, ProviderSettings};

use mesh::config::{Common, ConfigError, Reader, Setting, Sources, Time, key};
use std::{path::PathBuf, time::Duration};

pub const ROLE: &str = "model-proxy";

#[derive(Clone, Debug)]
pub struct Config {
    pub common: Common,
    pub providers: Vec<ProviderSettings>,
    pub call: CallSettings,
    pub local: LocalSettings,
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

/// How patient a call is with a provider that fails.
#[derive(Clone, Copy, Debug)]
pub struct CallSettings {
    /// Tries of one call, the first among them.
    pub tries: u32,
    /// A provider that asks for a longer wait is not waited for: the caller is
    /// told, who may have another one.
    pub longest_wait: Duration,
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
        let time = |reader: &mut Reader<'_>, path, default| {
            reader.or(key(path), Time::from_secs(default)).0
        };
        let timers = Timers {
            connect: time(&mut reader, "provider.connect_timeout", 5),
            first_token: time(&mut reader, "provider.first_token_timeout", 60),
            idle: time(&mut reader, "provider.idle_timeout", 60),
            total: time(&mut reader, "provider.total_timeout", 600),
        };
        let call = CallSettings {
            tries: u32::try_from(positive(&mut reader, "provider.tries", 3)).unwrap_or(u32::MAX),
            longest_wait: time(&mut reader, "provider.longest_wait", 10),
        };
        let providers = providers::read(&mut reader, timers);
        let local = LocalSettings {
            models: reader.or(key("local.models"), "./models".to_owned()).into(),
            threads: positive(&mut reader, "local.threads", cores()),
            queue: positive(&mut reader, "local.queue", 64),
        };
        reader.finish(|| Some(Self { common: common?, providers, call, local }))
    }
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
