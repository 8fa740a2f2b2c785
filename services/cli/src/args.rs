//! The command line: every verb, its options, and an example of each.
//!
//! Invariants:
//! - The environment is read here and nowhere else, by clap.
//! - A key has no place on a command line, where every user of the machine
//!   sees it: it comes from a variable or a file.
//! - A wrong command line exits 2.

use clap::{
    ArgAction, ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
    parser::ValueSource,
};
use std::{path::PathBuf, process::ExitCode};

const ENVIRONMENT: &str = "\
Environment:
  SKEIN_URL      gateway, such as https://acme-gateway.fly.dev [default: http://127.0.0.1:8080]
  SKEIN_PORT     port of a gateway on this machine, when SKEIN_URL is not set
  SKEIN_API_KEY  API key [default: .skein/dev.key here or above, which `make up` writes]

Exit codes: 0 ok, 1 failed, 2 usage, 3 not allowed, 4 unavailable, 5 limit or budget, 130 stopped";

/// Talk to a Skein mesh from a terminal.
#[derive(Parser)]
#[command(name = "skein", version, after_help = ENVIRONMENT, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) verb: Verb,
    /// Gateway to talk to.
    #[arg(long, env = "SKEIN_URL", hide_env = true, global = true)]
    url: Option<String>,
    /// File that holds the API key.
    #[arg(long, value_name = "FILE", global = true)]
    api_key_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[arg(long = "skein-port", env = "SKEIN_PORT", hide = true)]
    port: Option<String>,
    #[arg(long = "skein-api-key", env = "SKEIN_API_KEY", hide = true, hide_env_values = true)]
    api_key: Option<String>,
}

/// Where the gateway and the key may come from.
#[derive(Default)]
pub(crate) struct Sources {
    /// With the name of the place that gave it.
    pub(crate) url: Option<(String, &'static str)>,
    pub(crate) port: Option<u16>,
    pub(crate) api_key: Option<String>,
    pub(crate) api_key_file: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Ask one question; the answer streams, with what it rests on.
    #[command(after_help = "Examples:
  skein ask 'How does a request flow?'
  skein ask --collection handbook --top-k 8 Who approves travel
  skein ask --json 'What is a lease?' | jq -r .answer")]
    Ask(Ask),
    /// Talk in one thread; ends with Ctrl-D or /exit.
    #[command(after_help = "Examples:
  skein chat
  skein chat --agent support --thread thr_us_4f1c
  printf 'What is Skein?\\nAnd what does it cost?\\n' | skein chat")]
    Chat(Conversation),
    /// Put files and folders into a collection; unchanged ones are skipped.
    #[command(after_help = "\
Reads .md .markdown .txt .html .htm, and .jsonl with `id`, `title`, `text`, `metadata` per line.
A document's id is its path below the folder given. In folders, hidden files, node_modules and
target are skipped.

Examples:
  skein ingest docs
  skein ingest --collection handbook --prefix hr policies/ faq.jsonl")]
    Ingest(Ingest),
    /// Search a collection.
    #[command(after_help = "Examples:
  skein search how leases end
  skein search --collection handbook --mode keyword --top-k 3 'parental leave'
  skein search --json leases | jq -r '.hits[].document_id'")]
    Search(Search),
    /// Show every machine of the mesh: ready, how far, how busy, what is missing.
    #[command(
        after_help = "Examples:\n  skein status\n  skein status --json | jq '.machines[].ready'"
    )]
    Status,
    /// Show the settings of this command and of every machine, and where each came from.
    #[command(after_help = "Examples:\n  skein config\n  skein config --json")]
    Config,
    /// Make, list and revoke API keys.
    #[command(
        subcommand,
        after_help = "Examples:
  skein keys create --tenant acme --name website --scope model --expires 30d --rpm 600
  skein keys list --tenant acme
  skein keys revoke key_7c1f"
    )]
    Keys(Keys),
    /// Make the keys by which the apps of a mesh know each other.
    #[command(after_help = "Examples:
  skein mesh-keys
  skein mesh-keys --json > mesh-keys.json
  SKEIN_MESH_PEERS='gateway=…;router=…' skein mesh-keys rotate router --apps acme")]
    MeshKeys(MeshKeys),
    /// Make a token for calling a private app, valid one minute.
    #[command(after_help = "Reads SKEIN_MESH_KEY, the private key of the app that --issuer names.

Examples:
  grpcurl -plaintext -H \"x-skein-token: $(skein token --audience router --tenant dev)\" \\
    '[fdaa::3]:50051' skein.agent.v1.AgentService/ListAgents")]
    Token(Token),
}

#[derive(clap::Args)]
pub(crate) struct Conversation {
    /// Agent that answers [default: the agent named `default`].
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<String>,
    /// Collection to search, instead of the agent's own. May be given again.
    #[arg(long = "collection", value_name = "NAME")]
    pub(crate) collections: Vec<String>,
    /// Model that answers, instead of the agent's own.
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Passages to rest the answer on [default: the agent's].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub(crate) top_k: Option<i32>,
    /// Thread to go on with [default: a new one].
    #[arg(long, value_name = "ID")]
    pub(crate) thread: Option<String>,
}

#[derive(clap::Args)]
pub(crate) struct Ask {
    #[arg(required = true, value_name = "QUESTION")]
    pub(crate) question: Vec<String>,
    #[command(flatten)]
    pub(crate) conversation: Conversation,
}

#[derive(clap::Args)]
pub(crate) struct Ingest {
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) collection: String,
    /// Put before every document id, with a slash between.
    #[arg(long, value_name = "TEXT")]
    pub(crate) prefix: Option<String>,
}

