//! The one place where failures become gRPC statuses.
//!
//! Invariants:
//! - Callers match on a stable reason (`google.rpc.ErrorInfo`), never on text.
//! - An internal error is logged here, once, with its causes, and hidden from
//!   the caller.

use std::{collections::HashMap, error::Error, time::Duration};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// `ErrorInfo.domain` of everything we answer.
pub const DOMAIN: &str = "skein";

/// What a caller may do about a failure; deliberately fewer than gRPC's codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    InvalidArgument,
    Unauthenticated,
    PermissionDenied,
    NotFound,
    AlreadyExists,
    FailedPrecondition,
    RateLimited { retry_after: Option<Duration> },
    DeadlineExceeded,
    Cancelled,
    Unavailable,
    Unimplemented,
    DataLoss,
    Internal,
}

impl Kind {
    /// The table: status code, and the reason when the error names none.
    const fn row(self) -> (Code, &'static str) {
        match self {
            Self::InvalidArgument => (Code::InvalidArgument, "INVALID_ARGUMENT"),
            Self::Unauthenticated => (Code::Unauthenticated, "UNAUTHENTICATED"),
            Self::PermissionDenied => (Code::PermissionDenied, "PERMISSION_DENIED"),
            Self::NotFound => (Code::NotFound, "NOT_FOUND"),
            Self::AlreadyExists => (Code::AlreadyExists, "ALREADY_EXISTS"),
            Self::FailedPrecondition => (Code::FailedPrecondition, "FAILED_PRECONDITION"),
            Self::RateLimited { .. } => (Code::ResourceExhausted, "RATE_LIMITED"),
            Self::DeadlineExceeded => (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
            Self::Cancelled => (Code::Cancelled, "CANCELLED"),
            Self::Unavailable => (Code::Unavailable, "UNAVAILABLE"),
            Self::Unimplemented => (Code::Unimplemented, "UNIMPLEMENTED"),
            Self::DataLoss => (Code::DataLoss, "DATA_LOSS"),
            Self::Internal => (Code::Internal, "INTERNAL"),
        }
    }
}

/// Every service's error enum says its kind; nothing else maps to a status.
pub trait ServiceError: Error + Send + Sync + 'static {
    fn kind(&self) -> Kind;
    /// A stable name for this very failure, in `SCREAMING_SNAKE_CASE`.
    fn reason(&self) -> Option<&'static str> {
        None
    }
    /// The request field that is wrong.
    fn field(&self) -> Option<&str> {
        None
    }
}

/// Logs the cause chain of an internal error once and hides it from the caller.
pub fn to_status(error: &impl ServiceError) -> Status {
    let kind = error.kind();
    let message = if kind == Kind::Internal {
        tracing::error!(error = error as &dyn Error, "internal error");
        "internal error".to_owned()
    } else {
        error.to_string()
    };
    status(kind, error.reason(), error.field(), message)
}

/// A request field that cannot be right: `INVALID_ARGUMENT` naming it.
pub fn invalid(field: &str, message: impl Into<String>) -> Status {
    let message = format!("{field}: {}", message.into());
    status(Kind::InvalidArgument, None, Some(field), message)
}

/// An RPC of the contract that this release does not serve, and why.
pub fn unimplemented(why: &str) -> Status {
    status(Kind::Unimplemented, None, None, why.to_owned())
}

/// A status of `kind` with rich details; the general form of the above.
pub fn status(
    kind: Kind,
    reason: Option<&'static str>,
    field: Option<&str>,
    message: String,
) -> Status {
    let (code, general) = kind.row();
    let mut details = ErrorDetails::with_error_info(reason.unwrap_or(general), DOMAIN, []);
    if let Some(field) = field {
        details.add_bad_request_violation(field, message.as_str());
    }
    if let Kind::RateLimited { retry_after: Some(delay) } = kind {
        details.set_retry_info(Some(delay));
    }
    Status::with_error_details(code, message, details)
}

