//! Which providers are there, and with what.
//!
//! Invariants:
//! - A provider joins by its own SDK's variables; what speaks OpenAI's dialect
//!   and has no row here joins by a name of one's own (`provider.compatible`).
//! - An address without a path gets the one that the provider's SDK would add.
//!
//! To add a provider: a row of [`KNOWN`]; if it speaks a dialect of its own,
//! a [`Kind`] too.

use super::{Patience, Timers};
use mesh::config::{Key, Reader, Secret, Time, key};
use std::{sync::Arc, time::Duration};

/// Which dialect a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    OpenAi,
    Replicate,
    Anthropic,
}

#[derive(Clone, Debug)]
pub struct ProviderSettings {
    /// The part before the slash in the names of its models.
    pub name: Arc<str>,
    pub kind: Kind,
    /// Without a slash at the end.
    pub base_url: String,
    /// One variable may hold several, with commas between them. Empty for
    /// servers that want none.
    pub keys: Vec<Secret>,
    /// The variable that the keys came from, for messages.
    pub variable: &'static str,
    /// The version of its API to ask for, where the provider has several.
    pub version: Option<String>,
    /// Features that are not everybody's yet, where the provider has such.
    pub beta: Option<String>,
    pub timers: Timers,
    /// Those of them that are not defaults.
    pub patience: Patience,
}

/// A row: what a provider is called, where it is, and its SDK's variables.
#[derive(Clone, Copy)]
struct Known {
    kind: Kind,
    name: &'static str,
    /// Empty where everybody has an address of their own.
    base_url: &'static str,
    /// What an address that is given without a path goes on with.
    path: &'static str,
    address: &'static str,
    key: &'static str,
    version: Option<&'static str>,
}

const KNOWN: &[Known] = &[
    row("openai", ["OPENAI_BASE_URL", "OPENAI_API_KEY"], "https://api.openai.com/v1", ""),
    Known {
        version: Some("OPENAI_API_VERSION"),
        ..row("azure", ["AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY"], "", "")
    },
    Known {
        kind: Kind::Anthropic,
        version: Some("ANTHROPIC_VERSION"),
        ..row(
            "anthropic",
            ["ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"],
            "https://api.anthropic.com",
            "",
        )
    },
    row("groq", ["GROQ_BASE_URL", "GROQ_API_KEY"], "https://api.groq.com", "/openai/v1"),
    row("mistral", ["MISTRAL_BASE_URL", "MISTRAL_API_KEY"], "https://api.mistral.ai", "/v1"),
    row("deepseek", ["DEEPSEEK_BASE_URL", "DEEPSEEK_API_KEY"], "https://api.deepseek.com", "/v1"),
    row("xai", ["XAI_BASE_URL", "XAI_API_KEY"], "https://api.x.ai", "/v1"),
    row("together", ["TOGETHER_BASE_URL", "TOGETHER_API_KEY"], "https://api.together.xyz", "/v1"),
    row("moonshot", ["MOONSHOT_BASE_URL", "MOONSHOT_API_KEY"], "https://api.moonshot.ai", "/v1"),
    row("cerebras", ["CEREBRAS_BASE_URL", "CEREBRAS_API_KEY"], "https://api.cerebras.ai", "/v1"),
    row("zai", ["ZAI_BASE_URL", "ZAI_API_KEY"], "https://api.z.ai", "/api/paas/v4"),
    Known {
        kind: Kind::Replicate,
        ..row(
            "replicate",
            ["REPLICATE_BASE_URL", "REPLICATE_API_TOKEN"],
            "https://api.replicate.com",
            "/v1",
        )
    },
    row("ollama", ["OLLAMA_HOST", "OLLAMA_API_KEY"], "", "/v1"),
    row("vllm", ["VLLM_BASE_URL", "VLLM_API_KEY"], "", "/v1"),
];

