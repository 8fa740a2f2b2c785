//! Configuration: defaults < file < the file's `[region.<code>]` < environment.
//!
//! One image runs in every region, so a setting may differ by region without a
//! second file, and whatever the platform sets (PORT, DATABASE_URL, FLY_*) wins.
//!
//! Invariants:
//! - A process starts with a whole configuration or prints every complaint at
//!   once; nobody fixes a deployment one variable at a time.
//! - A malformed value is a complaint, never its default; an unknown key too,
//!   because a limit that is spelled wrong is a limit that is off.
//! - The value of a secret is in no message, no `Debug` and no list of settings.

mod common;
mod life;
mod value;

pub use common::{Common, ROLES, defaults};
pub use life::Life;
pub use value::{Secret, Size, Time};

use std::{collections::BTreeMap, ffi::OsString, fmt::Display, path::Path, str::FromStr};

/// One setting and where its value came from, for `skein config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub name: String,
    pub value: String,
    pub origin: String,
}

/// The name of a setting: `section.key` in the file, `SKEIN_SECTION__KEY` in
/// the environment, and possibly a standard variable's own name.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    path: &'static str,
    standard: Option<&'static str>,
}

/// `path` is `section.key`.
pub const fn key(path: &'static str) -> Key {
    Key { path, standard: None }
}

impl Key {
    /// Also read from a variable that others name: `PORT`, `DATABASE_URL`, …
    #[must_use]
    pub const fn env(self, standard: &'static str) -> Self {
        Self { path: self.path, standard: Some(standard) }
    }

    fn variable(self) -> String {
        format!("SKEIN_{}", self.path.replace('.', "__").replace('-', "_").to_uppercase())
    }
}

/// Where settings come from; read once, when the process starts.
#[derive(Debug, Default)]
pub struct Sources {
    environment: BTreeMap<String, String>,
    file: BTreeMap<String, String>,
    region: BTreeMap<String, String>,
    region_name: String,
}

impl Sources {
    /// The process environment and the file it names: `SKEIN_CONFIG`, or
    /// `skein.toml` in the working directory if there is one.
    pub fn from_process() -> Result<Self, ConfigError> {
        let variables = std::env::vars_os();
        // What is not UTF-8 is nobody's setting here.
        let text = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let environment: BTreeMap<_, _> = variables.filter_map(text).collect();
        let named = environment.get("SKEIN_CONFIG").cloned();
        let sources = Self { environment, ..Self::default() };
        let path = named.clone().unwrap_or_else(|| "skein.toml".to_owned());
        if named.is_none() && !Path::new(&path).exists() {
            return Ok(sources);
        }
        let text = std::fs::read_to_string(&path)
            .map_err(|error| ConfigError(vec![format!("cannot read {path}: {error}")]))?;
        sources.with_file(&path, &text)
    }

    /// Only these variables and no file; for tests.
    pub fn of(environment: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self { environment: environment.iter().map(owned).collect(), ..Self::default() }
    }

    /// Adds the settings of a TOML text; `name` is for complaints.
    pub fn with_file(mut self, name: &str, text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table =
            text.parse().map_err(|error| ConfigError(vec![format!("{name}: {error}")]))?;
        let mut complaints = Vec::new();
        self.region_name = self.environment.get("FLY_REGION").cloned().unwrap_or_default();
        for (section, value) in table {
            match value {
                toml::Value::Table(regions) if section == "region" => {
                    for (region, value) in regions {
                        let mut found = BTreeMap::new();
                        flatten("", value, &mut found, &mut complaints);
                        if region == self.region_name {
                            self.region = found;
                        }
                    }
                }
                other => flatten(&section, other, &mut self.file, &mut complaints),
            }
        }
        if complaints.is_empty() { Ok(self) } else { Err(ConfigError(complaints)) }
    }

    pub fn reader(&self) -> Reader<'_> {
        Reader { sources: self, known: Vec::new(), complaints: Vec::new(), settings: Vec::new() }
    }
}

fn flatten(
    prefix: &str,
    value: toml::Value,
    into: &mut BTreeMap<String, String>,
    complaints: &mut Vec<String>,
) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let path = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
                flatten(&path, value, into, complaints);
            }
        }
        toml::Value::String(text) => drop(into.insert(prefix.to_owned(), text)),
        toml::Value::Array(items) => {
            let text =
                |item: &toml::Value| item.as_str().map_or_else(|| item.to_string(), str::to_owned);
            let parts: Vec<_> = items.iter().map(text).collect();
            into.insert(prefix.to_owned(), parts.join(","));
        }
        scalar @ (toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_)) => {
            into.insert(prefix.to_owned(), scalar.to_string());
        }
        toml::Value::Datetime(_) => {
            complaints.push(format!("{prefix}: a date is not expected here"));
        }
    }
}