/// Metadata of `ErrorInfo` on a status that a channel has already tried to
/// avoid on other machines: nobody above tries again.
const RETRIED: &str = "retried";

/// Marks `status` as one that other machines were tried for.
pub fn already_retried(status: &Status) -> Status {
    with_metadata(status, [(RETRIED, "true".to_owned())])
}

/// `status` with more in the metadata of its `ErrorInfo`.
pub fn with_metadata<const COUNT: usize>(status: &Status, more: [(&str, String); COUNT]) -> Status {
    let mut details = status.get_error_details();
    let known = details.error_info().map(|info| (info.reason.clone(), info.metadata.clone()));
    let (reason, mut metadata) =
        known.unwrap_or_else(|| ("UNAVAILABLE".to_owned(), HashMap::new()));
    metadata.extend(more.map(|(name, value)| (name.to_owned(), value)));
    details.set_error_info(reason, DOMAIN, metadata);
    Status::with_error_details(status.code(), status.message(), details)
}

/// What `status` carries under a name in the metadata of its `ErrorInfo`.
pub fn metadata(status: &Status, name: &str) -> Option<String> {
    status.get_details_error_info()?.metadata.remove(name)
}

/// Whether another hop has tried other machines before it sent `status`.
pub fn was_retried(status: &Status) -> bool {
    status.get_details_error_info().is_some_and(|info| info.metadata.contains_key(RETRIED))
}

/// The stable reason of a status, if it carries one.
pub fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

/// The request field a status complains about, if it names one.
pub fn field(status: &Status) -> Option<String> {
    let violations = status.get_details_bad_request()?.field_violations;
    violations.into_iter().next().map(|violation| violation.field)
}

/// How long the other side asks us to wait.
pub fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("connection to {0} refused")]
    struct Refused(&'static str);

    impl ServiceError for Refused {
        fn kind(&self) -> Kind {
            Kind::Internal
        }
    }

    #[test]
    fn an_internal_error_keeps_its_words_from_the_caller() {
        let status = to_status(&Refused("10.0.0.1"));
        assert_eq!((status.code(), status.message()), (Code::Internal, "internal error"));
        assert_eq!(reason(&status).as_deref(), Some("INTERNAL"));
    }

    #[test]
    fn a_bad_field_is_named() {
        let status = invalid("sampling.max_tokens", "must be at least 1, is -5");
        assert_eq!(field(&status).as_deref(), Some("sampling.max_tokens"));
        assert_eq!(status.message(), "sampling.max_tokens: must be at least 1, is -5");
    }

    #[test]
    fn a_retried_status_keeps_what_it_said() {
        let wait = Duration::from_millis(1500);
        let kind = Kind::RateLimited { retry_after: Some(wait) };
        let shed = status(kind, Some("OVERLOADED"), None, "busy".to_owned());
        assert!(!was_retried(&shed));
        let marked = already_retried(&shed);
        assert!(was_retried(&marked));
        assert_eq!((marked.code(), marked.message()), (shed.code(), "busy"));
        assert_eq!(reason(&marked).as_deref(), Some("OVERLOADED"));
        assert_eq!(retry_after(&marked), Some(wait));
        let told = with_metadata(&marked, [("call_id", "c1".to_owned())]);
        assert!(was_retried(&told), "what it carried it still carries");
        assert_eq!(metadata(&told, "call_id").as_deref(), Some("c1"));
        assert_eq!((reason(&told), retry_after(&told)), (reason(&shed), Some(wait)));
        assert_eq!(metadata(&shed, "call_id"), None);
    }

    #[test]
    fn a_limit_says_how_long_to_wait() {
        let wait = Duration::from_millis(1500);
        let kind = Kind::RateLimited { retry_after: Some(wait) };
        let limited = status(kind, None, None, "too fast".to_owned());
        assert_eq!(retry_after(&limited), Some(wait));
    }
}
