//! `flynet up`: a network in the foreground.
//!
//! Invariants:
//! - It ends when told to, having stopped every machine; it fails when a machine
//!   does not become ready, with the end of that machine's log.
//! - The developer's key is made once, readable by its owner alone.

use super::{Failure, say, trouble::link};
use clap::Args;
use flynet::{Flynet, ROLES, Spec};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

/// The caller's variables that every machine gets.
const FOR_ALL: [&str; 4] =
    ["RUST_LOG", "RUST_BACKTRACE", "SKEIN_LOG", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// And those of model-proxy alone.
const FOR_PROVIDERS: [&str; 6] = [
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_BASE_URL",
    "REPLICATE_API_TOKEN",
    "REPLICATE_BASE_URL",
];

#[derive(Args)]
pub(crate) struct Up {
    /// Directory that holds fly/*.toml
    #[arg(long, default_value = ".", value_name = "DIR")]
    workdir: PathBuf,
    /// Directory of the apps' programs [default: where flynet is]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Port of the public edge on 127.0.0.1; 0: any free one
    #[arg(long, env = "SKEIN_PORT", default_value_t = 8080)]
    port: u16,
    /// Regions with a gateway, a router and a model-proxy each; retrieval, and a
    /// Postgres that all share, in the first [default: one machine per app in iad]
    #[arg(long, value_name = "REGION,…", value_delimiter = ',')]
    regions: Vec<String>,
    /// Where an app's machines run [default: one in iad]
    #[arg(long, value_name = "ROLE=REGION[:N],…")]
    place: Vec<String>,
    /// Round trip between two regions, in milliseconds
    #[arg(long, value_name = "REGION,REGION=MS")]
    link: Vec<String>,
    /// Apps become PREFIX-gateway and so on
    #[arg(long)]
    prefix: Option<String>,
    /// File of the developer's API key; made when absent
    #[arg(long, value_name = "FILE")]
    dev_key: Option<PathBuf>,
    /// Directory of the embedded models
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// The router's agents, instead of fly/agents.toml
    #[arg(long, value_name = "FILE")]
    agents: Option<PathBuf>,
    /// A variable for every app, or for one
    #[arg(long, value_name = "[ROLE:]NAME=VALUE")]
    env: Vec<String>,
    /// How many times as fast as Fly health checks and deploys run
    #[arg(long, default_value_t = 10, value_name = "N")]
    speed: u32,
    /// Longest wait until a machine is ready, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    patience: u64,
}

impl Up {
    pub(crate) async fn run(
        &self,
        root: &Path,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), Failure> {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::new)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(Failure::new)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(Failure::new)?;
        let begun = Instant::now();
        let spec = self.spec(root, variable)?;
        if let Some(postgres) = &spec.postgres {
            tell(format_args!("starting Postgres in {}", postgres.region));
        }
        let net = Flynet::start(spec).await?;
        let told = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        };
        tokio::pin!(told);
        let outcome = tokio::select! {
            outcome = self.wait_ready(&net, begun) => outcome,
            () = &mut told => {
                net.stop().await;
                return Ok(());
            }
        };
        if let Err(failure) = outcome {
            net.stop().await;
            return Err(failure);
        }
        if let Some(edge) = net.edge() {
            tell(format_args!("ready in {} ms: http://{edge}", begun.elapsed().as_millis()));
        }
        told.await;
        tell(format_args!("stopping {} machines", net.machines().len()));
        net.stop().await;
        Ok(())
    }

    /// A line per machine, as each becomes ready.
    async fn wait_ready(&self, net: &Flynet, begun: Instant) -> Result<(), Failure> {
        let patience = Duration::from_secs(self.patience);
        let machines = net.machines();
        let mut booting: FuturesUnordered<_> = machines
            .iter()
            .map(async |machine| (machine, net.ready(&machine.id, patience).await))
            .collect();
        while let Some((machine, outcome)) = booting.next().await {
            outcome?;
            let (app, id, region, address) =
                (&machine.app, &machine.id, &machine.region, machine.address.to_string());
            let after = begun.elapsed().as_millis();
            tell(format_args!("{app:<20} {id}  {region}  {address:<15}  {after:>6} ms"));
        }
        Ok(())
    }

    fn spec(
        &self,
        root: &Path,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Spec, Failure> {
        let own = std::env::current_exe().map_err(Failure::new)?;
        let beside = own.parent().map(Path::to_owned).unwrap_or_default();
        let programs = self.bin_dir.clone().unwrap_or(beside);
        let mut spec = Spec::skein(&self.workdir, &programs, root);
        spec.edge_port = self.port;
        spec.intervals.speed = Some(self.speed);
        spec.prefix.clone_from(&self.prefix);
        let all = FOR_ALL.into_iter().filter_map(|name| Some((name.to_owned(), variable(name)?)));
        spec.env.extend(all);
        for region in &self.regions {
            if place(region).is_none_or(|(name, _)| name != *region) {
                return Err(usage(format!("--regions {region:?}: must be like iad,nrt")));
            }
        }
        spec.across(&self.regions);
        spec.links = self.link.iter().map(|text| link(text)).collect::<Result<_, _>>()?;
        for text in &self.place {
            let (role, places) = text.split_once('=').ok_or_else(|| place_usage(text))?;
            let places = places.split(',').map(place).collect::<Option<_>>();
            let app = spec.app_mut(role).ok_or_else(|| no_role(role))?;
            app.placement = places.ok_or_else(|| place_usage(text))?;
        }
        if let Some(app) = spec.app_mut("model-proxy") {
            let keys = FOR_PROVIDERS.into_iter();
            app.secrets.extend(keys.filter_map(|name| Some((name.to_owned(), variable(name)?))));
            if let Some(models) = &self.models {
                app.env.insert("SKEIN_LOCAL__MODELS".to_owned(), absolute(models)?);
            }
        }
        if let (Some(agents), Some(app)) = (&self.agents, spec.app_mut("router")) {
            app.env.insert("SKEIN_ROUTER__AGENTS".to_owned(), absolute(agents)?);
        }
        if let (Some(path), Some(app)) = (&self.dev_key, spec.app_mut("gateway")) {
            app.secrets.insert("SKEIN_BOOTSTRAP_KEY".to_owned(), dev_key(path)?);
        }
        for text in &self.env {
            set(&mut spec, text)?;
        }
        Ok(spec)
    }
}

