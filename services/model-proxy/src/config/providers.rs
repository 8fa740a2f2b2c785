//! Which providers are there, and with what.
//!
//! Invariant: a provider joins by its own SDK's variables, and by nothing else.
//!
//! To add a provider that speaks a dialect of its own: a [`Kind`] and a row of
//! [`KNOWN`].

use super::Timers;
use mesh::config::{Key, Reader, Secret, Time, key};
use std::sync::Arc;

/// Which dialect a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    OpenAi,
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
    pub timers: Timers,
}

struct Known {
    kind: Kind,
    name: &'static str,
    base_url: &'static str,
    address: Key,
    key: Key,
    variable: &'static str,
    connect: Key,
    first_token: Key,
    idle: Key,
    total: Key,
}

const KNOWN: &[Known] = &[Known {
    kind: Kind::OpenAi,
    name: "openai",
    base_url: "https://api.openai.com/v1",
    address: key("openai.base_url").env("OPENAI_BASE_URL"),
    key: key("openai.api_key").env("OPENAI_API_KEY"),
    variable: "OPENAI_API_KEY",
    connect: key("openai.connect_timeout"),
    first_token: key("openai.first_token_timeout"),
    idle: key("openai.idle_timeout"),
    total: key("openai.total_timeout"),
}];

/// Those that have a key or an address.
pub(super) fn read(reader: &mut Reader<'_>, timers: Timers) -> Vec<ProviderSettings> {
    KNOWN.iter().filter_map(|known| one(reader, known, timers)).collect()
}

fn one(reader: &mut Reader<'_>, known: &Known, timers: Timers) -> Option<ProviderSettings> {
    let secret = reader.secret(known.key);
    let address: Option<String> = reader.optional(known.address);
    let time = |reader: &mut Reader<'_>, key, default| reader.or(key, Time(default)).0;
    let timers = Timers {
        connect: time(reader, known.connect, timers.connect),
        first_token: time(reader, known.first_token, timers.first_token),
        idle: time(reader, known.idle, timers.idle),
        total: time(reader, known.total, timers.total),
    };
    if let Some(url) = &address
        && !url.starts_with("http://")
        && !url.starts_with("https://")
    {
        reader.complain(known.address, "must begin with http:// or https://");
    }
    let here = secret.is_some() || address.is_some();
    here.then(|| ProviderSettings {
        name: known.name.into(),
        kind: known.kind,
        base_url: address.as_deref().unwrap_or(known.base_url).trim_end_matches('/').to_owned(),
        keys: secret.as_ref().map(split).unwrap_or_default(),
        variable: known.variable,
        timers,
    })
}

fn split(keys: &Secret) -> Vec<Secret> {
    let keys = keys.expose().split(',').map(str::trim);
    keys.filter(|key| !key.is_empty()).map(Secret::new).collect()
}
