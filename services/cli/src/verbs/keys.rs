//! `skein keys`: make, list and revoke API keys.
//!
//! Invariants:
//! - The secret of a key is printed once, when it is made; making a key is
//!   never tried twice by itself.

use crate::{
    args::{CreateKey, Keys},
    connect::{Gateway, QUICK},
    errors::Error,
    render,
    retry::{self, OnLimit},
    terminal::Terminal,
};
use serde_json::{Value, json};
use skein_proto::admin::v1::{CreateKeyRequest, Key, ListKeysRequest, RevokeKeyRequest};

pub(crate) async fn run(
    gateway: &Gateway,
    wanted: Keys,
    json: bool,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    match wanted {
        Keys::Create(wanted) => create(gateway, wanted, json, terminal).await,
        Keys::List { tenant } => list(gateway, tenant.unwrap_or_default(), json, terminal).await,
        Keys::Revoke { id } => revoke(gateway, id, json, terminal).await,
    }
}

async fn create(
    gateway: &Gateway,
    wanted: CreateKey,
    json: bool,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let what = format!("create a key for tenant {}", wanted.tenant);
    let message = CreateKeyRequest {
        tenant: wanted.tenant,
        name: wanted.name,
        scopes: wanted.scopes,
        ttl_seconds: wanted.expires.unwrap_or_default(),
        requests_per_minute: wanted.rpm.unwrap_or_default(),
        concurrency: wanted.concurrency.unwrap_or_default(),
    };
    let made = gateway.admin().create_key(gateway.request(message, QUICK)).await;
    let made = made.map_err(|status| gateway.explain(&what, &status))?.into_inner();
    let key = made.key.unwrap_or_default();
    if json {
        return terminal.json(&json!({ "key": as_json(&key), "secret": made.secret }), true);
    }
    let rows = [
        ["key".to_owned(), key.id],
        ["tenant".to_owned(), key.tenant],
        ["scopes".to_owned(), key.scopes.join(" ")],
        ["rpm".to_owned(), limit(key.requests_per_minute)],
        ["concurrency".to_owned(), limit(key.concurrency)],
        ["expires".to_owned(), moment(key.expires_at.as_ref(), "never")],
        ["secret".to_owned(), made.secret],
    ];
    terminal.text(&render::table(&rows.map(Vec::from)))?;
    terminal.note("the secret is shown only now; use it as SKEIN_API_KEY");
    Ok(())
}

async fn list(
    gateway: &Gateway,
    tenant: String,
    json: bool,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let message = ListKeysRequest { tenant };
    let answer = retry::idempotent(OnLimit::Fail, async || {
        gateway.admin().list_keys(gateway.request(message.clone(), QUICK)).await
    })
    .await
    .map_err(|status| gateway.explain("list keys", &status))?;
    if json {
        let keys: Vec<_> = answer.keys.iter().map(as_json).collect();
        return terminal.json(&json!({ "keys": keys }), true);
    }
    let head = ["id", "tenant", "name", "scopes", "rpm", "concurrency", "expires", "revoked"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(answer.keys.iter().map(|key| {
        vec![
            key.id.clone(),
            key.tenant.clone(),
            key.name.clone(),
            key.scopes.join(" "),
            limit(key.requests_per_minute),
            limit(key.concurrency),
            moment(key.expires_at.as_ref(), "never"),
            moment(key.revoked_at.as_ref(), "-"),
        ]
    }));
    terminal.text(&render::table(&rows))
}

async fn revoke(
    gateway: &Gateway,
    id: String,
    json: bool,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let message = RevokeKeyRequest { id };
    let answer = retry::idempotent(OnLimit::Fail, async || {
        gateway.admin().revoke_key(gateway.request(message.clone(), QUICK)).await
    })
    .await
    .map_err(|status| gateway.explain(&format!("revoke key {}", message.id), &status))?;
    let key = answer.key.unwrap_or_default();
    if json {
        return terminal.json(&json!({ "key": as_json(&key) }), true);
    }
    terminal.line(&format!("revoked {}", message.id))
}

fn limit(value: i64) -> String {
    if value == 0 { "-".to_owned() } else { value.to_string() }
}

fn moment(at: Option<&impl ToString>, absent: &str) -> String {
    at.map_or_else(|| absent.to_owned(), ToString::to_string)
}

fn as_json(key: &Key) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant,
        "scopes": key.scopes,
        "created_at": key.created_at.as_ref().map(ToString::to_string),
        "expires_at": key.expires_at.as_ref().map(ToString::to_string),
        "revoked_at": key.revoked_at.as_ref().map(ToString::to_string),
        "requests_per_minute": key.requests_per_minute,
        "concurrency": key.concurrency,
    })
}
