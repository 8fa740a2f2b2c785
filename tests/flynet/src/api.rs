//! `/.fly/api`: the Machines API of a machine's own app, on a unix socket of its
//! own and without a token.
//!
//! Invariants:
//! - Nothing of another app is seen or touched: its name is unknown here.
//! - Each action on a machine is limited as on Fly: 1 a second, 3 at once; asking
//!   for one machine 5 a second, 10 at once.
//! - `stop` and `suspend` answer when the machine has left DNS, not when it is
//!   gone: a machine can stop itself.

use crate::{
    error::Error,
    fly_toml::Restart,
    lifecycle,
    machine::{Machine, Order, State},
    network::Shared,
    rate::Rate,
};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State as Of},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{net::UnixListener, time};

const ACTION: Rate = Rate { per_second: 1.0, burst: 3.0 };
const LOOK: Rate = Rate { per_second: 5.0, burst: 10.0 };
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Whose socket this is.
#[derive(Clone)]
struct Own {
    network: Weak<Shared>,
    app: String,
}

type Refusal = (StatusCode, Json<Value>);

/// Listens until the machine is destroyed.
pub(crate) fn serve(machine: &Arc<Machine>, network: Weak<Shared>) -> Result<(), Error> {
    // the root's lock is ours, so a socket that is there belongs to nobody
    let _absent = fs::remove_file(&machine.api);
    let listener =
        UnixListener::bind(&machine.api).map_err(Error::io("listen on", &machine.api))?;
    let own = Own { network, app: machine.app.clone() };
    let at = "/v1/apps/{app}/machines";
    let routes = Router::new()
        .route(at, get(list))
        .route(&format!("{at}/{{id}}"), get(one))
        .route(&format!("{at}/{{id}}/wait"), get(wait))
        .route(&format!("{at}/{{id}}/metadata"), get(metadata))
        .route(&format!("{at}/{{id}}/metadata/{{key}}"), post(set).delete(unset))
        .route(&format!("{at}/{{id}}/{{action}}"), post(act))
        .with_state(own);
    let (path, gone) = (machine.api.clone(), machine.gone.clone());
    tokio::spawn(async move {
        let serving = axum::serve(listener, routes);
        tokio::select! {
            _ = serving => {}
            () = gone.cancelled() => {}
        }
        let _gone = fs::remove_file(path);
    });
    Ok(())
}

impl Own {
    fn network(&self, app: &str) -> Result<Arc<Shared>, Refusal> {
        let network = self.network.upgrade().filter(|_| app == self.app);
        network.ok_or_else(|| refuse(StatusCode::NOT_FOUND, &format!("app {app:?} not found")))
    }

    fn machine(
        &self,
        (app, id): (&str, &str),
        action: &'static str,
        rate: Rate,
    ) -> Result<Arc<Machine>, Refusal> {
        let network = self.network(app)?;
        let found = network.fleet.of(app).into_iter().find(|machine| machine.id == id);
        let unknown = || refuse(StatusCode::NOT_FOUND, &format!("machine {id:?} not found"));
        let machine = found.ok_or_else(unknown)?;
        limit(&network, action, id, rate)?;
        Ok(machine)
    }
}

fn limit(network: &Shared, action: &'static str, of: &str, rate: Rate) -> Result<(), Refusal> {
    match network.limits.allow(action, of, rate, time::Instant::now()) {
        true => Ok(()),
        false => Err(refuse(StatusCode::TOO_MANY_REQUESTS, "rate limit exceeded")),
    }
}

fn refuse(status: StatusCode, error: &str) -> Refusal {
    (status, Json(json!({ "error": error })))
}

async fn list(
    Of(own): Of<Own>,
    Path(app): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Json<Value>, Refusal> {
    let network = own.network(&app)?;
    limit(&network, "list", &app, ACTION)?;
    let wanted = |machine: &Arc<Machine>| {
        query.iter().all(|(key, value)| match key.strip_prefix("metadata.") {
            Some(key) => machine.metadata.borrow().get(key) == Some(value),
            None => key != "region" || machine.region == *value,
        })
    };
    let found = network.fleet.of(&app).into_iter().filter(wanted);
    Ok(Json(found.map(|machine| shown(&machine)).collect()))
}

async fn one(
    Of(own): Of<Own>,
    Path((app, id)): Path<(String, String)>,
) -> Result<Json<Value>, Refusal> {
    Ok(Json(shown(&*own.machine((&app, &id), "get", LOOK)?)))
}

async fn act(
    Of(own): Of<Own>,
    Path((app, id, action)): Path<(String, String, String)>,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let known = ["start", "stop", "suspend", "cordon", "uncordon"];
    let Some(action) = known.into_iter().find(|known| *known == action) else {
        let text = format!("flynet does not emulate {action:?}, only {}", known.join(", "));
        return Err(refuse(StatusCode::NOT_FOUND, &text));
    };
    if !matches!(body.trim_ascii(), b"" | b"{}") {
        let text = format!("flynet does not emulate options of {action}");
        return Err(refuse(StatusCode::BAD_REQUEST, &text));
    }
    let machine = own.machine((&app, &id), action, ACTION)?;
    let before = machine.state();
    let cannot = || {
        let text = format!("failed_precondition: unable to {action} machine from {before}");
        refuse(StatusCode::PRECONDITION_FAILED, &text)
    };
    match (action, before) {
        ("start", State::Stopping) | ("suspend", State::Stopped | State::Stopping) => {
            return Err(cannot());
        }
        ("start", _) => {
            lifecycle::start(&machine).await;
            return Ok(Json(json!({ "previous_state": before })));
        }
        ("stop", _) => {
            away(&machine, |m| async move { lifecycle::stop(&m, Order::Stop).await }).await;
        }
        ("suspend", _) => away(&machine, |m| async move { lifecycle::suspend(&m).await }).await,
        _ => machine.status.send_modify(|status| status.cordoned = action == "cordon"),
    }
    Ok(Json(json!({ "ok": true })))
}

/// Begins it, and returns when the machine is no longer started.
async fn away<F: Future<Output = ()> + Send + 'static>(
    machine: &Arc<Machine>,
    begin: impl FnOnce(Arc<Machine>) -> F,
) {
    tokio::spawn(begin(Arc::clone(machine)));
    let mut status = machine.status.subscribe();
    let _left = status.wait_for(|status| status.state != State::Started).await;
}

