//! API keys: what they look like, what they may do, how one is recognised.
//!
//! A secret holds 256 random bits, so one round of SHA-256 is enough to store
//! it: nobody can guess the input, and nothing slow stands on the request path.
//!
//! Invariants:
//! - Only the hash of a secret is kept; it is compared in constant time.
//! - An unknown key and a wrong one get the same answer.
//! - A lookup reads a snapshot in memory, never the database.

use crate::limits::Allowance;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use mesh::error::{Kind, ServiceError};
use sha2::{Digest as _, Sha256};
use std::{collections::HashMap, sync::Arc};
use subtle::ConstantTimeEq as _;

/// Shortest secret that an operator may choose.
pub const SHORTEST: usize = 24;
const ID_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// What a key may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Model,
    Agent,
    Retrieval,
    Admin,
}

impl Scope {
    pub const ALL: [Self; 4] = [Self::Model, Self::Agent, Self::Retrieval, Self::Admin];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Agent => "agent",
            Self::Retrieval => "retrieval",
            Self::Admin => "admin",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

pub type Hash = [u8; 32];

/// A stored key: everything but the secret.
#[derive(Clone, Debug)]
pub struct Key {
    pub id: String,
    pub hash: Hash,
    pub name: String,
    pub tenant: Arc<str>,
    /// `key:<id>`: who is told to the other services.
    pub principal: Arc<str>,
    pub scopes: Vec<Scope>,
    pub allowance: Allowance,
    /// Microseconds since 1970, like the next two.
    pub created: i64,
    pub expires: Option<i64>,
    pub revoked: Option<i64>,
}

/// Why a call is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("no API key: send `authorization: Bearer <key>`")]
    Missing,
    #[error("this API key is not valid")]
    Unknown,
    #[error("this API key has expired")]
    Expired,
    #[error("this API key has been revoked")]
    Revoked,
    #[error("this API key lacks the scope {0:?}; create one that has it")]
    Scope(&'static str),
}

impl ServiceError for Denied {
    fn kind(&self) -> Kind {
        match self {
            Self::Scope(_) => Kind::PermissionDenied,
            Self::Missing | Self::Unknown | Self::Expired | Self::Revoked => Kind::Unauthenticated,
        }
    }

    fn reason(&self) -> Option<&'static str> {
        Some(match self {
            Self::Missing => "API_KEY_MISSING",
            Self::Unknown => "API_KEY_INVALID",
            Self::Expired => "API_KEY_EXPIRED",
            Self::Revoked => "API_KEY_REVOKED",
            Self::Scope(_) => "SCOPE_MISSING",
        })
    }
}

impl Key {
    fn is_good(&self, now: i64) -> Result<(), Denied> {
        if self.revoked.is_some() {
            return Err(Denied::Revoked);
        }
        if self.expires.is_some_and(|expires| expires <= now) {
            return Err(Denied::Expired);
        }
        Ok(())
    }

    pub fn allows(&self, scope: Scope) -> Result<(), Denied> {
        if self.scopes.contains(&scope) { Ok(()) } else { Err(Denied::Scope(scope.name())) }
    }
}

/// All keys, found by the first bytes of their hash.
#[derive(Debug, Default)]
pub struct Snapshot(HashMap<[u8; 8], Vec<Arc<Key>>>);

impl Snapshot {
    pub fn of(keys: Vec<Key>) -> Self {
        let mut all: HashMap<_, Vec<_>> = HashMap::with_capacity(keys.len());
        for key in keys {
            all.entry(first(&key.hash)).or_default().push(Arc::new(key));
        }
        Self(all)
    }

    /// The key that `secret` belongs to, if it is good at `now`.
    pub fn find(&self, secret: &str, now: i64) -> Result<Arc<Key>, Denied> {
        let hash = hash(secret);
        let near = self.0.get(&first(&hash)).map_or(&[][..], Vec::as_slice);
        let key = near.iter().find(|key| bool::from(key.hash.ct_eq(&hash)));
        let key = key.ok_or(Denied::Unknown)?;
        key.is_good(now).map(|()| Arc::clone(key))
    }

