//! `fly deploy`: new programs, variables and secrets, in place.
//!
//! Invariants:
//! - A machine keeps its id, address and volume; its directory is wiped and its
//!   version changes. It is down in between.
//! - Rolling: one first, then as many at a time as may be unavailable, each
//!   waited for; the first that fails ends the roll, the rest stays as it was.
//! - Stopped machines are updated without being started; a suspended one loses
//!   its snapshot.
//! - Only a deploy that went through is what later machines are made of.

use crate::{
    checks::Verdict,
    error::Error,
    events::What,
    fly_toml::{FlyToml, Strategy, pool},
    lifecycle,
    machine::{Machine, Order, State},
    maker::Deployed,
    network::Shared,
    ready,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};
use tokio::time::{self, Instant};

/// flyctl watches that long for a machine that crashes.
const SMOKE: Duration = Duration::from_secs(10);

/// What a deploy changes; what is absent stays, but `fly.toml` is read anew.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Deploy {
    pub program: Option<PathBuf>,
    /// Set on top of the app's own.
    pub env: BTreeMap<String, String>,
    pub secrets: BTreeMap<String, String>,
    pub strategy: Option<Strategy>,
    /// Below 1 a share of the machines, else a number of them.
    pub max_unavailable: Option<f64>,
    pub wait_timeout: Option<Duration>,
}

impl Shared {
    /// The ids of the updated machines; `target` is an app, or one machine of it.
    pub(crate) async fn deploy(&self, target: &str, change: Deploy) -> Result<Vec<String>, Error> {
        let known = self.maker().app(target).map(|app| app.name.clone());
        let name = known.or_else(|unknown| match self.fleet.find(target)?.first() {
            Some(machine) => Ok(machine.app.clone()),
            None => Err(unknown),
        })?;
        let _one = self.one_change(&name)?.lock().await;
        let machines = self.fleet.find(target).unwrap_or_default(); // an app may have none
        let app = self.changed(&name, &change)?;
        let table = app.config.deploy;
        let strategy = change.strategy.unwrap_or(table.strategy);
        let unavailable = change.max_unavailable.unwrap_or(table.max_unavailable);
        let patience = match strategy {
            Strategy::Rolling => Some(change.wait_timeout.unwrap_or(table.wait_timeout)),
            Strategy::Immediate => None,
        };
        let alone = if patience.is_some() { 1 } else { machines.len() };
        let (first, rest) = machines.split_at(alone.min(machines.len()));
        let pools = [first].into_iter().chain(rest.chunks(pool(machines.len(), unavailable)));
        let mut updated = Vec::new();
        for pool in pools {
            let each = pool.iter().map(|machine| self.update(machine, &app, patience));
            let outcomes = futures_util::future::join_all(each).await;
            for (machine, outcome) in pool.iter().zip(outcomes) {
                outcome.map_err(|why| Error::Deploy {
                    app: name.clone(),
                    machine: machine.id.clone(),
                    updated: updated.len(),
                    total: machines.len(),
                    why,
                    log: ready::end_of_log(machine),
                })?;
                updated.push(machine.id.clone());
            }
        }
        self.maker().deployed(app);
        Ok(updated)
    }

    /// The app as it shall be.
    fn changed(&self, name: &str, change: &Deploy) -> Result<Deployed, Error> {
        let mut app = self.maker().app(name)?.clone();
        let config = FlyToml::read(&app.app.config)?;
        if config.mounts != app.config.mounts {
            return Err(Error::Mounts { app: name.to_owned() });
        }
        app.config = Arc::new(config);
        if let Some(program) = &change.program {
            app.app.program.clone_from(program);
        }
        if !app.app.program.is_file() {
            return Err(Error::NoProgram { role: app.app.role, path: app.app.program });
        }
        app.app.env.extend(change.env.clone());
        app.app.secrets.extend(change.secrets.clone());
        app.number += 1;
        Ok(app)
    }

    async fn update(
        &self,
        machine: &Arc<Machine>,
        app: &Deployed,
        patience: Option<Duration>,
    ) -> Result<(), String> {
        let starts = {
            let _one = machine.verb.lock().await;
            let ran = machine.state() == State::Started;
            lifecycle::stop_held(machine, Order::Stop).await;
            let release = self.maker().release(app, machine).map_err(|error| error.to_string())?;
            let version = release.version.clone();
            machine.release.send_replace(Arc::new(release));
            machine.note(What::Deployed { version });
            machine.metadata.send_modify(|metadata| {
                metadata.insert("fly_release_version".to_owned(), app.number.to_string());
            });
            if !ran {
                return Ok(());
            }
            lifecycle::start_held(machine);
            machine.status.borrow().starts
        };
        match patience {
            Some(patience) => healthy(machine, starts + 1, patience).await,
            None => Ok(()),
        }
    }
}

/// Started, not crashing, every check passing.
async fn healthy(machine: &Machine, start: u32, patience: Duration) -> Result<(), String> {
    let (mut status, mut checks) = (machine.status.subscribe(), machine.checks.subscribe());
    let smoke = machine.pace.scaled(SMOKE);
    let waiting = async {
        let mut booted: Option<Instant> = None;
        loop {
            {
                let now = status.borrow_and_update();
                let crashed = now.starts > start || (now.starts == start && now.pid.is_none());
                if crashed || now.state != State::Started {
                    let exit = now.exit.as_deref().unwrap_or("it is not started");
                    return Err(format!("it did not stay up ({exit})"));
                }
                if booted.is_none() && now.starts == start {
                    booted = Some(Instant::now());
                }
            }
            let failing = failing(machine);
            checks.mark_unchanged();
            let settled = booted.map(|at| at + smoke);
            if failing.is_none() && settled.is_some_and(|at| at <= Instant::now()) {
                return Ok(());
            }
            let until = settled.filter(|at| *at > Instant::now());
            let smoking = async {
                match until {
                    Some(at) => time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = status.changed() => {}
                _ = checks.changed() => {}
                () = smoking => {}
            }
        }
    };
    time::timeout(patience, waiting).await.unwrap_or_else(|_| {
        let why = failing(machine).unwrap_or_else(|| "its program did not start".to_owned());
        Err(format!("it is not healthy after {} s: {why}", patience.as_secs_f32()))
    })
}

/// The first check that does not pass, in words.
fn failing(machine: &Machine) -> Option<String> {
    let checks = machine.checks.borrow();
    let failing = checks.iter().find(|check| check.status != Verdict::Passing);
    failing.map(|check| format!("check {}: {}", check.name, check.output))
}
