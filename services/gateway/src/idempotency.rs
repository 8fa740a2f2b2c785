//! `Idempotency-Key`: a call that may be sent again and is made once.
//!
//! The key is claimed by one INSERT before the call ([`claims`]); only requests
//! that carry one pay for it. What the client is sent is kept as it was sent
//! ([`kept`]) and sent again ([`replay`]). A key belongs to an API key and a
//! route. The end of an answer waits for its being kept, so whoever has the
//! whole of it is answered the same the next time.
//!
//! Kept: successes, and refusals that sending again cannot mend (as the IETF's
//! draft has it). Not kept, so that a second try runs: failures (5xx, 408, 409,
//! 415, 429), streams that broke, clients that left.
//!
//! Invariants:
//! - Of any number of calls with one key at most one runs, on all gateways.
//! - A claim ends: by its answer, by its failure, or, when its owner died, with
//!   the deadline of its call.
//! - Another body under the same key is refused, whatever became of the first.
//! - Only hashes of keys and of requests are stored.

pub mod claims;
pub mod kept;
pub mod replay;

use crate::keys::Key;
use claims::{Claims, Found};
use http::{HeaderMap, HeaderName};
use kept::Ours;
use mesh::error::{self, DOMAIN};
use sha2::{Digest as _, Sha256};
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

pub const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
const LONGEST: usize = 255;
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the caller sent to be recognised by, if it did.
pub fn key_of(headers: &HeaderMap) -> Result<Option<&str>, Status> {
    let mut all = headers.get_all(&HEADER).iter();
    let Some(first) = all.next() else { return Ok(None) };
    let printable = |text: &&str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let text = first.to_str().ok().filter(printable);
    let text = text.filter(|text| (1..=LONGEST).contains(&text.len()));
    match (text, all.next()) {
        (Some(text), None) => Ok(Some(text)),
        _ => {
            let rule =
                format!("must be given once, with 1 to {LONGEST} printable ASCII characters");
            Err(error::invalid(HEADER.as_str(), rule))
        }
    }
}

/// A request as it is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    pub id: String,
    pub hash: Vec<u8>,
}

impl Fingerprint {
    pub fn of(key: &Key, route: &str, idempotency_key: &str, body: &[u8]) -> Self {
        let mut id = Sha256::new();
        for part in [&*key.tenant, &key.id, route, idempotency_key] {
            id.update((part.len() as u64).to_be_bytes());
            id.update(part);
        }
        Self { id: hex::encode(id.finalize()), hash: Sha256::digest(body).to_vec() }
    }
}

/// What becomes of a call with an idempotency key.
pub enum Claimed {
    /// It is ours to make.
    Run(Ours),
    /// It was made.
    Replay(claims::Answer),
}

pub async fn claim(
    claims: &Claims,
    fingerprint: Fingerprint,
    lapses: i64,
) -> Result<Claimed, Status> {
    // In a task of its own: if the client leaves meanwhile, the claim is dropped
    // in there, and thereby released.
    let claims = claims.clone();
    let claiming = tokio::spawn(async move {
        let id = fingerprint.id.clone();
        let found = claims.claim(fingerprint, lapses).await;
        let found = found.map_err(|error| error::to_status(&error))?;
        let Found::Claimed(owner) = found else { return Ok(Err(found)) };
        Ok::<_, Status>(Ok(Ours::new(claims, id, owner)))
    });
    let lost = || refused(Code::Unavailable, "UNAVAILABLE", "this gateway is stopping", None);
    let found = match claiming.await.map_err(|_| lost())?? {
        Ok(ours) => return Ok(Claimed::Run(ours)),
        Err(found) => found,
    };
    match found {
        Found::Claimed(_) => Err(lost()),
        Found::OtherBody => Err(refused(
            Code::InvalidArgument,
            "IDEMPOTENCY_KEY_REUSED",
            "this idempotency key was used for a request with another body: use a new one",
            None,
        )),
        Found::Running => Err(refused(
            Code::Aborted,
            "IDEMPOTENT_CALL_RUNNING",
            "a request with this idempotency key is still running: ask again later",
            Some(RETRY_AFTER),
        )),
        Found::NotKept => Err(refused(
            Code::FailedPrecondition,
            "IDEMPOTENT_ANSWER_NOT_KEPT",
            "the request with this idempotency key was answered, and the answer was too large to \
             be kept: it is not run again",
            None,
        )),
        Found::Done(answer) => Ok(Claimed::Replay(answer)),
    }
}

fn refused(code: Code, reason: &str, message: &str, retry: Option<Duration>) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, []);
    if retry.is_some() {
        details.set_retry_info(retry);
    }
    Status::with_error_details(code, message, details)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_key_is_one_short_line() {
        let mut headers = HeaderMap::new();
        assert_eq!(key_of(&headers).unwrap(), None);
        headers.insert(HEADER, HeaderValue::from_static("order 7"));
        assert_eq!(key_of(&headers).unwrap(), Some("order 7"));
        headers.append(HEADER, HeaderValue::from_static("order 8"));
        assert_eq!(key_of(&headers).unwrap_err().code(), Code::InvalidArgument);
        for wrong in [vec![], vec![b'x'; 256], vec![0xc3, 0xa4], b"a\tb".to_vec()] {
            headers.insert(HEADER, HeaderValue::from_bytes(&wrong).unwrap());
            assert!(key_of(&headers).is_err(), "{wrong:?}");
        }
    }
}