/// One that speaks OpenAI's dialect; `variables` hold its address and its keys.
const fn row(
    name: &'static str,
    variables: [&'static str; 2],
    base_url: &'static str,
    path: &'static str,
) -> Known {
    let [address, key] = variables;
    Known { kind: Kind::OpenAi, name, base_url, path, address, key, version: None }
}

/// Names that belong to no provider.
const TAKEN: [&str; 4] = ["local", "agent", "provider", "mesh"];

/// Those that have a key or an address.
pub(super) fn read(reader: &mut Reader<'_>, timers: Timers) -> Vec<ProviderSettings> {
    let mut found: Vec<_> = KNOWN.iter().filter_map(|known| one(reader, known, timers)).collect();
    let names = key("provider.compatible");
    let own: String = reader.optional(names).unwrap_or_default();
    let mut own: Vec<_> = own.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    own.sort_unstable();
    own.dedup();
    for name in own {
        let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if !plain || TAKEN.contains(&name) || KNOWN.iter().any(|known| known.name == name) {
            let message = format!("{name:?} must be lower-case letters and digits, and not taken");
            reader.complain(names, message);
            continue;
        }
        let name: &'static str = name.to_owned().leak(); // once, at start
        let variable = |end: &str| &*format!("SKEIN_{}__{end}", name.to_uppercase()).leak();
        let known = row(name, [variable("BASE_URL"), variable("API_KEY")], "", "");
        found.extend(one(reader, &known, timers));
    }
    found
}

fn one(reader: &mut Reader<'_>, known: &Known, timers: Timers) -> Option<ProviderSettings> {
    // Once for each provider, at start.
    let setting = |end: &str| key(format!("{}.{end}", known.name).leak());
    let address_key = setting("base_url").env(known.address);
    let secret = reader.secret(setting("api_key").env(known.key));
    let address: Option<String> = reader.optional(address_key);
    let version = known.version.and_then(|name| reader.optional(setting("api_version").env(name)));
    let beta = (known.kind == Kind::Anthropic).then(|| reader.optional(setting("beta"))).flatten();
    let time = |reader: &mut Reader<'_>, key: Key, default| reader.or(key, Time(default)).0;
    let timers = if known.kind == Kind::Replicate { on_demand(timers) } else { timers };
    let timers = Timers {
        connect: time(reader, setting("connect_timeout"), timers.connect),
        first_token: time(reader, setting("first_token_timeout"), timers.first_token),
        idle: time(reader, setting("idle_timeout"), timers.idle),
        total: time(reader, setting("total_timeout"), timers.total),
    };
    let given = |reader: &Reader<'_>, end: &str, time: Duration| {
        let general = key(format!("provider.{end}").leak());
        (reader.given(setting(end)) || reader.given(general)).then_some(time)
    };
    let patience = Patience {
        first_token: given(reader, "first_token_timeout", timers.first_token),
        idle: given(reader, "idle_timeout", timers.idle),
        total: given(reader, "total_timeout", timers.total),
    };
    let mut address = address;
    if known.name == "ollama" {
        address = address.map(|host| ollama(&host));
    }
    let Some(given) = address.clone().or_else(|| default(known)) else {
        if secret.is_some() || KNOWN.iter().all(|row| row.name != known.name) {
            reader.complain(address_key, format!("{} needs an address", known.name));
        }
        return None;
    };
    if secret.is_none() && address.is_none() {
        return None;
    }
    let base_url = whole(&given, known.path);
    if base_url.is_none() {
        reader.complain(
            address_key,
            "must be a URL that begins with http:// or https://, without a user",
        );
    }
    Some(ProviderSettings {
        name: known.name.into(),
        kind: known.kind,
        base_url: base_url.unwrap_or_default(),
        keys: secret.as_ref().map(split).unwrap_or_default(),
        variable: known.key,
        version,
        beta,
        timers,
        patience,
    })
}

/// Of machines that may have to start first, and fetch a model.
fn on_demand(timers: Timers) -> Timers {
    Timers {
        first_token: timers.first_token.max(Duration::from_secs(300)),
        idle: timers.idle.max(Duration::from_secs(180)),
        ..timers
    }
}

fn default(known: &Known) -> Option<String> {
    (!known.base_url.is_empty()).then(|| known.base_url.to_owned())
}

/// The address with a path and without a slash at its end.
fn whole(address: &str, path: &str) -> Option<String> {
    let address = address.trim().trim_end_matches('/');
    let rest = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"))?;
    let uri: http::Uri = address.parse().ok()?;
    uri.host().filter(|host| !host.is_empty())?;
    // A password would be shown with the address.
    uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    Some(if rest.contains('/') { address.to_owned() } else { format!("{address}{path}") })
}

/// `OLLAMA_HOST` as Ollama reads it: the scheme and the port may be missing.
fn ollama(host: &str) -> String {
    let host = host.trim().trim_end_matches('/');
    if host.contains("://") {
        return host.to_owned();
    }
    let named = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if named { format!("http://{host}") } else { format!("http://{host}:11434") }
}

fn split(keys: &Secret) -> Vec<Secret> {
    let keys = keys.expose().split(',').map(str::trim);
    keys.filter(|key| !key.is_empty()).map(Secret::new).collect()
}

#[cfg(test)]
#[path = "providers_tests.rs"]
mod tests;
