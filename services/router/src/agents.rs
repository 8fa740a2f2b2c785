//! `agents.toml`: the agents of this mesh and the names of its models.
//!
//! ```toml
//! [agent.support]
//! description = "Answers customers"
//! instructions = "Answer from the sources and cite them."
//! model = "fast"
//! collections = ["handbook"]
//! [agent.support.limits]
//! timeout = "30s"
//! top_k = 8
//!
//! [alias]
//! fast = ["openai/gpt-4o-mini", "local/extractive"]   # the first that is there
//! ```
//!
//! Invariants:
//! - an unknown key, a bad value and an alias that leads nowhere are errors that
//!   name the file and the key: what is not understood is not in force;
//! - there is always an agent `default` and an alias `default`.

use mesh::config::Time;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

pub const DEFAULT: &str = "default";

const INSTRUCTIONS: &str = "Answer the question from the numbered sources alone, in the language \
of the question. After each statement cite the source it rests on, like [1]. If the sources do \
not hold the answer, say so.";

/// A limit of 0 or `None` is no limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    pub timeout: Duration,
    pub max_output_tokens: Option<i64>,
    pub max_nano_usd: Option<i64>,
    pub max_steps: i32,
    pub top_k: i32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    pub name: String,
    pub description: String,
    pub instructions: String,
    pub model: String,
    pub collections: Vec<String>,
    pub limits: Limits,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Agents {
    agents: BTreeMap<String, Agent>,
    /// What a name stands for: the first of these that can be called.
    pub aliases: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl Default for Agents {
    fn default() -> Self {
        Self::from_file(File::default())
    }
}

impl Agents {
    /// `name` is the file's, for complaints.
    pub fn parse(name: &str, text: &str) -> Result<Self, Malformed> {
        let file: File =
            toml::from_str(text).map_err(|error| Malformed(format!("{name}: {error}")))?;
        let agents = Self::from_file(file);
        agents.check().map_err(|complaint| Malformed(format!("{name}: {complaint}")))?;
        Ok(agents)
    }

    pub fn get(&self, name: &str) -> Option<&Agent> {
        self.agents.get(if name.is_empty() { DEFAULT } else { name })
    }

    pub fn iter(&self) -> impl Iterator<Item = &Agent> {
        self.agents.values()
    }

    pub fn names(&self) -> String {
        self.agents.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    fn from_file(file: File) -> Self {
        let mut agents: BTreeMap<_, _> =
            file.agent.into_iter().map(|(name, table)| (name.clone(), table.named(name))).collect();
        agents
            .entry(DEFAULT.to_owned())
            .or_insert_with(|| AgentTable::default().named(DEFAULT.to_owned()));
        let mut aliases: BTreeMap<_, _> =
            file.alias.into_iter().map(|(name, to)| (name, to.into_list())).collect();
        aliases.entry(DEFAULT.to_owned()).or_insert_with(|| {
            vec!["openai/gpt-4o-mini".to_owned(), "local/extractive".to_owned()]
        });
        Self { agents, aliases }
    }

    fn check(&self) -> Result<(), String> {
        for (alias, candidates) in &self.aliases {
            if alias.contains('/') {
                return Err(format!("alias.{alias:?}: an alias has no slash"));
            }
            let wrong = candidates.iter().find(|id| !id.contains('/'));
            if candidates.is_empty() || wrong.is_some() {
                return Err(format!("alias.{alias}: expected models such as openai/gpt-4o-mini"));
            }
        }
        for agent in self.agents.values() {
            let at = format!("agent.{}", agent.name);
            if !is_plain_name(&agent.name) {
                return Err(format!("{at}: a name is a-z, 0-9, - and _, at most 63"));
            }
            if !agent.model.contains('/') && !self.aliases.contains_key(&agent.model) {
                return Err(format!("{at}.model: there is no alias {:?}", agent.model));
            }
            let limits = &agent.limits;
            let positive = limits.max_output_tokens.is_none_or(|tokens| tokens > 0)
                && limits.max_nano_usd.is_none_or(|nano| nano > 0)
                && limits.max_steps > 0
                && (1..=100).contains(&limits.top_k)
                && !limits.timeout.is_zero();
            if !positive {
                return Err(format!("{at}.limits: each limit is above 0, top_k at most 100"));
            }
        }
        Ok(())
    }
}

fn is_plain_name(name: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    (1..=63).contains(&name.len()) && name.bytes().all(plain)
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    agent: BTreeMap<String, AgentTable>,
    #[serde(default)]
    alias: BTreeMap<String, OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_list(self) -> Vec<String> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AgentTable {
    description: Option<String>,
    instructions: Option<String>,
    model: Option<String>,
    collections: Option<Vec<String>>,
    limits: LimitsTable,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsTable {
    timeout: Option<TimeText>,
    max_output_tokens: Option<i64>,
    max_usd: Option<f64>,
    max_steps: Option<i32>,
    top_k: Option<i32>,
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct TimeText(Duration);

impl TryFrom<String> for TimeText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse::<Time>().map(|time| Self(time.0))
    }
}

impl AgentTable {
    fn named(self, name: String) -> Agent {
        let or_default = |model: Option<String>| model.unwrap_or_else(|| DEFAULT.to_owned());
        Agent {
            description: self.description.unwrap_or_else(|| {
                if name == DEFAULT { "Answers from the collection `default`" } else { "" }
                    .to_owned()
            }),
            instructions: self.instructions.unwrap_or_else(|| INSTRUCTIONS.to_owned()),
            model: or_default(self.model),
            collections: self.collections.unwrap_or_else(|| vec![DEFAULT.to_owned()]),
            limits: self.limits.read(),
            name,
        }
    }
}

impl LimitsTable {
    fn read(self) -> Limits {
        #[expect(clippy::cast_possible_truncation, reason = "saturates; checked to be above 0")]
        let nano = |usd: f64| (usd * 1e9).round() as i64;
        Limits {
            timeout: self.timeout.map_or(Duration::from_secs(120), |text| text.0),
            max_output_tokens: self.max_output_tokens,
            max_nano_usd: self.max_usd.map(nano),
            max_steps: self.max_steps.unwrap_or(8),
            top_k: self.top_k.unwrap_or(8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_file_there_is_one_agent() {
        let agents = Agents::default();
        assert_eq!(agents.names(), "default");
        let default = agents.get("").unwrap();
        assert_eq!(
            (default.model.as_str(), &default.collections[..]),
            ("default", &["default".to_owned()][..])
        );
        assert_eq!(agents.aliases["default"], ["openai/gpt-4o-mini", "local/extractive"]);
    }

    #[test]
    fn a_file_is_read_whole() {
        let text = "[agent.support]\nmodel = \"fast\"\ncollections = []\ninstructions = \"Be kind.\"\n\
                    [agent.support.limits]\ntimeout = \"30s\"\ntop_k = 3\nmax_usd = 0.01\n\
                    [alias]\nfast = \"openai/gpt-4o-mini\"\n";
        let agents = Agents::parse("agents.toml", text).unwrap();
        let support = agents.get("support").unwrap();
        assert_eq!(support.limits.timeout, Duration::from_secs(30));
        assert_eq!((support.limits.top_k, support.limits.max_nano_usd), (3, Some(10_000_000)));
        assert!(support.collections.is_empty() && agents.get("default").is_some());
    }

    #[test]
    fn the_file_that_is_deployed_is_understood() {
        let text = include_str!("../../../fly/agents.toml");
        assert!(Agents::parse("fly/agents.toml", text).is_ok());
    }

    #[test]
    fn every_complaint_names_file_and_key() {
        for (text, key) in [
            ("[agent.a]\nmodle = \"x/y\"", "modle"),
            ("[agent.a.limits]\ntimeout = \"soon\"", "timeout"),
            ("[agent.a.limits]\ntop_k = 0", "agent.a.limits"),
            ("[agent.a.limits]\nmax_usd = -1.0", "agent.a.limits"),
            ("[agent.a]\nmodel = \"nowhere\"", "agent.a.model"),
            ("[agent.\"A b\"]", "agent.A b"),
            ("[alias]\nfast = []", "alias.fast"),
            ("[alias]\nfast = \"default\"", "alias.fast"),
            ("[alais]\n", "alais"),
        ] {
            let error = Agents::parse("agents.toml", text).unwrap_err().to_string();
            assert!(error.starts_with("agents.toml: ") && error.contains(key), "{text}: {error}");
        }
    }
}
