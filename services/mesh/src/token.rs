//! The token that every internal call carries: who calls whom, for which
//! tenant, until when, signed by the caller's app.
//!
//! Form: base64url(claims) `.` base64url(signature), claims as protobuf would
//! be overkill: five lines of text, none of which may hold a line break.
//!
//! Invariants:
//! - A token is valid for one audience, for [`LIFETIME`], with [`LEEWAY`] for
//!   the lagging clock of a resumed machine.
//! - Signing and checking cost nothing measurable per call: a token is used
//!   again for half its life, and what was checked once is remembered.
//! - Why a token was refused is for the log; the caller learns only that.

use crate::{clock, keys::Keys};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Metadata name.
pub const HEADER: &str = "x-skein-token";
/// Seconds a token is valid.
pub const LIFETIME: i64 = 60;
/// Seconds two clocks may differ.
pub const LEEWAY: i64 = 30;
/// Distinct callers remembered; beyond that the memory starts afresh.
const REMEMBERED: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Role that signed.
    pub issuer: String,
    /// Role it is meant for.
    pub audience: String,
    /// Who asked at the edge: `key:<id>`, `run:<id>`, or a role acting for itself.
    pub principal: String,
    /// Whose data.
    pub tenant: String,
    /// Unix seconds.
    pub expires: i64,
}

/// Why a token was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("no token")]
    Missing,
    #[error("malformed token")]
    Malformed,
    #[error("signature of {0} does not verify")]
    Signature(String),
    #[error("token of {issuer} expired {seconds} s ago")]
    Expired { issuer: String, seconds: i64 },
    #[error("token of {0} claims to live longer than a token may")]
    Lifetime(String),
    #[error("token of {issuer} is for {audience}")]
    Audience { issuer: String, audience: String },
    #[error("issuer {0} is not expected here")]
    Issuer(String),
    #[error("token of {0} names no tenant")]
    Tenant(String),
}

impl Claims {
    fn encode(&self) -> String {
        let clean = |text: &str| text.replace('\n', " ");
        format!(
            "{}\n{}\n{}\n{}\n{}",
            clean(&self.issuer),
            clean(&self.audience),
            clean(&self.principal),
            clean(&self.tenant),
            self.expires
        )
    }

    fn decode(text: &str) -> Option<Self> {
        let mut lines = text.split('\n').map(str::to_owned);
        let mut next = || lines.next();
        let (issuer, audience, principal, tenant) = (next()?, next()?, next()?, next()?);
        let expires = next()?.parse().ok()?;
        Some(Self { issuer, audience, principal, tenant, expires })
    }
}

/// Signs `claims` with our own key, whatever issuer they name.
pub fn sign(keys: &Keys, claims: &Claims) -> String {
    let text = claims.encode();
    let signature = keys.sign(text.as_bytes());
    format!("{}.{}", BASE64.encode(text), BASE64.encode(signature))
}

/// Checks everything but the issuer list, at `now` in Unix seconds.
pub fn check(keys: &Keys, token: &str, now: i64) -> Result<Claims, Refused> {
    let (text, signature) = token.split_once('.').ok_or(Refused::Malformed)?;
    let text = BASE64.decode(text).map_err(|_| Refused::Malformed)?;
    let signature = BASE64.decode(signature).map_err(|_| Refused::Malformed)?;
    let claims = std::str::from_utf8(&text).ok().and_then(Claims::decode);
    let claims = claims.ok_or(Refused::Malformed)?;
    if !keys.verify(&claims.issuer, &text, &signature) {
        return Err(Refused::Signature(claims.issuer));
    }
    valid_now(keys, claims, now)
}