#[derive(Deserialize)]
struct Until {
    state: Option<String>,
    /// Seconds.
    timeout: Option<u64>,
}

async fn wait(
    Of(own): Of<Own>,
    Path((app, id)): Path<(String, String)>,
    Query(until): Query<Until>,
) -> Result<Json<Value>, Refusal> {
    let machine = own.machine((&app, &id), "wait", ACTION)?;
    let wanted = until.state.unwrap_or_else(|| "started".to_owned());
    let known = [State::Started, State::Stopped, State::Suspended];
    let state = known.into_iter().find(|state| state.to_string() == wanted);
    if state.is_none() && wanted != "destroyed" {
        let text = format!("cannot wait for state {wanted:?}");
        return Err(refuse(StatusCode::BAD_REQUEST, &text));
    }
    let patience = until.timeout.map_or(LONGEST_WAIT, Duration::from_secs).min(LONGEST_WAIT);
    let mut status = machine.status.subscribe();
    let waiting = async {
        match state {
            Some(state) => drop(status.wait_for(|status| status.state == state).await),
            None => machine.gone.cancelled().await,
        }
    };
    match time::timeout(patience, waiting).await {
        Ok(()) => Ok(Json(json!({ "ok": true }))),
        Err(_) => {
            let text = format!("deadline_exceeded: machine is {}", machine.state());
            Err(refuse(StatusCode::REQUEST_TIMEOUT, &text))
        }
    }
}

async fn metadata(
    Of(own): Of<Own>,
    Path((app, id)): Path<(String, String)>,
) -> Result<Json<BTreeMap<String, String>>, Refusal> {
    let machine = own.machine((&app, &id), "get_metadata", ACTION)?;
    Ok(Json(machine.metadata.borrow().clone()))
}

#[derive(Deserialize)]
struct Entry {
    value: String,
}

async fn set(
    Of(own): Of<Own>,
    Path((app, id, key)): Path<(String, String, String)>,
    Json(entry): Json<Entry>,
) -> Result<StatusCode, Refusal> {
    let machine = own.machine((&app, &id), "set_metadata", ACTION)?;
    reserved(&key)?;
    machine.metadata.send_modify(|all| drop(all.insert(key, entry.value)));
    Ok(StatusCode::NO_CONTENT)
}

async fn unset(
    Of(own): Of<Own>,
    Path((app, id, key)): Path<(String, String, String)>,
) -> Result<Response, Refusal> {
    let machine = own.machine((&app, &id), "delete_metadata", ACTION)?;
    reserved(&key)?;
    machine.metadata.send_modify(|all| drop(all.remove(&key)));
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn reserved(key: &str) -> Result<(), Refusal> {
    match key.starts_with("fly_") {
        true => {
            let text = format!("metadata key {key:?}: names that begin with fly_ belong to Fly");
            Err(refuse(StatusCode::BAD_REQUEST, &text))
        }
        false => Ok(()),
    }
}

/// As Fly shows a machine; secrets are not part of its config.
fn shown(machine: &Machine) -> Value {
    let release = machine.release();
    let config = &release.config;
    let policy = match config.restart {
        Restart::Always => "always",
        Restart::Never => "no",
        Restart::OnFailure => "on-failure",
    };
    let checks: Vec<_> = machine
        .checks
        .borrow()
        .iter()
        .map(|check| json!({ "name": check.name, "status": check.status, "output": check.output }))
        .collect();
    json!({
        "id": machine.id,
        "name": format!("{}-{}-{}", machine.app, machine.region, machine.number),
        "state": machine.state(),
        "region": machine.region,
        "private_ip": machine.address.to_ipv6_mapped(),
        "instance_id": release.version,
        "config": {
            "env": config.env,
            "metadata": *machine.metadata.borrow(),
            "restart": { "policy": policy, "max_retries": config.retries },
        },
        "checks": checks,
    })
}
