//! `flynet dns`, `link`, `partition` and `heal`: what may be wrong with a network.

use super::{Failure, up::usage};
use clap::{Args, ValueEnum};
use flynet::{Fault, Link, Scope, control::Ask};
use std::time::Duration;

#[derive(Args)]
pub(crate) struct Dns {
    /// What happens to questions from now on; `well` ends all faults
    #[arg(value_enum)]
    fault: How,
    /// Only names of this app (skein-router) or role (router)
    #[arg(long)]
    app: Option<String>,
    /// Only names of this region
    #[arg(long)]
    region: Option<String>,
    /// Only questions of this region's machines
    #[arg(long, value_name = "REGION")]
    asked_in: Option<String>,
    /// How late the answers of `slow` come
    #[arg(long, default_value_t = 5000, value_name = "MILLISECONDS")]
    late: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum How {
    Servfail,
    Slow,
    Stale,
    Empty,
    Dropped,
    Well,
}

/// Two regions.
#[derive(Args)]
pub(crate) struct Pair {
    a: String,
    b: String,
}

#[derive(Args)]
pub(crate) struct Linking {
    #[command(flatten)]
    pair: Pair,
    /// Round trip, in milliseconds
    #[arg(value_name = "MILLISECONDS")]
    rtt: u64,
}

impl Dns {
    pub(crate) fn ask(self) -> Ask {
        let fault = match self.fault {
            How::Servfail => Some(Fault::ServFail),
            How::Slow => Some(Fault::Slow(Duration::from_millis(self.late))),
            How::Stale => Some(Fault::Stale),
            How::Empty => Some(Fault::Empty),
            How::Dropped => Some(Fault::Dropped),
            How::Well => None,
        };
        let scope = Scope { app: self.app, region: self.region, asked_in: self.asked_in };
        Ask::Dns { scope, fault }
    }
}

impl Pair {
    pub(crate) fn ask(self, cut: bool) -> Ask {
        Ask::Cut { a: self.a, b: self.b, cut }
    }
}

impl Linking {
    pub(crate) fn ask(self) -> Ask {
        let link = Link { rtt: Duration::from_millis(self.rtt) };
        Ask::Link { a: self.pair.a, b: self.pair.b, link }
    }
}

/// `iad,nrt=170`.
pub(super) fn link(text: &str) -> Result<(String, String, Link), Failure> {
    let parse = || {
        let (pair, rtt) = text.split_once('=')?;
        let (a, b) =
            pair.split_once(',').filter(|(a, b)| !a.is_empty() && !b.is_empty() && a != b)?;
        let rtt = Duration::from_millis(rtt.parse().ok()?);
        Some((a.to_owned(), b.to_owned(), Link { rtt }))
    };
    parse().ok_or_else(|| usage(format!("--link {text:?}: must be like iad,nrt=170")))
}