fn valid_now(keys: &Keys, claims: Claims, now: i64) -> Result<Claims, Refused> {
    if claims.audience != keys.role() {
        return Err(Refused::Audience { issuer: claims.issuer, audience: claims.audience });
    }
    // Saturating: the numbers are the issuer's, who may have been broken into.
    let late = now.saturating_sub(claims.expires);
    if late > LEEWAY {
        return Err(Refused::Expired { issuer: claims.issuer, seconds: late });
    }
    if claims.expires.saturating_sub(now) > LIFETIME + LEEWAY {
        return Err(Refused::Lifetime(claims.issuer));
    }
    Ok(claims)
}

/// Makes tokens and remembers them while they are fresh.
pub struct Issuer {
    keys: Arc<Keys>,
    fresh: Mutex<HashMap<For, Fresh>>,
}

/// Audience, principal, tenant.
type For = (String, String, String);
/// A token, and until when it is used again.
type Fresh = (Arc<str>, i64);

impl Issuer {
    pub fn new(keys: Arc<Keys>) -> Self {
        Self { keys, fresh: Mutex::default() }
    }

    /// A token for `audience` that is valid for at least half a lifetime.
    pub fn token(&self, audience: &str, principal: &str, tenant: &str) -> Arc<str> {
        let now = clock::now_seconds();
        let wanted = (audience.to_owned(), principal.to_owned(), tenant.to_owned());
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((token, until)) = fresh.get(&wanted)
            && now < *until
        {
            return Arc::clone(token);
        }
        let claims = Claims {
            issuer: self.keys.role().to_owned(),
            audience: audience.to_owned(),
            principal: principal.to_owned(),
            tenant: tenant.to_owned(),
            expires: now + LIFETIME,
        };
        let token: Arc<str> = sign(&self.keys, &claims).into();
        if fresh.len() >= REMEMBERED {
            fresh.clear();
        }
        fresh.insert(wanted, (Arc::clone(&token), now + LIFETIME / 2));
        token
    }
}

/// Checks tokens and remembers the good ones.
pub struct Checker {
    keys: Arc<Keys>,
    issuers: &'static [&'static str],
    good: Mutex<HashMap<String, Claims>>,
}

impl Checker {
    /// Accepts tokens of these roles only. An entry is `role`, or
    /// `role/package.Service/Method` for a role that may call nothing else; the
    /// questions between machines are open to all of them.
    pub fn new(keys: Arc<Keys>, issuers: &'static [&'static str]) -> Self {
        Self { keys, issuers, good: Mutex::default() }
    }

    /// Who calls `path`, if that may be called with this token.
    pub fn check(&self, token: Option<&str>, path: &str) -> Result<Claims, Refused> {
        let claims = self.verified(token.ok_or(Refused::Missing)?)?;
        if !self.opens(&claims.issuer, path) {
            return Err(Refused::Issuer(claims.issuer));
        }
        if claims.tenant.is_empty() && !is_of_no_tenant(path) {
            return Err(Refused::Tenant(claims.issuer));
        }
        Ok(claims)
    }

    fn verified(&self, token: &str) -> Result<Claims, Refused> {
        let now = clock::now_seconds();
        let known = {
            let good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
            good.get(token).cloned()
        };
        if let Some(claims) = known {
            return valid_now(&self.keys, claims, now);
        }
        let claims = check(&self.keys, token, now)?;
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if good.len() >= REMEMBERED {
            good.clear();
        }
        good.insert(token.to_owned(), claims.clone());
        Ok(claims)
    }

    fn opens(&self, issuer: &str, path: &str) -> bool {
        self.issuers.iter().any(|entry| match entry.strip_prefix(issuer) {
            Some("") => true,
            Some(only) if only.starts_with('/') => only == path || is_of_no_tenant(path),
            Some(_) | None => false,
        })
    }
}