#[derive(clap::Args)]
pub(crate) struct Search {
    #[arg(required = true, value_name = "QUERY")]
    pub(crate) query: Vec<String>,
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) collection: String,
    /// How many hits.
    #[arg(long, value_name = "K", default_value_t = 10,
          value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub(crate) top_k: i32,
    #[arg(long, value_enum, default_value_t = Mode::Hybrid)]
    pub(crate) mode: Mode,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Mode {
    /// By words.
    Keyword,
    /// By meaning.
    Dense,
    /// By both.
    Hybrid,
}

#[derive(Subcommand)]
pub(crate) enum Keys {
    /// Make a key; its secret is shown once.
    Create(CreateKey),
    /// List keys, without their secrets.
    List {
        /// Only of this tenant.
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
    },
    /// Revoke a key, at once and for good.
    Revoke {
        #[arg(value_name = "ID")]
        id: String,
    },
}

#[derive(clap::Args)]
pub(crate) struct CreateKey {
    /// Whose data the key reaches.
    #[arg(long, value_name = "TENANT")]
    pub(crate) tenant: String,
    /// For people.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) name: String,
    /// model, agent, retrieval or admin; may be given again [default: all but admin].
    #[arg(long = "scope", value_name = "SCOPE", action = ArgAction::Append, value_delimiter = ',',
          value_parser = ["model", "agent", "retrieval", "admin"])]
    pub(crate) scopes: Vec<String>,
    /// Life of the key, such as 12h, 30d or 52w [default: for ever].
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) expires: Option<i64>,
    /// Requests in any sixty seconds, over all gateways [default: no limit].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) rpm: Option<i64>,
    /// Requests at the same time, streams to their end [default: no limit].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) concurrency: Option<i64>,
}

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct MeshKeys {
    #[command(subcommand)]
    pub(crate) verb: Option<MeshKeysVerb>,
    /// A role to make a key for; may be given again [default: the four apps].
    #[arg(long = "role", value_name = "ROLE")]
    pub(crate) roles: Vec<String>,
    /// First part of the app names in the hints.
    #[arg(long, value_name = "NAME", default_value = "skein")]
    pub(crate) apps: String,
}

#[derive(Subcommand)]
pub(crate) enum MeshKeysVerb {
    /// Replace the key of one app in three deploys, refusing no call in between.
    Rotate {
        #[arg(value_name = "ROLE")]
        role: String,
        /// What every app has now.
        #[arg(long, env = "SKEIN_MESH_PEERS", value_name = "TEXT")]
        peers: String,
        /// First part of the app names in the commands.
        #[arg(long, value_name = "NAME", default_value = "skein")]
        apps: String,
    },
}

#[derive(clap::Args)]
pub(crate) struct Token {
    /// Role the token is for: router, model-proxy, retrieval.
    #[arg(long, value_name = "ROLE")]
    pub(crate) audience: String,
    #[arg(long, value_name = "TENANT")]
    pub(crate) tenant: String,
    /// Role that signs [default: the one the audience expects].
    #[arg(long, value_name = "ROLE")]
    pub(crate) issuer: Option<String>,
    /// Who is asking, for the logs.
    #[arg(long, value_name = "NAME", default_value = "operator")]
    pub(crate) principal: String,
    #[arg(long = "skein-mesh-key", env = "SKEIN_MESH_KEY", hide = true, hide_env_values = true)]
    pub(crate) mesh_key: Option<String>,
}

pub(crate) fn read() -> Result<(Args, Sources), clap::Error> {
    let matches = Args::command().try_get_matches()?;
    let args = Args::from_arg_matches(&matches)?;
    let sources = sources(&args, &matches)?;
    Ok((args, sources))
}

fn sources(args: &Args, matches: &ArgMatches) -> Result<Sources, clap::Error> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let typed = matches.value_source("url") == Some(ValueSource::CommandLine);
    let port = given(&args.port).map(|port| {
        port.parse().map_err(|error| {
            let message = format!("SKEIN_PORT={port:?}: {error}\n");
            Args::command().error(clap::error::ErrorKind::ValueValidation, message)
        })
    });
    Ok(Sources {
        url: given(&args.url).map(|url| (url, if typed { "--url" } else { "SKEIN_URL" })),
        port: port.transpose()?,
        api_key: given(&args.api_key),
        api_key_file: args.api_key_file.clone(),
    })
}

/// Shows what clap has to say: help on stdout with 0, a complaint on stderr with 2.
pub(crate) fn complain(error: &clap::Error) -> ExitCode {
    error.print().unwrap_or_default();
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// `90s`, `15m`, `12h`, `30d`, `52w` in seconds.
fn seconds(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not a time such as 12h, 30d or 52w");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(wrong()),
    };
    let number = number.parse::<i64>().map_err(|_| wrong())?;
    number.checked_mul(unit).filter(|seconds| *seconds > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_finds_no_fault_with_the_definition() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_life_is_a_number_and_a_unit() {
        assert_eq!(seconds("30d"), Ok(2_592_000));
        assert_eq!(seconds("90s"), Ok(90));
        for wrong in ["", "30", "d", "0d", "-1d", "30y", "999999999999999999w"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_verb_shows_an_example() {
        for verb in Args::command().get_subcommands() {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:"), "{}", verb.get_name());
        }
    }
}