/// The network lives on when nobody reads any more.
fn tell(line: std::fmt::Arguments<'_>) {
    let _unread = say(line);
}

/// `fra` or `fra:2`.
fn place(text: &str) -> Option<(String, usize)> {
    let (region, count) = text.split_once(':').unwrap_or((text, "1"));
    Some((is_region(region).then(|| region.to_owned())?, count.parse().ok()?))
}

pub(super) fn is_region(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn set(spec: &mut Spec, text: &str) -> Result<(), Failure> {
    let usage = || usage(format!("--env {text:?}: must be [ROLE:]NAME=VALUE"));
    let (name, value) = text.split_once('=').ok_or_else(usage)?;
    let env = match name.split_once(':') {
        None => Some((&mut spec.env, name)),
        Some((role, name)) => spec.app_mut(role).map(|app| (&mut app.env, name)),
    };
    let (env, name) = env.ok_or_else(usage)?;
    env.insert(name.to_owned(), value.to_owned());
    Ok(())
}

fn absolute(path: &Path) -> Result<String, Failure> {
    let found = path.canonicalize();
    let found = found.map_err(|e| Failure::new(format!("cannot open {}: {e}", path.display())))?;
    Ok(found.display().to_string())
}

/// Reads the key, or makes it.
fn dev_key(path: &Path) -> Result<String, Failure> {
    let failed = |error| Failure::new(format!("cannot make {}: {error}", path.display()));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    let mut random = [0; 20];
    getrandom::fill(&mut random).map_err(|error| failed(io::Error::other(error.to_string())))?;
    let key = format!("sk-skein-{}", hex::encode(random));
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            file.write_all(format!("{key}\n").as_bytes()).map_err(failed)?;
            Ok(key)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let key = fs::read_to_string(path).map_err(failed)?.trim().to_owned();
            match key.strip_prefix("sk-skein-").is_some_and(|secret| secret.len() >= 40) {
                true => Ok(key),
                false => Err(Failure::new(format!(
                    "{} holds no key of the form sk-skein-…; delete it and a new one is made",
                    path.display()
                ))),
            }
        }
        Err(error) => Err(failed(error)),
    }
}

pub(super) fn usage(text: String) -> Failure {
    Failure { text, code: 2 }
}

fn place_usage(text: &str) -> Failure {
    usage(format!("--place {text:?}: must be like router=iad:2,fra:1"))
}

fn no_role(role: &str) -> Failure {
    usage(format!("--place: no app is called {role:?}; there are {}", ROLES.join(", ")))
}
