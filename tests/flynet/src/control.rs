//! The unix socket by which the verbs of `flynet` reach a running network: one
//! JSON line there, one back.
//!
//! Invariants:
//! - A verb is answered when it is done, or with the reason why not.

use crate::{
    deploy::Deploy,
    error::Error,
    events::Event,
    faults::{Fault, Scope},
    links::Link,
    machine::Listed,
    network::Shared,
};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
};

/// The socket's place below a root.
pub const SOCKET: &str = "run/control.sock";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    Start,
    Stop,
    Kill,
    Freeze,
    Thaw,
    Suspend,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    Ps,
    Do {
        verb: Verb,
        target: String,
    },
    Deploy {
        target: String,
        change: Deploy,
    },
    Scale {
        target: String,
        region: String,
        count: usize,
    },
    /// `None` ends every fault.
    Dns {
        scope: Scope,
        fault: Option<Fault>,
    },
    Link {
        a: String,
        b: String,
        link: Link,
    },
    Cut {
        a: String,
        b: String,
        cut: bool,
    },
    Events,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    Machines(Vec<Listed>),
    /// The ids it was done to.
    Done(Vec<String>),
    Events(Vec<Logged>),
    Error(String),
}

/// An event as `flynet events` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Logged {
    /// Since the network began.
    pub after_ms: u64,
    pub machine: String,
    pub app: String,
    pub region: String,
    pub what: String,
}

/// Asks the flynet that runs on `root`.
pub async fn ask(root: &Path, ask: &Ask) -> io::Result<Reply> {
    let mut socket = UnixStream::connect(root.join(SOCKET)).await?;
    socket.write_all(&line(ask)).await?;
    let mut text = String::new();
    BufReader::new(socket).read_line(&mut text).await?;
    serde_json::from_str(&text).map_err(io::Error::other)
}

pub(crate) fn serve(path: &Path, network: Weak<Shared>) -> Result<(), Error> {
    // the root's lock is ours, so a socket that is there belongs to nobody
    let _absent = fs::remove_file(path);
    let listener = UnixListener::bind(path).map_err(Error::io("listen on", path))?;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Some(network) = network.upgrade() else { return };
            tokio::spawn(async move {
                if let Err(error) = converse(socket, &network).await {
                    tracing::debug!(%error, "talk on the control socket");
                }
            });
        }
    });
    Ok(())
}

async fn converse(socket: UnixStream, network: &Arc<Shared>) -> io::Result<()> {
    let mut socket = BufReader::new(socket);
    let mut text = String::new();
    socket.read_line(&mut text).await?;
    let reply = match serde_json::from_str(&text) {
        Ok(Ask::Ps) => Reply::Machines(network.listed()),
        Ok(Ask::Events) => Reply::Events(logged(network)),
        Ok(Ask::Do { verb, target }) => done(network.act(verb, &target).await),
        Ok(Ask::Deploy { target, change }) => done(network.deploy(&target, change).await),
        Ok(Ask::Scale { target, region, count }) => {
            done(network.scale(&target, &region, count).await)
        }
        Ok(Ask::Dns { scope, fault }) => done(dns(network, scope, fault)),
        Ok(Ask::Link { a, b, link }) => done(network.fabric.links.set(&a, &b, link).map(none)),
        Ok(Ask::Cut { a, b, cut }) => done(network.fabric.links.cut(&a, &b, cut).map(none)),
        Err(error) => Reply::Error(format!("not understood: {error}")),
    };
    socket.write_all(&line(&reply)).await
}

fn done(outcome: Result<Vec<String>, Error>) -> Reply {
    outcome.map_or_else(|error| Reply::Error(error.to_string()), Reply::Done)
}

fn none((): ()) -> Vec<String> {
    Vec::new()
}

fn dns(network: &Shared, scope: Scope, fault: Option<Fault>) -> Result<Vec<String>, Error> {
    let fabric = &network.fabric;
    scope.app.as_deref().map(|app| network.maker().app(app).map(|_| ())).transpose()?;
    match fault {
        Some(fault) => fabric.faults.add(scope, fault, fabric.snapshot()).keep(),
        None => fabric.faults.clear(),
    }
    Ok(Vec::new())
}

fn logged(network: &Shared) -> Vec<Logged> {
    let timed = network.events.timed().into_iter();
    let line = |(after, event): (Duration, Event)| Logged {
        after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
        what: event.what.to_string(),
        machine: event.machine,
        app: event.app,
        region: event.region,
    };
    timed.map(line).collect()
}

fn line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}
