//! What a caller is told about its limits, in OpenAI's headers and gRPC's details.
//!
//! Invariants:
//! - Every answer to a key with a limit of calls carries the three headers,
//!   refusals too; over gRPC they are metadata of the same names.

use super::Allowance;
use http::{HeaderMap, HeaderName, HeaderValue};
use mesh::error::DOMAIN;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");

/// Where a key stands after a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// 0: calls are not limited, there is nothing to tell.
    pub limit: u64,
    pub remaining: u64,
    /// Until the limit is whole again.
    pub reset: Duration,
}

impl Told {
    pub fn put(&self, headers: &mut HeaderMap) {
        if self.limit == 0 {
            return;
        }
        headers.insert(LIMIT, HeaderValue::from(self.limit));
        headers.insert(REMAINING, HeaderValue::from(self.remaining));
        if let Ok(reset) = HeaderValue::from_str(&spell(self.reset)) {
            headers.insert(RESET, reset);
        }
    }
}

/// As OpenAI spells it: `120ms`, `1.5s`, `6m0s`.
fn spell(span: Duration) -> String {
    let millis = span.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let seconds = match (millis % 60_000 / 1000, millis % 1000) {
        (whole, 0) => format!("{whole}s"),
        (whole, rest) => {
            format!("{}s", format!("{whole}.{rest:03}").trim_end_matches('0'))
        }
    };
    if millis < 60_000 { seconds } else { format!("{}m{seconds}", millis / 60_000) }
}

/// A call that was not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limited {
    pub what: What,
    pub allowance: Allowance,
    pub retry_after: Duration,
    pub told: Told,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Calls,
    Slots,
}

impl Limited {
    /// `subject` is the principal of the key.
    pub fn status(&self, subject: &str) -> Status {
        let Allowance { per_minute, concurrency } = self.allowance;
        let (reason, message) = match self.what {
            What::Calls => (
                "RATE_LIMITED",
                format!(
                    "rate limit reached: this API key may make {per_minute} requests per minute"
                ),
            ),
            What::Slots => (
                "CONCURRENCY_LIMITED",
                format!(
                    "concurrency limit reached: this API key may make {concurrency} requests at \
                     the same time"
                ),
            ),
        };
        let mut details = ErrorDetails::with_error_info(reason, DOMAIN, []);
        details.set_retry_info(Some(self.retry_after));
        details.add_quota_failure_violation(subject, message.as_str());
        Status::with_error_details(Code::ResourceExhausted, message, details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_spelled_as_openai_spells_them() {
        for (millis, text) in [
            (0, "0ms"),
            (120, "120ms"),
            (1000, "1s"),
            (1500, "1.5s"),
            (59_999, "59.999s"),
            (60_000, "1m0s"),
            (61_020, "1m1.02s"),
        ] {
            assert_eq!(spell(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn a_refusal_says_how_long_to_wait_and_which_quota_failed() {
        let limited = Limited {
            what: What::Slots,
            allowance: Allowance { per_minute: 0, concurrency: 3 },
            retry_after: Duration::from_secs(1),
            told: Told::default(),
        };
        let status = limited.status("key:abc");
        assert_eq!(mesh::error::retry_after(&status), Some(Duration::from_secs(1)));
        assert_eq!(mesh::error::reason(&status).as_deref(), Some("CONCURRENCY_LIMITED"));
        let failed = status.get_details_quota_failure().unwrap();
        assert_eq!(failed.violations[0].subject, "key:abc");
        let mut headers = HeaderMap::new();
        limited.told.put(&mut headers);
        assert!(headers.is_empty(), "calls are not limited");
    }
}
