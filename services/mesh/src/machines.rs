//! The platform's Machines API for our own app, over the socket that Fly puts
//! into every machine: no token, no other app.
//!
//! Invariants:
//! - At most one machine is started a second, after a random moment: many
//!   machines see the same crowd at the same time.
//! - Only a machine that could serve calls is started: no standby (it waits for
//!   the end of a host), none of another process group.
//! - What the API refuses is a degradation with its reason; nothing that serves
//!   calls depends on it.

use crate::{identity::Identity, ready::Readiness};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::{
    collections::HashMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::UnixStream,
    sync::{Mutex, watch},
    time::{self, Instant},
};
use tokio_util::task::AbortOnDropHandle;

/// For one question; starting a machine is answered before it has booted.
const PATIENCE: Duration = Duration::from_secs(10);
const BETWEEN_STARTS: Duration = Duration::from_secs(1);
const JITTER: Duration = Duration::from_millis(200);
/// Answer of a list of a few hundred machines.
const LONGEST: usize = 8 << 20;

/// Cheap to clone.
#[derive(Clone)]
pub struct Machines(Arc<Inner>);

struct Inner {
    socket: PathBuf,
    own: Identity,
    /// When we last started a machine; held while we start one.
    started: Mutex<Option<Instant>>,
    trouble: watch::Sender<Option<String>>,
}

/// A machine as the API describes it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Listed {
    pub id: String,
    #[serde(default)]
    pub state: String,
    #[serde(default)]
    pub region: String,
    #[serde(default)]
    pub config: Config,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Config {
    #[serde(default)]
    pub metadata: HashMap<String, String>,
    #[serde(default)]
    pub restart: Restart,
    /// Machines whose host's failure it waits for.
    #[serde(default)]
    pub standbys: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Restart {
    #[serde(default)]
    pub policy: String,
}

/// What came of the wish to start a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    One,
    /// There is no stopped machine.
    None,
    /// One was started less than a second ago, or is being started.
    TooSoon,
}

/// Why the platform did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum MachinesError {
    #[error("{} is not there", .0.display())]
    Absent(PathBuf),
    #[error("{} may not be opened by this user", .0.display())]
    Denied(PathBuf),
    #[error("the Machines API does not answer: {0}")]
    Silent(String),
    #[error("the Machines API answered {status} to {what}")]
    Refused { what: String, status: StatusCode },
    #[error("the Machines API answered what cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

impl Machines {
    pub fn new(socket: &Path, own: Identity) -> Self {
        let (trouble, socket) = (watch::Sender::new(None), socket.to_owned());
        Self(Arc::new(Inner { socket, own, started: Mutex::default(), trouble }))
    }

    /// Shows in `readyz` and `status` while the API refuses us.
    pub async fn report(self, readiness: Readiness) {
        let mut trouble = self.0.trouble.subscribe();
        loop {
            let now = trouble.borrow_and_update().clone();
            let _reason = now.map(|why| {
                let app = &self.0.own.app;
                readiness.degraded(format!("cannot start machines ({why}); {app}.flycast may"))
            });
            if trouble.changed().await.is_err() {
                return;
            }
        }
    }

    /// This machine.
    pub async fn own(&self) -> Result<Listed, MachinesError> {
        let path = format!("/machines/{}", self.0.own.machine);
        Ok(serde_json::from_slice(&self.ask(Method::GET, &path).await?)?)
    }

    /// The machines of our app in `region`.
    pub async fn list(&self, region: &str) -> Result<Vec<Listed>, MachinesError> {
        let path = format!("/machines?region={region}");
        let all: Vec<Listed> = serde_json::from_slice(&self.ask(Method::GET, &path).await?)?;
        Ok(all.into_iter().filter(|machine| machine.region == region).collect())
    }

    /// Starts a stopped machine of our app in `region`, any of them.
    pub async fn start_one(&self, region: &str) -> Result<Started, MachinesError> {
        let Ok(mut started) = self.0.started.try_lock() else { return Ok(Started::TooSoon) };
        if started.is_some_and(|at| at.elapsed() < BETWEEN_STARTS) {
            return Ok(Started::TooSoon);
        }
        time::sleep(JITTER.mul_f64(fastrand::f64())).await;
        let mut stopped = self.list(region).await?;
        stopped.retain(|machine| machine.id != self.0.own.machine && is_spare(machine));
        if stopped.is_empty() {
            return Ok(Started::None);
        }
        let chosen = stopped.swap_remove(fastrand::usize(..stopped.len())).id;
        // Whatever comes of it: a failed start is repeated no sooner.
        *started = Some(Instant::now());
        self.ask(Method::POST, &format!("/machines/{chosen}/start")).await?;
        tracing::info!(machine = chosen, region, "started a machine");
        metrics::counter!("skein_machines_started_total").increment(1);
        Ok(Started::One)
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Bytes, MachinesError> {
        let silent = || MachinesError::Silent(format!("no answer within {PATIENCE:?}"));
        let answer = time::timeout(PATIENCE, self.exchange(method, path)).await;
        let answer = answer.unwrap_or_else(|_| Err(silent()));
        let trouble = answer.as_ref().err().map(ToString::to_string);
        self.0.trouble.send_if_modified(|before| {
            let changed = *before != trouble;
            if let (true, Some(why)) = (changed, &trouble) {
                tracing::warn!(why, "the Machines API cannot be used");
            }
            *before = trouble;
            changed
        });
        answer
    }

    async fn exchange(&self, method: Method, path: &str) -> Result<Bytes, MachinesError> {
        let socket = &self.0.socket;
        let silent = |error: &dyn std::fmt::Display| MachinesError::Silent(error.to_string());
        let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => MachinesError::Absent(socket.clone()),
            ErrorKind::PermissionDenied => MachinesError::Denied(socket.clone()),
            _ => silent(&error),
        })?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut send, connection) = handshake.await.map_err(|error| silent(&error))?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let what = format!("{method} {path}");
        let request = Request::builder()
            .method(method)
            .uri(format!("/v1/apps/{}{path}", self.0.own.app))
            .header(header::HOST, "flaps")
            .body(Empty::<Bytes>::new())
            .map_err(|error| silent(&error))?;
        let response = send.send_request(request).await.map_err(|error| silent(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| silent(&error))?.to_bytes();
        if status.is_success() { Ok(body) } else { Err(MachinesError::Refused { what, status }) }
    }
}

/// Whether a machine is stopped and would serve calls when started.
fn is_spare(machine: &Listed) -> bool {
    let group = machine.config.metadata.get("fly_process_group");
    matches!(machine.state.as_str(), "stopped" | "suspended")
        && machine.config.standbys.is_empty()
        && group.is_none_or(|group| group == "app")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standbys_and_other_groups_are_no_spares() {
        let read = |text: &str| serde_json::from_str::<Listed>(text).unwrap();
        assert!(is_spare(&read(r#"{"id":"a","state":"stopped","region":"iad"}"#)));
        for no in [
            r#"{"id":"a","state":"started"}"#,
            r#"{"id":"a","state":"stopped","config":{"standbys":["b"]}}"#,
            r#"{"id":"a","state":"stopped","config":{"metadata":{"fly_process_group":"cron"}}}"#,
        ] {
            assert!(!is_spare(&read(no)), "{no}");
        }
    }
}