/// Reads settings and remembers what was wrong with them.
pub struct Reader<'a> {
    sources: &'a Sources,
    known: Vec<Key>,
    complaints: Vec<String>,
    settings: Vec<Setting>,
}

impl Reader<'_> {
    /// The value, or `default` if nothing sets it.
    pub fn or<T: FromStr<Err: Display> + Display>(&mut self, key: Key, default: T) -> T {
        if let Some(value) = self.optional(key) {
            return value;
        }
        if let Some(setting) = self.settings.iter_mut().find(|setting| setting.name == key.path) {
            setting.value = default.to_string();
        }
        default
    }

    /// The value if something sets it.
    pub fn optional<T: FromStr<Err: Display>>(&mut self, key: Key) -> Option<T> {
        self.read(key, false)
    }

    /// The value, or `None` with a complaint.
    pub fn required<T: FromStr<Err: Display>>(&mut self, key: Key) -> Option<T> {
        self.demand(key);
        self.read(key, false)
    }

    /// A secret that may be absent.
    pub fn secret(&mut self, key: Key) -> Option<Secret> {
        self.read(key, true)
    }

    /// A secret that must be there.
    pub fn required_secret(&mut self, key: Key) -> Option<Secret> {
        self.demand(key);
        self.read(key, true)
    }

    /// Whether anything sets it.
    pub fn given(&self, key: Key) -> bool {
        self.find(key).is_some()
    }

    /// A complaint about a setting that parses but cannot be right.
    pub fn complain(&mut self, key: Key, message: impl Display) {
        self.complaints.push(format!("{}: {message}", name_for_people(key)));
    }

    /// What a variable of the platform says; it is nobody's setting.
    pub fn platform(&self, variable: &str) -> Option<String> {
        self.sources.environment.get(variable).filter(|value| !value.is_empty()).cloned()
    }

    /// The finished configuration with its settings, or all complaints.
    pub fn finish<T>(
        mut self,
        build: impl FnOnce() -> Option<T>,
    ) -> Result<(T, Vec<Setting>), ConfigError> {
        self.complain_of_unknown();
        match build() {
            Some(config) if self.complaints.is_empty() => Ok((config, self.settings)),
            _ => Err(ConfigError(self.complaints)),
        }
    }

    fn demand(&mut self, key: Key) {
        if self.find(key).is_none() {
            self.complaints.push(format!("{} is not set", name_for_people(key)));
        }
    }

    /// The raw value and where it came from. An empty variable is an unset one:
    /// that is how shells and secret stores clear things.
    fn find(&self, key: Key) -> Option<(String, String)> {
        let environment = |name: &str| {
            let value = self.sources.environment.get(name).filter(|value| !value.is_empty())?;
            Some((value.clone(), name.to_owned()))
        };
        let own = environment(&key.variable());
        let standard = || key.standard.and_then(environment);
        let region = || {
            let value = self.sources.region.get(key.path)?;
            Some((value.clone(), format!("region.{}", self.sources.region_name)))
        };
        let file = || Some((self.sources.file.get(key.path)?.clone(), "file".to_owned()));
        own.or_else(standard).or_else(region).or_else(file)
    }

    fn read<T: FromStr<Err: Display>>(&mut self, key: Key, secret: bool) -> Option<T> {
        self.known.push(key);
        let found = self.find(key);
        let (value, origin) = match &found {
            Some((value, origin)) => (if secret { "***" } else { value.as_str() }, origin.as_str()),
            None => ("", "default"),
        };
        self.settings.push(Setting {
            name: key.path.to_owned(),
            value: redact_url(value),
            origin: origin.to_owned(),
        });
        let (raw, origin) = found?;
        raw.parse()
            .map_err(|error| {
                let shown =
                    if secret { "***".to_owned() } else { format!("{:?}", redact_url(&raw)) };
                let origin = if origin == "file" || origin.starts_with("region.") {
                    key.path.to_owned()
                } else {
                    origin
                };
                self.complaints.push(format!("{origin}={shown}: {error}"));
            })
            .ok()
    }

    fn complain_of_unknown(&mut self) {
        let known = |path: &str| self.known.iter().any(|key| key.path == path);
        let mut unknown = Vec::new();
        for path in self.sources.file.keys().filter(|path| !known(path)) {
            unknown.push(format!("{path}: unknown key"));
        }
        for path in self.sources.region.keys().filter(|path| !known(path)) {
            unknown.push(format!("region.{}.{path}: unknown key", self.sources.region_name));
        }
        let variables: Vec<_> = self.known.iter().map(|key| key.variable()).collect();
        for name in self.sources.environment.keys() {
            if name.starts_with("SKEIN_") && name.contains("__") && !variables.contains(name) {
                unknown.push(format!("{name}: unknown setting"));
            }
        }
        self.complaints.append(&mut unknown);
    }
}

