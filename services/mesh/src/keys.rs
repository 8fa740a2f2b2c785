//! The Ed25519 keys of the mesh: each app holds its own private key and the
//! public keys of all.
//!
//! 6PN is encrypted, but anybody in the organisation can call. A service that
//! is broken into can speak for itself only, never for another: unlike with a
//! shared secret, knowing how to check a signature does not let it make one.
//!
//! Invariants:
//! - Two public keys per role are valid, so that a key is rotated without a
//!   moment in which anybody is refused.
//! - A private key is never printed.

use crate::config::Secret;
use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};
use ed25519_dalek::{Signature, Signer as _, SigningKey, Verifier as _, VerifyingKey};
use std::{collections::BTreeMap, fmt};

/// Own private key, everybody's public keys.
pub struct Keys {
    role: String,
    own: SigningKey,
    peers: BTreeMap<String, Vec<VerifyingKey>>,
}

/// What is wrong with the two variables.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("SKEIN_MESH_KEY is not the base64 of 32 bytes; make one with `skein mesh-keys`")]
    Private,
    #[error(
        "SKEIN_MESH_PEERS: {0:?} is not `role=<base64 public key>[,<second key>]`; \
         make it with `skein mesh-keys`"
    )]
    Public(String),
    #[error("SKEIN_MESH_PEERS has no key for {0}, or not the one that belongs to SKEIN_MESH_KEY")]
    NotOurs(String),
}

impl Keys {
    /// `peers` is `gateway=<key>[,<key>];router=<key>;…`, keys in base64.
    pub fn parse(role: &str, own: &Secret, peers: &str) -> Result<Self, KeyError> {
        let seed = BASE64.decode(own.expose()).ok().and_then(|seed| seed.try_into().ok());
        let own = SigningKey::from_bytes(&seed.ok_or(KeyError::Private)?);
        let mut all = BTreeMap::new();
        for entry in peers.split(';').map(str::trim).filter(|entry| !entry.is_empty()) {
            let wrong = || KeyError::Public(entry.to_owned());
            let (name, keys) = entry.split_once('=').ok_or_else(wrong)?;
            let keys: Option<Vec<_>> = keys.split(',').map(public).collect();
            all.insert(name.trim().to_owned(), keys.ok_or_else(wrong)?);
        }
        let ours = all.get(role).is_some_and(|keys| keys.contains(&own.verifying_key()));
        if !ours {
            return Err(KeyError::NotOurs(role.to_owned()));
        }
        Ok(Self { role: role.to_owned(), own, peers: all })
    }

    /// The role whose private key this is.
    pub fn role(&self) -> &str {
        &self.role
    }

    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.own.sign(message).to_bytes()
    }

    /// Whether one of the keys of `role` made `signature`.
    pub fn verify(&self, role: &str, message: &[u8], signature: &[u8]) -> bool {
        let Ok(signature) = Signature::from_slice(signature) else { return false };
        let keys = self.peers.get(role).map_or(&[][..], Vec::as_slice);
        keys.iter().any(|key| key.verify(message, &signature).is_ok())
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("role", &self.role).finish_non_exhaustive()
    }
}

fn public(text: &str) -> Option<VerifyingKey> {
    let bytes: [u8; 32] = BASE64.decode(text.trim()).ok()?.try_into().ok()?;
    VerifyingKey::from_bytes(&bytes).ok()
}

/// A fresh set of keys for a mesh.
pub struct Generated {
    /// `SKEIN_MESH_KEY` by role.
    pub secrets: BTreeMap<String, Secret>,
    /// `SKEIN_MESH_PEERS`, the same for every app.
    pub peers: String,
}

impl Generated {
    /// The keys of one role.
    pub fn keys(&self, role: &str) -> Result<Keys, KeyError> {
        let own = self.secrets.get(role).ok_or_else(|| KeyError::NotOurs(role.to_owned()))?;
        Keys::parse(role, own, &self.peers)
    }
}

/// Makes a key pair for each role.
pub fn generate(roles: &[&str]) -> Result<Generated, getrandom::Error> {
    let (mut secrets, mut peers) = (BTreeMap::new(), Vec::new());
    for role in roles {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        let public = SigningKey::from_bytes(&seed).verifying_key();
        peers.push(format!("{role}={}", BASE64.encode(public.as_bytes())));
        secrets.insert((*role).to_owned(), Secret::new(BASE64.encode(seed)));
    }
    Ok(Generated { secrets, peers: peers.join(";") })
}

/// What replaces the key of one role, and by which steps nobody is refused in
/// between: first `both` everywhere, then `secret` for the role, then `new`
/// everywhere.
pub struct Rotation {
    /// `SKEIN_MESH_KEY` of the role.
    pub secret: Secret,
    /// `SKEIN_MESH_PEERS` with the new public key beside the old.
    pub both: String,
    /// `SKEIN_MESH_PEERS` with the new public key alone.
    pub new: String,
}

