//! `skein mesh-keys`: the private key of each app and the public keys of all.
//!
//! `skein mesh-keys rotate` replaces one of them.
//!
//! Invariants:
//! - The keys are made here and kept nowhere: what is printed is all there is.

use crate::{
    args::{MeshKeys, MeshKeysVerb},
    errors::Error,
    terminal::Terminal,
};
use mesh::keys::{Generated, RotateError, Rotation, generate, rotate};
use serde_json::{Map, json};

const ROLES: [&str; 4] = ["gateway", "router", "model-proxy", "retrieval"];

pub(crate) fn run(wanted: &MeshKeys, json: bool, terminal: &mut Terminal) -> Result<(), Error> {
    if let Some(MeshKeysVerb::Rotate { role, peers, apps }) = &wanted.verb {
        let rotation = rotate(role, peers).map_err(|error| match error {
            RotateError::Random(_) => Error::failed(error.to_string()),
            _ => Error::usage(error.to_string()),
        })?;
        if json {
            return terminal.json(
                &json!({
                    "role": role, "secret": rotation.secret.expose(),
                    "peers_both": rotation.both, "peers_new": rotation.new,
                }),
                true,
            );
        }
        return print_rotation(role, &rotation, apps, terminal);
    }
    let mut roles: Vec<&str> = wanted.roles.iter().map(String::as_str).collect();
    if roles.is_empty() {
        roles = ROLES.to_vec();
    }
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if let Some(wrong) = roles.iter().find(|role| role.is_empty() || !role.chars().all(plain)) {
        return Err(Error::usage(format!("--role {wrong:?}: expected a-z, 0-9 and -")));
    }
    let made = generate(&roles)
        .map_err(|error| Error::failed(format!("no randomness from the system: {error}")))?;
    if json {
        let secrets: Map<_, _> =
            made.secrets.iter().map(|(role, key)| (role.clone(), key.expose().into())).collect();
        return terminal.json(&json!({ "secrets": secrets, "peers": made.peers }), true);
    }
    print(&made, &wanted.apps, terminal)
}

fn print(made: &Generated, apps: &str, terminal: &mut Terminal) -> Result<(), Error> {
    terminal.line("# private: each app gets its own and no other")?;
    for (role, key) in &made.secrets {
        terminal.line(&format!("# {role}\nSKEIN_MESH_KEY={}", key.expose()))?;
    }
    terminal.line("\n# public: the same for every app")?;
    terminal.line(&format!("SKEIN_MESH_PEERS='{}'", made.peers))?;
    terminal.line("\n# on Fly")?;
    for (role, key) in &made.secrets {
        terminal.line(&format!(
            "fly secrets set --stage -a {apps}-{role} SKEIN_MESH_KEY='{}' SKEIN_MESH_PEERS='{}'",
            key.expose(),
            made.peers
        ))?;
    }
    Ok(())
}

/// Each step is a rolling deploy, in which machines before and after it meet.
fn print_rotation(
    role: &str,
    rotation: &Rotation,
    apps: &str,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let roles: Vec<_> =
        rotation.new.split(';').filter_map(|entry| Some(entry.split_once('=')?.0.trim())).collect();
    let everywhere = |terminal: &mut Terminal, peers: &str| -> Result<(), Error> {
        for role in &roles {
            terminal.line(&format!(
                "fly secrets set --stage -a {apps}-{role} SKEIN_MESH_PEERS='{peers}'"
            ))?;
        }
        for role in &roles {
            terminal.line(&format!("fly secrets deploy -a {apps}-{role}"))?;
        }
        Ok(())
    };
    terminal.line(&format!("# a new key for {role}: finish each step before the next"))?;
    terminal.line("\n# 1. everybody accepts the new key beside the old")?;
    everywhere(terminal, &rotation.both)?;
    terminal.line(&format!("\n# 2. {role} signs with the new key"))?;
    terminal.line(&format!(
        "fly secrets set --stage -a {apps}-{role} SKEIN_MESH_KEY='{}'",
        rotation.secret.expose()
    ))?;
    terminal.line(&format!("fly secrets deploy -a {apps}-{role}"))?;
    terminal.line("\n# 3. nobody accepts the old key any more")?;
    everywhere(terminal, &rotation.new)
}
