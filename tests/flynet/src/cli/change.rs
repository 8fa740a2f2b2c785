//! `flynet deploy`, `secrets` and `scale`: what changes a network while it runs.

use super::{
    Failure,
    up::{is_region, usage},
};
use clap::{Args, ValueEnum};
use flynet::{Deploy, Strategy, control::Ask};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

#[derive(Args)]
pub(crate) struct Deploying {
    /// An app (skein-router), a role (router) or one machine
    #[arg(value_name = "APP|ID")]
    target: String,
    /// The new program [default: the same, started anew]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// A variable of the app
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// How machines are replaced [default: fly.toml's]
    #[arg(long, value_enum)]
    strategy: Option<How>,
    /// Machines that may be down at once, or below 1 a share of them
    #[arg(long, value_name = "N")]
    max_unavailable: Option<f64>,
    /// Longest wait until a machine is healthy, in seconds
    #[arg(long, value_name = "SECONDS")]
    wait_timeout: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum How {
    Rolling,
    Immediate,
}

#[derive(Args)]
pub(crate) struct Secrets {
    /// An app (skein-router) or a role (router)
    #[arg(value_name = "APP")]
    target: String,
    /// The secrets
    #[arg(required = true, value_name = "NAME=VALUE")]
    secrets: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Scaling {
    /// An app (skein-router) or a role (router)
    #[arg(value_name = "APP")]
    target: String,
    region: String,
    count: usize,
}

impl Deploying {
    pub(crate) fn ask(self) -> Result<Ask, Failure> {
        let absolute = |path: PathBuf| {
            let found = path.canonicalize();
            found.map_err(|error| Failure::new(format!("cannot open {}: {error}", path.display())))
        };
        if self.max_unavailable.is_some_and(|n| n.is_nan() || n <= 0.0) {
            return Err(usage("--max-unavailable: must be like 0.33 or 2".to_owned()));
        }
        let change = Deploy {
            program: self.program.map(absolute).transpose()?,
            env: pairs(&self.env)?,
            secrets: BTreeMap::new(),
            strategy: self.strategy.map(|how| match how {
                How::Rolling => Strategy::Rolling,
                How::Immediate => Strategy::Immediate,
            }),
            max_unavailable: self.max_unavailable,
            wait_timeout: self.wait_timeout.map(Duration::from_secs),
        };
        Ok(Ask::Deploy { target: self.target, change })
    }
}

impl Secrets {
    pub(crate) fn ask(self) -> Result<Ask, Failure> {
        let change = Deploy { secrets: pairs(&self.secrets)?, ..Deploy::default() };
        Ok(Ask::Deploy { target: self.target, change })
    }
}

impl Scaling {
    pub(crate) fn ask(self) -> Result<Ask, Failure> {
        if !is_region(&self.region) {
            return Err(usage(format!("{:?} is no region; must be like fra", self.region)));
        }
        Ok(Ask::Scale { target: self.target, region: self.region, count: self.count })
    }
}

/// What a complaint says is the name alone: the value may be a secret.
fn pairs(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(usage("must be NAME=VALUE".to_owned())),
    };
    texts.iter().map(pair).collect()
}
