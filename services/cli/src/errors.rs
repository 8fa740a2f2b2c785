//! What can go wrong, in the words of the person who has to act.
//!
//! Invariants:
//! - One table leads from a gRPC status, or from the reason of a run that
//!   failed, to the exit code; a stable reason says more than the status code.
//! - A message says what happened, to what, and what to do next.
//! - A key is never part of a message; where it came from is.

use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

pub(crate) const FAILED: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const NOT_ALLOWED: u8 = 3;
pub(crate) const UNAVAILABLE: u8 = 4;
pub(crate) const LIMIT: u8 = 5;
const INTERRUPTED: u8 = 130;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{message}")]
    Said { message: String, code: u8 },
    /// Nobody reads stdout any more.
    #[error("stdout was closed")]
    Closed,
    #[error("stopped")]
    Interrupted,
}

impl Error {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Said { message: message.into(), code: FAILED }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Said { message: message.into(), code: USAGE }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Said { code, .. } => *code,
            Self::Closed => 0,
            Self::Interrupted => INTERRUPTED,
        }
    }
}

/// The table.
pub(crate) fn exit_code(code: Code, reason: Option<&str>) -> u8 {
    let by_reason = reason.and_then(exit_code_of_reason);
    by_reason.unwrap_or(match code {
        Code::InvalidArgument => USAGE,
        Code::Unauthenticated | Code::PermissionDenied => NOT_ALLOWED,
        Code::Unavailable | Code::DeadlineExceeded => UNAVAILABLE,
        Code::ResourceExhausted => LIMIT,
        _ => FAILED,
    })
}

/// The reasons that name a class of their own, whatever the status code.
pub(crate) fn exit_code_of_reason(reason: &str) -> Option<u8> {
    match reason {
        "UNAUTHENTICATED" | "PERMISSION_DENIED" => Some(NOT_ALLOWED),
        "UNAVAILABLE" | "DEADLINE_EXCEEDED" | "NO_ENDPOINT" | "CONNECTION_LOST" => {
            Some(UNAVAILABLE)
        }
        "RATE_LIMITED" => Some(LIMIT),
        _ if reason.contains("BUDGET") || reason.contains("LIMIT_EXCEEDED") => Some(LIMIT),
        _ => None,
    }
}

/// The connection broke or was never made: nobody on the other side said this.
pub(crate) fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some() || is_from_an_edge(status)
}

/// An answer that is no gRPC at all: a proxy in front of the gateway found
/// nobody behind it. tonic tries to read its text as a message.
fn is_from_an_edge(status: &Status) -> bool {
    let said = status.message();
    ["502", "503", "504"].iter().any(|code| said.contains(&format!("with status: {code}")))
}

/// Our own clock ran out; tonic calls that cancelled.
pub(crate) fn is_timeout(status: &Status) -> bool {
    status.code() == Code::DeadlineExceeded
        || (status.code() == Code::Cancelled && is_transport(status))
}

pub(crate) fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}

/// What a failed call means to the person who typed the command.
pub(crate) fn of_status(status: &Status, what: &str, url: &str, key: &str) -> Error {
    let reason = status.get_details_error_info().map(|info| info.reason);
    let said = status.message();
    if is_timeout(status) {
        let message = format!("{what}: no answer from {url} in time; see `skein status`");
        return Error::Said { message, code: UNAVAILABLE };
    }
    if is_from_an_edge(status) {
        let message = format!(
            "{what}: nobody answers behind {url}; if the mesh is starting, try again in a moment, \
             else see `make up`"
        );
        return Error::Said { message, code: UNAVAILABLE };
    }
    if is_transport(status) {
        let cause = chain(status);
        let message = format!(
            "{what}: the connection to {url} broke ({cause}); is it a skein gateway, and is the \
             mesh up? try `make up`"
        );
        return Error::Said { message, code: UNAVAILABLE };
    }
    let message = match status.code() {
        Code::Unauthenticated => {
            format!("{what}: {url} does not accept the key from {key}: {said}")
        }
        Code::PermissionDenied => {
            format!("{what}: the key from {key} may not do this: {said}")
        }
        Code::Unavailable => {
            format!("{what}: {url} cannot serve this now: {said}; see `skein status`")
        }
        Code::ResourceExhausted => match retry_after(status) {
            Some(delay) => format!("{what}: {said}; try again in {:.1} s", delay.as_secs_f64()),
            None => format!("{what}: {said}"),
        },
        Code::Unimplemented => format!("{what}: {url} cannot do this yet: {said}"),
        _ => format!("{what}: {said}{}", fields(status)),
    };
    Error::Said { message, code: exit_code(status.code(), reason.as_deref()) }
}

/// The fields a server complains about, where its message does not name them.
fn fields(status: &Status) -> String {
    let Some(bad) = status.get_details_bad_request() else { return String::new() };
    let names: Vec<_> = bad.field_violations.into_iter().map(|violation| violation.field).collect();
    let unsaid: Vec<_> =
        names.into_iter().filter(|name| !status.message().contains(name)).collect();
    if unsaid.is_empty() { String::new() } else { format!(" (field {})", unsaid.join(", ")) }
}

/// The causes below `error`, each said once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut parts = Vec::<String>::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        cause = error.source();
    }
    if parts.is_empty() { error.to_string() } else { parts.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn a_reason_says_more_than_a_code() {
        assert_eq!(exit_code(Code::Internal, None), FAILED);
        assert_eq!(exit_code(Code::NotFound, None), FAILED);
        assert_eq!(exit_code(Code::InvalidArgument, None), USAGE);
        assert_eq!(exit_code(Code::PermissionDenied, None), NOT_ALLOWED);
        assert_eq!(exit_code(Code::DeadlineExceeded, None), UNAVAILABLE);
        assert_eq!(exit_code(Code::ResourceExhausted, None), LIMIT);
        assert_eq!(exit_code(Code::FailedPrecondition, Some("BUDGET_EXCEEDED")), LIMIT);
        assert_eq!(exit_code(Code::NotFound, Some("NO_SUCH_AGENT")), FAILED);
    }

    #[test]
    fn a_message_names_the_place_the_key_came_from_and_the_field() {
        let refused = Status::unauthenticated("unknown API key");
        let error = of_status(&refused, "ask", "http://x", "SKEIN_API_KEY");
        assert_eq!(error.exit_code(), NOT_ALLOWED);
        assert!(error.to_string().contains("SKEIN_API_KEY"), "{error}");
        let details = ErrorDetails::with_bad_request_violation("top_k", "must be positive");
        let bad = Status::with_error_details(Code::InvalidArgument, "must be positive", details);
        let error = of_status(&bad, "search", "http://x", "k");
        assert_eq!(error.to_string(), "search: must be positive (field top_k)");
    }
}
