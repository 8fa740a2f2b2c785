//! The settings of model-proxy.
//!
//! Invariant: a provider joins by its own SDK's variables; nothing else has to
//! be set for the embedded models to answer.

mod bucket;
mod network;
mod providers;

pub use bucket::BucketSettings;
pub use network::{Network, Proxies};
pub use providers::{Kind, ProviderSettings};

use crate::{
    health::{breaker::Rules, cooldown::Rests},
    price::Prices,
};
use mesh::config::{Common, ConfigError, Reader, Setting, Sources, Time, key};
use std::{fs, path::PathBuf, sync::Arc, time::Duration};

pub const ROLE: &str = "model-proxy";
const BATCH_WAIT: Duration = Duration::from_millis(3);

#[derive(Clone, Debug)]
pub struct Config {
    pub common: Common,
    pub providers: Vec<ProviderSettings>,
    pub call: CallSettings,
    pub health: HealthSettings,
    /// How long callers for embeddings wait for each other.
    pub batch_wait: Duration,
    /// From the request for a picture to the picture, or to a sign of one.
    pub image_timeout: Duration,
    /// For pictures that are wanted as URLs and come as data.
    pub bucket: Option<BucketSettings>,
    pub network: Network,
    pub local: LocalSettings,
    pub prices: Arc<Prices>,
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

/// Those of the timers that somebody has set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    pub first_token: Option<Duration>,
    pub idle: Option<Duration>,
    pub total: Option<Duration>,
}

impl Patience {
    /// For models that think for minutes before they say a word.
    pub const REASONING: Self = Self {
        first_token: Some(Duration::from_secs(300)),
        idle: Some(Duration::from_secs(120)),
        total: Some(Duration::from_secs(1800)),
    };

    /// Without those that `other` sets.
    #[must_use]
    pub fn unless(self, other: Self) -> Self {
        Self {
            first_token: self.first_token.filter(|_| other.first_token.is_none()),
            idle: self.idle.filter(|_| other.idle.is_none()),
            total: self.total.filter(|_| other.total.is_none()),
        }
    }

    /// With what `other` sets in the place of its own.
    #[must_use]
    pub fn then(self, other: Self) -> Self {
        Self {
            first_token: other.first_token.or(self.first_token),
            idle: other.idle.or(self.idle),
            total: other.total.or(self.total),
        }
    }
}

impl Timers {
    #[must_use]
    pub fn with(self, set: Patience) -> Self {
        Self {
            connect: self.connect,
            first_token: set.first_token.unwrap_or(self.first_token),
            idle: set.idle.unwrap_or(self.idle),
            total: set.total.unwrap_or(self.total),
        }
    }
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

/// When a key or a model is left alone, and how it is found to work again.
#[derive(Clone, Debug)]
pub struct HealthSettings {
    pub rules: Rules,
    /// Zero: nothing is asked but what callers ask.
    pub probe_interval: Duration,
    /// By their full names; to try them costs one token each time.
    pub probe_models: Vec<String>,
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
        let batch_wait = reader.or(key("embed.batch_wait"), Time(BATCH_WAIT)).0;
        let providers = providers::read(&mut reader, timers);
        let health = health(&mut reader, &providers);
        let prices = prices(&mut reader);
        let image_timeout = time(&mut reader, "images.timeout", 300);
        let bucket = bucket::read(&mut reader);
        let network = network::read(&mut reader);
        let local = LocalSettings {
            models: reader.or(key("local.models"), "./models".to_owned()).into(),
            threads: positive(&mut reader, "local.threads", cores()),
            queue: positive(&mut reader, "local.queue", 64),
        };
        reader.finish(|| {
            let (common, prices) = (common?, prices?);
            Some(Self {
                common,
                providers,
                call,
                health,
                batch_wait,
                network,
                image_timeout,
                bucket,
                local,
                prices,
            })
        })
    }
}

