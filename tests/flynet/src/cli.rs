//! The verbs of `flynet`.

mod change;
mod logs;
mod trouble;
mod up;

use clap::{Args, Parser, Subcommand};
use flynet::{
    Checked, Verdict,
    control::{self, Ask, Logged, Reply, Verb},
};
use std::{
    fmt::Display,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

const EXAMPLES: &str = "\
Examples:
  flynet up                                   one machine per app, edge on 127.0.0.1:8080
  flynet up --place router=iad:2,fra:1        three routers in two regions
  flynet up --regions iad,nrt                 a gateway, a router and a model-proxy in each
  flynet up --dev-key .skein/dev.key          with an API key for the gateway
  flynet ps                                   from another terminal
  flynet kill router                          SIGKILL; stays stopped until it is woken
  flynet freeze router                        SIGSTOP: in DNS, and nobody answers
  flynet deploy router --env SKEIN_LOG=debug  rolling, in place
  flynet scale router fra 2                   two machines in fra
  flynet dns servfail --app router            `flynet dns well` ends it
  flynet partition iad nrt                    of regions that `--link` or `link` named
  flynet events                               what happened to the machines
  flynet logs -f model-proxy

Exit codes: 0 ok, 1 failed, 2 usage, 4 no flynet runs on this root.";

#[derive(Parser)]
#[command(name = "flynet", version, about = "Fly.io on one machine", after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Directory of everything that is written
    #[arg(long, global = true, default_value = ".skein", value_name = "DIR")]
    root: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the apps of fly/*.toml in the foreground; Ctrl-C stops them
    Up(Box<up::Up>),
    /// List the machines
    Ps {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Start machines that are stopped
    Start(Target),
    /// Stop machines: the kill signal, then SIGKILL after the kill timeout
    Stop(Target),
    /// Kill machines with SIGKILL; they stay stopped until `start` or Fly Proxy wakes them
    Kill(Target),
    /// Hold machines with SIGSTOP; DNS and proxy do not notice
    Freeze(Target),
    /// Let frozen machines go on
    Thaw(Target),
    /// Take machines out of DNS and hold them with their memory; `start` resumes
    Suspend(Target),
    /// Replace program, variables or secrets in place, one machine after the other
    Deploy(change::Deploying),
    /// Set an app's secrets and deploy them
    Secrets(change::Secrets),
    /// Make or destroy machines of an app in a region until there are so many
    Scale(change::Scaling),
    /// Let the private DNS fail, be late, be stale or be silent
    Dns(trouble::Dns),
    /// Put a distance between two regions
    Link(trouble::Linking),
    /// Let nothing pass between two linked regions; connections stay open
    Partition(trouble::Pair),
    /// End a partition; what was sent meanwhile arrives
    Heal(trouble::Pair),
    /// Print what has happened to the machines
    Events,
    /// Print what machines have logged
    Logs(logs::Logs),
}

#[derive(Args)]
struct Target {
    /// A machine id, an app (skein-router) or a role (router)
    #[arg(value_name = "ID|APP")]
    target: String,
}

pub(crate) struct Failure {
    pub(crate) text: String,
    pub(crate) code: u8,
}

impl Failure {
    fn new(text: impl Display) -> Self {
        Self { text: text.to_string(), code: 1 }
    }
}

impl From<flynet::Error> for Failure {
    fn from(error: flynet::Error) -> Self {
        Self::new(error)
    }
}

/// A line for the user; a reader that has gone (`| head`) ends the command quietly.
fn say(line: impl Display) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{line}").map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure { text: String::new(), code: 1 },
        _ => Failure::new(format!("cannot write to stdout: {error}")),
    })
}

pub(crate) async fn run(
    arguments: Arguments,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<(), Failure> {
    let root = &arguments.root;
    match arguments.command {
        Command::Up(up) => up.run(root, variable).await,
        Command::Ps { json } => ps(root, json).await,
        Command::Start(to) => act(root, Verb::Start, "started", to).await,
        Command::Stop(to) => act(root, Verb::Stop, "stopped", to).await,
        Command::Kill(to) => act(root, Verb::Kill, "killed", to).await,
        Command::Freeze(to) => act(root, Verb::Freeze, "frozen", to).await,
        Command::Thaw(to) => act(root, Verb::Thaw, "thawed", to).await,
        Command::Suspend(to) => act(root, Verb::Suspend, "suspended", to).await,
        Command::Deploy(deploying) => done(root, &deploying.ask()?, "deployed").await,
        Command::Secrets(secrets) => done(root, &secrets.ask()?, "deployed").await,
        Command::Scale(scaling) => done(root, &scaling.ask()?, "changed").await,
        Command::Dns(dns) => done(root, &dns.ask(), "").await,
        Command::Link(linking) => done(root, &linking.ask(), "").await,
        Command::Partition(pair) => done(root, &pair.ask(true), "").await,
        Command::Heal(pair) => done(root, &pair.ask(false), "").await,
        Command::Events => events(root).await,
        Command::Logs(logs) => logs.run(root).await,
    }
}

async fn ps(root: &Path, json: bool) -> Result<(), Failure> {
    let Reply::Machines(machines) = ask(root, &Ask::Ps).await? else {
        return Err(Failure::new("flynet did not understand; is it another version?"));
    };
    if json {
        return say(serde_json::to_string(&machines).map_err(Failure::new)?);
    }
    let row = |cells: [&str; 8]| {
        let [id, app, region, state, address, pid, checks, starts] = cells;
        format!(
            "{id:<14}  {app:<24} {region:<6} {state:<9} {address:<16} {pid:>7}  {checks:<6}  {starts}"
        )
    };
    say(row(["ID", "APP", "REGION", "STATE", "ADDRESS", "PID", "CHECKS", "STARTS"]))?;
    for m in machines {
        let pid = m.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let exit = m.last_exit.map_or_else(String::new, |exit| format!("  last: {exit}"));
        let state = if m.frozen { "frozen".to_owned() } else { m.state.to_string() };
        let address = m.address.to_string();
        let passing = |check: &&Checked| check.status == Verdict::Passing;
        let good = m.checks.iter().filter(passing).count();
        let checks = format!("{good}/{}", m.checks.len());
        let starts = format!("{}{exit}", m.starts);
        say(row([&m.id, &m.app, &m.region, &state, &address, &pid, &checks, &starts]))?;
    }
    Ok(())
}

async fn act(root: &Path, verb: Verb, past: &str, to: Target) -> Result<(), Failure> {
    done(root, &Ask::Do { verb, target: to.target }, past).await
}

/// A line per machine that it was done to.
async fn done(root: &Path, question: &Ask, past: &str) -> Result<(), Failure> {
    match ask(root, question).await? {
        Reply::Done(ids) => {
            for id in ids {
                say(format_args!("{past} {id}"))?;
            }
            Ok(())
        }
        Reply::Error(text) => Err(Failure::new(text)),
        Reply::Machines(_) | Reply::Events(_) => {
            Err(Failure::new("flynet answered another question"))
        }
    }
}

async fn events(root: &Path) -> Result<(), Failure> {
    let Reply::Events(events) = ask(root, &Ask::Events).await? else {
        return Err(Failure::new("flynet did not understand; is it another version?"));
    };
    for Logged { after_ms, machine, app, region, what } in events {
        say(format_args!("{after_ms:>9} ms  {machine:<14}  {app:<24} {region:<6} {what}"))?;
    }
    Ok(())
}

async fn ask(root: &Path, question: &Ask) -> Result<Reply, Failure> {
    control::ask(root, question).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Failure {
            text: format!("no flynet runs on {}; start one with `flynet up`", root.display()),
            code: 4,
        },
        _ => Failure::new(format!("cannot talk to the flynet on {}: {error}", root.display())),
    })
}