    /// Whether a key that was good still is.
    pub fn still(&self, key: &Key, now: i64) -> Result<(), Denied> {
        let near = self.0.get(&first(&key.hash)).map_or(&[][..], Vec::as_slice);
        let known = near.iter().find(|known| known.id == key.id);
        known.map_or(Err(Denied::Unknown), |known| known.is_good(now))
    }
}

fn first(hash: &Hash) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash[..8]);
    bytes
}

pub fn hash(secret: &str) -> Hash {
    Sha256::digest(secret.as_bytes()).into()
}

/// A new secret and the id inside it: `sk-skein-<id>-<secret>`. The id tells
/// people which key they hold.
pub fn generate() -> Result<(String, String), getrandom::Error> {
    let mut random = [0; 44];
    getrandom::fill(&mut random)?;
    let (id, secret) = random.split_at(12);
    let id: String =
        id.iter().map(|byte| char::from(ID_ALPHABET[usize::from(byte % 32)])).collect();
    let secret = format!("sk-skein-{id}-{}", BASE64.encode(secret));
    Ok((id, secret))
}

/// The id of a key whose secret an operator chose.
pub fn chosen_id(secret: &str) -> String {
    format!("boot{}", hex::encode(&hash(secret)[..4]))
}

/// The secret of an `authorization` header.
pub fn bearer(headers: &http::HeaderMap) -> Result<&str, Denied> {
    let value = headers.get(http::header::AUTHORIZATION).ok_or(Denied::Missing)?;
    let (scheme, secret) =
        value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Denied::Missing)?;
    let secret = secret.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || secret.is_empty() {
        return Err(Denied::Missing);
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(secret: &str) -> Key {
        Key {
            id: "abc".into(),
            hash: hash(secret),
            name: String::new(),
            tenant: "acme".into(),
            principal: "key:abc".into(),
            scopes: vec![Scope::Model],
            allowance: Allowance::default(),
            created: 0,
            expires: None,
            revoked: None,
        }
    }

    #[test]
    fn a_secret_has_its_form_and_is_never_the_same() {
        let (id, secret) = generate().unwrap();
        assert_eq!(id.len(), 12);
        assert_eq!(secret.len(), "sk-skein-".len() + 12 + 1 + 43);
        assert!(secret.starts_with(&format!("sk-skein-{id}-")));
        assert_ne!(secret, generate().unwrap().1);
    }

    #[test]
    fn only_a_good_key_is_found() {
        let good = key("good");
        let expired = Key { expires: Some(100), ..key("expired") };
        let revoked = Key { revoked: Some(1), ..key("revoked") };
        let snapshot = Snapshot::of(vec![good, expired, revoked]);
        assert_eq!(snapshot.find("good", 0).unwrap().id, "abc");
        assert!(snapshot.find("expired", 99).is_ok());
        assert_eq!(snapshot.find("expired", 100).unwrap_err(), Denied::Expired);
        assert_eq!(snapshot.find("revoked", 0).unwrap_err(), Denied::Revoked);
        assert_eq!(snapshot.find("goof", 0).unwrap_err(), Denied::Unknown);
        assert_eq!(snapshot.still(&key("good"), 0), Ok(()));
        assert_eq!(snapshot.still(&key("gone"), 0), Err(Denied::Unknown));
    }

    #[test]
    fn a_scope_is_needed() {
        assert_eq!(key("x").allows(Scope::Model), Ok(()));
        assert_eq!(key("x").allows(Scope::Admin), Err(Denied::Scope("admin")));
    }

    #[test]
    fn the_header_takes_one_form() {
        let of = |value: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert("authorization", value.parse().unwrap());
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(of("Bearer abc").as_deref(), Ok("abc"));
        assert_eq!(of("bearer abc").as_deref(), Ok("abc"));
        for wrong in ["abc", "Basic abc", "Bearer ", "Bearer"] {
            assert_eq!(of(wrong), Err(Denied::Missing), "{wrong}");
        }
    }
}