/// The built-in table with the operator's file in it.
fn prices(reader: &mut Reader<'_>) -> Option<Arc<Prices>> {
    let key = key("prices.file");
    let path: Option<String> = reader.optional(key);
    let text = path.map(|path| {
        fs::read_to_string(&path).map_err(|error| vec![format!("cannot read {path}: {error}")])
    });
    let prices = Prices::built_in().and_then(|prices| match text.transpose()? {
        Some(text) => prices.with(&text),
        None => Ok(prices),
    });
    let prices = prices.map_err(|complaints| {
        for complaint in complaints {
            reader.complain(key, complaint);
        }
    });
    prices.ok().map(Arc::new)
}

fn health(reader: &mut Reader<'_>, providers: &[ProviderSettings]) -> HealthSettings {
    let mut time = |path, default| reader.or(key(path), Time::from_secs(default)).0;
    let first = time("provider.breaker_rest", 5);
    let longest = time("provider.breaker_longest_rest", 120).max(first);
    let probe_interval = time("provider.probe_interval", 30);
    let in_a_row = positive(reader, "provider.breaker_failures", 5);
    let models = key("provider.probe_models");
    let named: String = reader.optional(models).unwrap_or_default();
    let named = named.split(',').map(str::trim).filter(|name| !name.is_empty());
    let probe_models: Vec<_> = named.map(str::to_owned).collect();
    for name in &probe_models {
        let provider = name.split_once('/').map(|(provider, _)| provider);
        if !providers.iter().any(|known| Some(&*known.name) == provider) {
            let message = format!("{name:?} is of no provider here; it must be <provider>/<id>");
            reader.complain(models, message);
        }
    }
    let in_a_row = u32::try_from(in_a_row).unwrap_or(u32::MAX);
    let rules = Rules { in_a_row, rests: Rests { first, longest, free: 0 } };
    HealthSettings { rules, probe_interval, probe_models }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MESH: [(&str, &str); 2] = [("SKEIN_MESH_KEY", "x"), ("SKEIN_MESH_PEERS", "x")];

    #[test]
    fn a_wrong_price_file_stops_the_start_with_every_complaint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prices.json");
        let path = path.to_str().unwrap();
        let read = |text: Option<&str>| {
            text.inspect(|text| fs::write(path, text).unwrap());
            let mut variables = MESH.to_vec();
            variables.extend([("SKEIN_PRICES__FILE", path), ("SKEIN_LOCAL__QUEUE", "0")]);
            Config::read(&Sources::of(&variables)).unwrap_err().to_string()
        };
        let missing = read(None);
        assert!(missing.contains("SKEIN_PRICES__FILE: cannot read"), "{missing}");
        let wrong = read(Some(
            r#"[{"id": "own/a", "prise": []},
                {"id": "openai/gpt-4o", "prices": [{"input": 25000000000}]}]"#,
        ));
        assert!(wrong.contains("own/a: \"prise\" is no key"), "{wrong}");
        let jump = read(Some(r#"[{"id": "openai/gpt-4o", "prices": [{"input": 25000000000}]}]"#));
        assert!(jump.contains("input is 25000000000 and 2500000000 is built in"), "{jump}");
        assert!(jump.contains("SKEIN_LOCAL__QUEUE"), "all complaints at once: {jump}");
    }

    #[test]
    fn what_somebody_has_set_is_not_overruled_by_a_default() {
        let seconds = |count| Some(Duration::from_secs(count));
        let set = |first_token, idle| Patience { first_token, idle, total: None };
        let thinks = Patience::REASONING.unless(set(seconds(7), None)).then(set(None, seconds(9)));
        assert_eq!(
            thinks,
            Patience { first_token: None, ..set(None, seconds(9)) }
                .then(Patience { total: seconds(1800), ..Patience::default() })
        );
        let mut variables = MESH.to_vec();
        variables.extend([
            ("OPENAI_API_KEY", "k"),
            ("GROQ_API_KEY", "k"),
            ("SKEIN_GROQ__FIRST_TOKEN_TIMEOUT", "60s"),
            ("SKEIN_PROVIDER__IDLE_TIMEOUT", "5s"),
        ]);
        let (config, _) = Config::read(&Sources::of(&variables)).unwrap();
        let given = |name: &str| {
            let found = config.providers.iter().find(|known| &*known.name == name);
            found.unwrap().patience
        };
        assert_eq!(given("openai"), set(None, seconds(5)));
        assert_eq!(given("groq"), set(seconds(60), seconds(5)), "set, if to the default");
    }
}