/// People set what the platform sets by its own name, the rest by ours.
fn name_for_people(key: Key) -> String {
    key.standard.map_or_else(|| key.variable(), str::to_owned)
}

/// `scheme://user:password@host` without the password.
fn redact_url(value: &str) -> String {
    let Some((scheme, rest)) = value.split_once("://") else { return value.to_owned() };
    match rest.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{host}")
        }
        None => value.to_owned(),
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid configuration:\n  {}", .0.join("\n  "))]
pub struct ConfigError(pub Vec<String>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_complaint_is_reported_at_once() {
        let sources = Sources::of(&[("PORT", "eighty"), ("SKEIN_MESH__POL", "5s")]);
        let mut reader = sources.reader();
        let port: u16 = reader.or(key("listen.port").env("PORT"), 8080);
        let secret = reader.required_secret(key("mesh.key").env("SKEIN_MESH_KEY"));
        let error = reader.finish(|| Some((port, secret?))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid configuration:\n  PORT=\"eighty\": invalid digit found in string\n  \
             SKEIN_MESH_KEY is not set\n  SKEIN_MESH__POL: unknown setting"
        );
    }

    #[test]
    fn the_environment_beats_the_region_beats_the_file() {
        let text = "[mesh]\npoll = \"1s\"\ngrace = \"2s\"\nnotice = \"3s\"\n\
                    [region.nrt.mesh]\npoll = \"4s\"\ngrace = \"5s\"\n[region.iad.mesh]\npoll = \"9s\"\n";
        let sources = Sources::of(&[("FLY_REGION", "nrt"), ("SKEIN_MESH__POLL", "6s")])
            .with_file("skein.toml", text)
            .unwrap();
        let mut reader = sources.reader();
        let read =
            |reader: &mut Reader<'_>, path| reader.or(key(path), Time::from_millis(0)).to_string();
        assert_eq!(read(&mut reader, "mesh.poll"), "6s");
        assert_eq!(read(&mut reader, "mesh.grace"), "5s");
        assert_eq!(read(&mut reader, "mesh.notice"), "3s");
        let ((), settings) = reader.finish(|| Some(())).unwrap();
        let origins: Vec<_> = settings.iter().map(|setting| setting.origin.as_str()).collect();
        assert_eq!(origins, ["SKEIN_MESH__POLL", "region.nrt", "file"]);
    }

    #[test]
    fn an_unknown_key_of_the_file_is_named() {
        let sources = Sources::of(&[]).with_file("skein.toml", "[mesh]\npol = 5").unwrap();
        let error = sources.reader().finish(|| Some(())).unwrap_err();
        assert_eq!(error.0, ["mesh.pol: unknown key"]);
    }

    #[test]
    fn secrets_and_passwords_are_never_shown() {
        let sources = Sources::of(&[
            ("SKEIN_MESH_KEY", "hunter2"),
            ("DATABASE_URL", "postgres://app:hunter2@db.internal/x"),
        ]);
        let mut reader = sources.reader();
        let secret = reader.secret(key("mesh.key").env("SKEIN_MESH_KEY"));
        let url: Option<String> = reader.optional(key("database.url").env("DATABASE_URL"));
        let number: Option<u16> = reader.optional(key("database.url").env("DATABASE_URL"));
        assert_eq!((secret.is_some(), url.is_some(), number), (true, true, None));
        let shown = format!("{secret:?} {:?}", reader.settings);
        let error = reader.finish(|| Some(())).unwrap_err();
        assert!(!shown.contains("hunter2") && !error.to_string().contains("hunter2"), "{error}");
    }
}
