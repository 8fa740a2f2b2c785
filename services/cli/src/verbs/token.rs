//! `skein token`: a service token for calling a private app with grpcurl.
//!
//! Invariants:
//! - Valid for one minute, for one audience, for one tenant.
//! - stdout holds the token alone, so that `$(skein token …)` works.

use crate::{args::Token, errors::Error, terminal::Terminal};
use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};
use ed25519_dalek::SigningKey;
use mesh::{
    clock,
    config::Secret,
    keys::Keys,
    token::{self, Claims},
};
use serde_json::json;

pub(crate) fn run(wanted: &Token, json: bool, terminal: &mut Terminal) -> Result<(), Error> {
    let issuer = wanted.issuer.as_deref().unwrap_or(match wanted.audience.as_str() {
        "model-proxy" => "router",
        _ => "gateway",
    });
    let keys = keys(issuer, wanted.mesh_key.as_deref().unwrap_or_default())?;
    let claims = Claims {
        issuer: issuer.to_owned(),
        audience: wanted.audience.clone(),
        principal: wanted.principal.clone(),
        tenant: wanted.tenant.clone(),
        expires: clock::now_micros() / 1_000_000 + token::LIFETIME,
    };
    let signed = token::sign(&keys, &claims);
    if json {
        return terminal.json(
            &json!({
                "header": token::HEADER, "token": signed, "issuer": claims.issuer,
                "audience": claims.audience, "tenant": claims.tenant,
                "expires_unix": claims.expires,
            }),
            true,
        );
    }
    terminal.line(&signed)
}

/// Signing needs the private key alone; the public list is made from it.
fn keys(role: &str, own: &str) -> Result<Keys, Error> {
    if own.is_empty() {
        return Err(Error::usage(format!(
            "SKEIN_MESH_KEY is not set: it must hold the private key of {role}, as printed by \
             `skein mesh-keys`"
        )));
    }
    let seed = BASE64.decode(own).ok().and_then(|seed| <[u8; 32]>::try_from(seed).ok());
    let public = seed.map(|seed| SigningKey::from_bytes(&seed).verifying_key());
    let public = public.map(|key| BASE64.encode(key.as_bytes())).unwrap_or_default();
    Keys::parse(role, &Secret::new(own), &format!("{role}={public}"))
        .map_err(|_| Error::usage("SKEIN_MESH_KEY is not the base64 of 32 bytes"))
}
