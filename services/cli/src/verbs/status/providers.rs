//! Whom the model-proxies call, and how they are.
//!
//! Invariant: a key is shown by its label; nothing here knows the key itself.

use super::identity;
use crate::render;
use serde_json::{Value, json};
use skein_proto::{
    mesh::v1::{Breaker, BreakerState, MachineStatus, ProviderKey, ProviderStatus},
    model::v1::ModelHealth,
};

/// `None` where no machine calls a provider.
pub(super) fn table(machines: &[MachineStatus]) -> Option<String> {
    let head = ["provider", "machine", "health", "p50", "probe", "keys", "last error", "reasons"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for machine in machines {
        rows.extend(machine.providers.iter().map(|provider| row(machine, provider)));
    }
    (rows.len() > 1).then(|| render::table(&rows))
}

fn row(machine: &MachineStatus, provider: &ProviderStatus) -> Vec<String> {
    let usable = provider.keys.iter().filter(|key| key.refused.is_empty()).count();
    let last_error = render::present(&provider.last_error).map_or_else(
        || "-".to_owned(),
        |reason| format!("{reason} {} ago", render::duration(provider.last_error_ms)),
    );
    vec![
        provider.name.clone(),
        identity(machine).machine,
        health(provider).to_owned(),
        time(provider.p50_us),
        time(provider.probe_us),
        format!("{usable} of {}", provider.keys.len()),
        last_error,
        provider.reason.clone(),
    ]
}

fn time(micros: u64) -> String {
    if micros == 0 { "-".to_owned() } else { render::millis(micros) }
}

fn health(provider: &ProviderStatus) -> &'static str {
    match provider.health() {
        ModelHealth::Unspecified => "not tried",
        ModelHealth::Up => "up",
        ModelHealth::Degraded => "degraded",
        ModelHealth::Down => "down",
    }
}

pub(super) fn as_json(provider: &ProviderStatus) -> Value {
    json!({
        "name": provider.name,
        "health": health(provider),
        "reason": render::present(&provider.reason),
        "p50_us": above_zero(provider.p50_us),
        "probe_us": above_zero(provider.probe_us),
        "keys": provider.keys.iter().map(key).collect::<Vec<_>>(),
        "breakers": provider.breakers.iter().map(breaker).collect::<Vec<_>>(),
        "last_error": render::present(&provider.last_error),
        "last_error_ms": render::present(&provider.last_error).map(|_| provider.last_error_ms),
    })
}

fn above_zero(number: u64) -> Option<u64> {
    Some(number).filter(|number| *number > 0)
}

fn key(key: &ProviderKey) -> Value {
    json!({
        "label": key.label,
        "in_flight": key.in_flight,
        "remaining_requests": key.remaining_requests,
        "remaining_tokens": key.remaining_tokens,
        "refused": render::present(&key.refused),
        "refused_ms": above_zero(key.refused_ms),
    })
}

fn breaker(breaker: &Breaker) -> Value {
    let state = match breaker.state() {
        BreakerState::Unspecified => "closed",
        BreakerState::Open => "open",
        BreakerState::HalfOpen => "half-open",
        BreakerState::Limited => "limited",
        BreakerState::Refused => "refused",
    };
    json!({
        "model": breaker.model,
        "key": breaker.key,
        "state": state,
        "left_ms": breaker.left_ms,
        "failures": breaker.failures,
        "reason": breaker.reason,
    })
}
