//! Calls that may be made again: how often and after how long.
//!
//! Invariants:
//! - Only a broken connection, UNAVAILABLE, and (where the caller can wait) a
//!   rate limit that names its end are tried again; five times at most.
//! - Waits are jittered, so that many clients do not come back at once.

use crate::errors;
use std::time::Duration;
use tonic::{Code, Status};

const TRIES: u32 = 5;
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);
/// A rate limit further away than this is an answer, not a wait.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnLimit {
    Fail,
    Wait,
}

/// `call` until it succeeds, fails for good, or was tried often enough.
pub(crate) async fn idempotent<T>(
    on_limit: OnLimit,
    mut call: impl AsyncFnMut() -> Result<tonic::Response<T>, Status>,
) -> Result<T, Status> {
    let mut tried = 0;
    loop {
        let status = match call().await {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) => status,
        };
        tried += 1;
        match delay(&status, tried, on_limit).filter(|_| tried < TRIES) {
            Some(delay) => tokio::time::sleep(delay).await,
            None => return Err(status),
        }
    }
}

/// The wait before try `tried + 1`; none if trying again cannot help.
fn delay(status: &Status, tried: u32, on_limit: OnLimit) -> Option<Duration> {
    if errors::is_timeout(status) {
        return None;
    }
    if errors::is_transport(status) || status.code() == Code::Unavailable {
        return Some(errors::retry_after(status).unwrap_or_else(|| backoff(tried)).min(LONGEST));
    }
    let limited = status.code() == Code::ResourceExhausted && on_limit == OnLimit::Wait;
    errors::retry_after(status).filter(|delay| limited && *delay <= PATIENCE)
}

pub(crate) fn backoff(tried: u32) -> Duration {
    let full = FIRST.saturating_mul(1 << tried.saturating_sub(1).min(5)).min(LONGEST);
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::{ErrorDetails, StatusExt as _};

    #[test]
    fn only_what_can_pass_is_tried_again() {
        let limited = |seconds| {
            let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(seconds)));
            Status::with_error_details(Code::ResourceExhausted, "slow down", details)
        };
        assert!(delay(&Status::unavailable("x"), 1, OnLimit::Fail).is_some());
        assert_eq!(delay(&Status::not_found("x"), 1, OnLimit::Wait), None);
        assert_eq!(delay(&Status::resource_exhausted("budget"), 1, OnLimit::Wait), None);
        assert_eq!(delay(&limited(3), 1, OnLimit::Fail), None);
        assert_eq!(delay(&limited(3), 1, OnLimit::Wait), Some(Duration::from_secs(3)));
        assert_eq!(delay(&limited(3600), 1, OnLimit::Wait), None);
    }

    #[test]
    fn waits_grow_to_a_bound() {
        assert!(backoff(1) <= FIRST && backoff(1) >= FIRST / 2);
        assert!(backoff(40) <= LONGEST && backoff(40) >= LONGEST / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn five_tries_and_no_more() {
        let mut calls = 0;
        let outcome = idempotent::<()>(OnLimit::Fail, async || {
            calls += 1;
            Err(Status::unavailable("down"))
        })
        .await;
        assert!(outcome.is_err());
        assert_eq!(calls, TRIES);
    }
}