/// Machines ask each other, and people look at the contract, for nobody's data.
fn is_of_no_tenant(path: &str) -> bool {
    path.starts_with("/skein.mesh.v1.PeerService/") || path.starts_with("/grpc.reflection.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys;

    fn mesh() -> (Arc<Keys>, Arc<Keys>) {
        let made = keys::generate(&["gateway", "router"]).unwrap();
        (Arc::new(made.keys("gateway").unwrap()), Arc::new(made.keys("router").unwrap()))
    }

    fn claims(expires: i64) -> Claims {
        let owned = str::to_owned;
        Claims {
            issuer: owned("gateway"),
            audience: owned("router"),
            principal: owned("key:abc"),
            tenant: owned("acme"),
            expires,
        }
    }

    #[test]
    fn a_token_says_who_and_for_whom() {
        let (gateway, router) = mesh();
        let token = Issuer::new(gateway).token("router", "key:abc", "acme");
        let claims = Checker::new(router, &["gateway"]).check(Some(&token), "/a.B/C").unwrap();
        assert_eq!((claims.tenant.as_str(), claims.principal.as_str()), ("acme", "key:abc"));
    }

    #[test]
    fn every_wrong_token_is_refused_for_its_own_reason() {
        let (gateway, router) = mesh();
        let at = |claims: &Claims, now| check(&router, &sign(&gateway, claims), now);
        assert!(at(&claims(100), 100 + LEEWAY).is_ok());
        assert!(matches!(at(&claims(100), 101 + LEEWAY), Err(Refused::Expired { .. })));
        assert!(matches!(at(&claims(i64::MIN), 1), Err(Refused::Expired { .. })));
        assert!(at(&claims(LIFETIME + LEEWAY), 0).is_ok());
        for for_ever in [LIFETIME + LEEWAY + 1, i64::MAX] {
            assert!(matches!(at(&claims(for_ever), 0), Err(Refused::Lifetime(_))));
        }
        let elsewhere = Claims { audience: "retrieval".to_owned(), ..claims(100) };
        assert!(matches!(at(&elsewhere, 0), Err(Refused::Audience { .. })));
        let forged = Claims { issuer: "router".to_owned(), ..claims(100) };
        assert!(matches!(at(&forged, 0), Err(Refused::Signature(_))));
        for garbage in ["", ".", "a.b", "....", "é.é"] {
            assert!(check(&router, garbage, 0).is_err(), "{garbage}");
        }
        let checker = Checker::new(Arc::clone(&router), &["retrieval"]);
        let token = sign(&gateway, &claims(clock::now_seconds() + 5));
        let refused = Err(Refused::Issuer("gateway".to_owned()));
        assert_eq!(checker.check(Some(&token), "/a.B/C"), refused);
        assert_eq!(checker.check(None, "/a.B/C"), Err(Refused::Missing));
    }

    #[test]
    fn an_issuer_reaches_only_what_is_opened_to_it() {
        let (gateway, router) = mesh();
        let checker = Checker::new(router, &["gateway/a.B/C"]);
        let token = Issuer::new(gateway).token("router", "key:abc", "acme");
        for (path, open) in [
            ("/a.B/C", true),
            ("/a.B/D", false),
            ("/a.B/CC", false),
            ("/skein.mesh.v1.PeerService/Status", true),
        ] {
            assert_eq!(checker.check(Some(&token), path).is_ok(), open, "{path}");
        }
    }

    #[test]
    fn a_call_for_no_tenant_reaches_nobodys_data() {
        let (gateway, router) = mesh();
        let checker = Checker::new(router, &["gateway"]);
        let token = Issuer::new(gateway).token("router", "gateway", "");
        let refused = Err(Refused::Tenant("gateway".to_owned()));
        assert_eq!(checker.check(Some(&token), "/a.B/C"), refused);
        assert!(checker.check(Some(&token), "/skein.mesh.v1.PeerService/Wake").is_ok());
    }

    #[test]
    fn a_line_break_cannot_smuggle_in_a_tenant() {
        let (gateway, router) = mesh();
        let sly = Claims { principal: "key:a\nvictim".to_owned(), ..claims(60) };
        let read = check(&router, &sign(&gateway, &sly), 0).unwrap();
        assert_eq!(read.tenant, "acme");
    }
}