/// Why a key cannot be replaced now.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    #[error(transparent)]
    Peers(#[from] KeyError),
    #[error("SKEIN_MESH_PEERS has no key for {0}")]
    Unknown(String),
    #[error(
        "SKEIN_MESH_PEERS has {1} keys for {0}: finish the rotation that was begun, that is, \
         leave only the one in use"
    )]
    Unfinished(String, usize),
    #[error("no randomness from the system: {0}")]
    Random(#[from] getrandom::Error),
}

/// Makes a new key for `role`; `peers` is what every app has now.
pub fn rotate(role: &str, peers: &str) -> Result<Rotation, RotateError> {
    let made = generate(&[role])?;
    let fresh = made.peers.split_once('=').map_or("", |(_, key)| key).to_owned();
    let (mut both, mut new, mut found) = (Vec::new(), Vec::new(), false);
    for entry in peers.split(';').map(str::trim).filter(|entry| !entry.is_empty()) {
        let wrong = || KeyError::Public(entry.to_owned());
        let (name, keys) = entry.split_once('=').ok_or_else(wrong)?;
        let keys: Vec<_> = keys.split(',').map(str::trim).collect();
        if keys.iter().any(|key| public(key).is_none()) {
            return Err(wrong().into());
        }
        if name.trim() != role {
            both.push(entry.to_owned());
            new.push(entry.to_owned());
            continue;
        }
        let [old] = keys[..] else {
            return Err(RotateError::Unfinished(role.to_owned(), keys.len()));
        };
        found = true;
        both.push(format!("{role}={old},{fresh}"));
        new.push(format!("{role}={fresh}"));
    }
    if !found {
        return Err(RotateError::Unknown(role.to_owned()));
    }
    let secret = made.secrets.into_values().next().ok_or(KeyError::Private)?;
    Ok(Rotation { secret, both: both.join(";"), new: new.join(";") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_signs_for_itself_alone() {
        let made = generate(&["gateway", "router"]).unwrap();
        let (gateway, router) = (made.keys("gateway").unwrap(), made.keys("router").unwrap());
        let signature = gateway.sign(b"hello");
        assert!(router.verify("gateway", b"hello", &signature));
        assert!(!router.verify("router", b"hello", &signature));
        assert!(!router.verify("gateway", b"hullo", &signature));
        assert!(!router.verify("stranger", b"hello", &signature));
    }

    #[test]
    fn the_old_key_stays_valid_while_rotating() {
        let (old, new) = (generate(&["gateway"]).unwrap(), generate(&["gateway"]).unwrap());
        let both = format!("{},{}", new.peers, old.peers.trim_start_matches("gateway="));
        let keys = Keys::parse("gateway", &new.secrets["gateway"], &both).unwrap();
        let signature = old.keys("gateway").unwrap().sign(b"x");
        assert!(keys.verify("gateway", b"x", &signature));
    }

    #[test]
    fn in_each_step_of_a_rotation_everybody_understands_everybody() {
        let made = generate(&["gateway", "router"]).unwrap();
        let Rotation { secret, both, new } = rotate("router", &made.peers).unwrap();
        let old = &made.secrets["router"];
        // Steps are rolled out machine by machine: neighbours of two steps meet.
        let steps = [(old, &made.peers), (old, &both), (&secret, &both), (&secret, &new)];
        for pair in steps.windows(2) {
            for (signing, checking) in [(pair[0], pair[1]), (pair[1], pair[0])] {
                let router = Keys::parse("router", signing.0, signing.1).unwrap();
                let gateway = Keys::parse("gateway", &made.secrets["gateway"], checking.1).unwrap();
                assert!(gateway.verify("router", b"x", &router.sign(b"x")));
            }
        }
        let after = Keys::parse("gateway", &made.secrets["gateway"], &new).unwrap();
        let before = made.keys("router").unwrap();
        assert!(!after.verify("router", b"x", &before.sign(b"x")), "the old key is worth nothing");
    }

    #[test]
    fn a_rotation_that_cannot_be_is_refused() {
        let made = generate(&["gateway", "router"]).unwrap();
        let Rotation { both, .. } = rotate("router", &made.peers).unwrap();
        assert!(matches!(rotate("router", &both), Err(RotateError::Unfinished(_, 2))));
        assert!(matches!(rotate("tool", &made.peers), Err(RotateError::Unknown(_))));
        assert!(matches!(rotate("router", "router=garbage"), Err(RotateError::Peers(_))));
    }

    #[test]
    fn wrong_keys_say_what_to_do_and_never_show_the_key() {
        let made = generate(&["gateway"]).unwrap();
        let parse = |own: &str, peers: &str| {
            Keys::parse("gateway", &Secret::new(own), peers).unwrap_err().to_string()
        };
        assert!(parse("hunter2", &made.peers).contains("skein mesh-keys"));
        assert!(!parse("hunter2", &made.peers).contains("hunter2"));
        assert!(parse(made.secrets["gateway"].expose(), "gateway").contains("\"gateway\""));
        let other = generate(&["gateway"]).unwrap();
        assert!(parse(made.secrets["gateway"].expose(), &other.peers).contains("no key for"));
    }
}
