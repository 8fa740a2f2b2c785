//! `skein status`: every machine of the mesh in one table, and whom the
//! model-proxies call in another.
//!
//! Invariants:
//! - A machine that could not be asked is a row with the reason, not a gap.
//! - A machine that lacks something is a fact, not a failure: the exit code is
//!   0 whenever the mesh could answer.

mod providers;

use crate::{
    connect::{Gateway, QUICK},
    errors::Error,
    render,
    retry::{self, OnLimit},
    terminal::Terminal,
};
use serde_json::{Value, json};
use skein_proto::{
    admin::v1::GetMeshStatusRequest,
    mesh::v1::{Identity, MachineStatus},
};

pub(crate) async fn run(
    gateway: &Gateway,
    json: bool,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let machines = machines(gateway, false).await?;
    if json {
        let machines: Vec<_> = machines.iter().map(as_json).collect();
        return terminal.json(&json!({ "machines": machines }), true);
    }
    let head = ["app", "machine", "region", "ready", "rtt", "in flight", "uptime", "reasons"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(machines.iter().map(row));
    let text = render::table(&rows);
    match providers::table(&machines) {
        Some(providers) => terminal.text(&format!("{text}\n{providers}")),
        None => terminal.text(&text),
    }
}

/// Every machine the gateway knows of, itself first.
pub(super) async fn machines(
    gateway: &Gateway,
    settings: bool,
) -> Result<Vec<MachineStatus>, Error> {
    let answer = retry::idempotent(OnLimit::Fail, async || {
        let message = GetMeshStatusRequest { settings };
        gateway.admin().get_mesh_status(gateway.request(message, QUICK)).await
    })
    .await;
    Ok(answer.map_err(|status| gateway.explain("status of the mesh", &status))?.machines)
}

pub(super) fn identity(machine: &MachineStatus) -> Identity {
    machine.identity.clone().unwrap_or_default()
}

fn reasons(machine: &MachineStatus) -> Vec<&str> {
    let error = Some(machine.error.as_str()).filter(|error| !error.is_empty());
    let all = machine.not_ready.iter().chain(&machine.degraded).map(String::as_str);
    error.into_iter().chain(all).collect()
}

fn row(machine: &MachineStatus) -> Vec<String> {
    let Identity { app, machine: id, region, .. } = identity(machine);
    let asked = machine.error.is_empty();
    let shown = |text: String| if asked { text } else { "-".to_owned() };
    vec![
        app,
        id,
        region,
        shown(if machine.ready { "yes" } else { "no" }.to_owned()),
        shown(match machine.rtt_us {
            0 => "-".to_owned(),
            micros => render::millis(micros),
        }),
        shown(load(machine)),
        shown(render::duration(machine.uptime_ms)),
        reasons(machine).join("; "),
    ]
}

/// `3 of 1024`: calls in flight, and from how many on more are refused.
fn load(machine: &MachineStatus) -> String {
    match machine.hard_limit {
        0 | u64::MAX => machine.in_flight.to_string(),
        limit => format!("{} of {limit}", machine.in_flight),
    }
}

fn as_json(machine: &MachineStatus) -> Value {
    let identity = identity(machine);
    json!({
        "app": identity.app,
        "role": identity.role,
        "machine": identity.machine,
        "region": identity.region,
        "release": identity.release,
        "ready": machine.ready,
        "not_ready": machine.not_ready,
        "degraded": machine.degraded,
        "in_flight": machine.in_flight,
        "soft_limit": machine.soft_limit,
        "hard_limit": machine.hard_limit,
        "uptime_ms": machine.uptime_ms,
        "rtt_us": machine.rtt_us,
        "error": render::present(&machine.error),
        "providers": machine.providers.iter().map(providers::as_json).collect::<Vec<_>>(),
    })
}
