//! What can go wrong with a model call, and what a caller may do about it.
//!
//! Invariants:
//! - Every failure of a provider has a stable reason; the table is [`Failure`].
//! - A key that the provider refuses is our fault, never the caller's:
//!   it must not look like the caller's own key being wrong.
//! - What a provider says is passed on to a certain length, and no further.

use mesh::error::{Kind, ServiceError};
use std::time::Duration;

/// No provider's sentence is longer, in bytes; a prompt that it quotes may be.
const LONGEST_MESSAGE: usize = 1_000;
/// Nor is the name of a field.
const LONGEST_PARAM: usize = 200;

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("{field}: {message}")]
    Invalid { field: String, message: String },
    #[error("{0}")]
    UnknownModel(String),
    /// The model is known but its files are not here.
    #[error("{0}")]
    NotInstalled(String),
    #[error("{provider}: {message}{}", said(*tries))]
    Provider {
        provider: String,
        failure: Failure,
        message: String,
        param: Option<String>,
        /// How often it was asked.
        tries: u32,
        hint: Hint,
    },
    /// More work for the embedded models than the queue holds.
    #[error("the embedded models have {0} requests waiting: try again shortly")]
    Busy(usize),
    #[error("run embedded model: {0}")]
    Local(String),
    /// A picture is wanted as a URL, and there is nowhere to put it.
    #[error(
        "a URL is wanted of a picture that comes as data: set BUCKET_NAME, AWS_ENDPOINT_URL_S3, \
         AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (`fly storage create` does), or ask for data"
    )]
    NoStore,
    #[error("store a picture: {0}")]
    Store(String),
}

/// What a provider says about asking for the same again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    pub again: Option<bool>,
    pub after: Option<Duration>,
}

/// Why a provider did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The key is none of the provider's.
    Unauthenticated,
    /// The key may not use this model.
    Forbidden,
    RateLimited {
        retry_after: Option<Duration>,
    },
    /// Nothing is left to spend; waiting does not help.
    Quota,
    BadRequest,
    /// The request is longer than the model reads.
    ContextLength,
    /// The provider's filter refused to answer.
    ContentFilter,
    NotFound,
    Unavailable,
    /// It has more to do than it can, and says so.
    Overloaded,
    /// No connection came about: nothing was sent.
    Unreachable,
    /// The connection broke before any answer came: what was sent may have
    /// been carried out.
    Reset,
    /// It answered with something that is not its dialect.
    Malformed,
    /// It goes on and on: nobody can hold it.
    TooLarge,
    /// The stream ended without a finish reason.
    Cut,
    ConnectTimeout,
    FirstTokenTimeout,
    IdleTimeout,
    TotalTimeout,
}

impl Failure {
    const fn row(self) -> (Kind, &'static str) {
        match self {
            Self::Unauthenticated => (Kind::FailedPrecondition, "PROVIDER_UNAUTHENTICATED"),
            Self::Forbidden => (Kind::FailedPrecondition, "PROVIDER_FORBIDDEN"),
            Self::RateLimited { retry_after } => {
                (Kind::RateLimited { retry_after }, "PROVIDER_RATE_LIMITED")
            }
            Self::Quota => (Kind::RateLimited { retry_after: None }, "PROVIDER_QUOTA"),
            Self::BadRequest => (Kind::InvalidArgument, "PROVIDER_BAD_REQUEST"),
            Self::ContextLength => (Kind::InvalidArgument, "CONTEXT_LENGTH_EXCEEDED"),
            Self::ContentFilter => (Kind::InvalidArgument, "CONTENT_FILTERED"),
            Self::NotFound => (Kind::NotFound, "PROVIDER_NOT_FOUND"),
            Self::Unavailable => (Kind::Unavailable, "PROVIDER_UNAVAILABLE"),
            Self::Overloaded => (Kind::Unavailable, "PROVIDER_OVERLOADED"),
            Self::Unreachable => (Kind::Unavailable, "PROVIDER_UNREACHABLE"),
            Self::Reset => (Kind::Unavailable, "CONNECTION_RESET"),
            Self::Malformed => (Kind::Unavailable, "PROVIDER_MALFORMED"),
            Self::TooLarge => (Kind::Unavailable, "PROVIDER_ANSWER_TOO_LARGE"),
            Self::Cut => (Kind::Unavailable, "STREAM_CUT"),
            Self::ConnectTimeout => (Kind::Unavailable, "CONNECT_TIMEOUT"),
            Self::FirstTokenTimeout => (Kind::Unavailable, "FIRST_TOKEN_TIMEOUT"),
            Self::IdleTimeout => (Kind::Unavailable, "IDLE_TIMEOUT"),
            Self::TotalTimeout => (Kind::DeadlineExceeded, "TOTAL_TIMEOUT"),
        }
    }

    /// The stable name that callers, metrics and logs know it by.
    pub const fn reason(self) -> &'static str {
        self.row().1
    }

    /// Whether the provider, or the way to it, is out of order: another request
    /// would fare no better.
    pub const fn is_outage(self) -> bool {
        matches!(
            self,
            Self::Unavailable
                | Self::Overloaded
                | Self::Unreachable
                | Self::Reset
                | Self::Malformed
                | Self::Cut
                | Self::ConnectTimeout
                | Self::FirstTokenTimeout
                | Self::IdleTimeout
        )
    }

    /// Whether this very request is at fault.
    pub const fn is_of_the_request(self) -> bool {
        matches!(
            self,
            Self::BadRequest | Self::ContextLength | Self::ContentFilter | Self::NotFound
        )
    }

    /// What a status line alone says; the body may only sharpen it.
    pub const fn of_status(status: u16, retry_after: Option<Duration>) -> Self {
        match status {
            401 => Self::Unauthenticated,
            403 => Self::Forbidden,
            402 => Self::Quota,
            404 => Self::NotFound,
            408 | 409 => Self::Unavailable,
            429 => Self::RateLimited { retry_after },
            400..=499 => Self::BadRequest,
            503 | 529 => Self::Overloaded,
            _ => Self::Unavailable,
        }
    }
}

impl Error {
    /// What a provider did, if it was one that failed.
    pub fn failure(&self) -> Option<Failure> {
        match self {
            Self::Provider { failure, .. } => Some(*failure),
            _ => None,
        }
    }

    /// Says how often the provider was asked.
    #[must_use]
    pub fn after(mut self, count: u32) -> Self {
        if let Self::Provider { tries, .. } = &mut self {
            *tries = count;
        }
        self
    }

    /// What the provider itself says about asking again.
    pub fn hint(&self) -> Hint {
        match self {
            Self::Provider { hint, .. } => *hint,
            _ => Hint::default(),
        }
    }

    #[must_use]
    pub fn hinted(mut self, said: Hint) -> Self {
        if let Self::Provider { hint, .. } = &mut self {
            *hint = said;
        }
        self
    }

    /// Says which field of the request the provider means.
    #[must_use]
    pub fn about(mut self, field: &str) -> Self {
        if let Self::Provider { param, .. } = &mut self {
            *param = Some(shortened(field.to_owned(), LONGEST_PARAM));
        }
        self
    }

    /// Whether the same was asked more than once, so that nobody above does.
    pub fn was_retried(&self) -> bool {
        matches!(self, Self::Provider { tries, .. } if *tries > 1)
    }

    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }

    pub fn provider(provider: &str, failure: Failure, message: impl Into<String>) -> Self {
        let (provider, message) = (provider.to_owned(), shortened(message.into(), LONGEST_MESSAGE));
        let (param, tries, hint) = (None, 1, Hint::default());
        Self::Provider { provider, failure, message, param, tries, hint }
    }
}

/// At most so many bytes of it, in whole characters.
fn shortened(mut text: String, longest: usize) -> String {
    if text.len() > longest {
        text.truncate(text.floor_char_boundary(longest));
        text.push('…');
    }
    text
}

fn said(tries: u32) -> String {
    if tries > 1 { format!(" (after {tries} tries)") } else { String::new() }
}

impl ServiceError for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid { .. } => Kind::InvalidArgument,
            Self::UnknownModel(_) => Kind::NotFound,
            Self::NotInstalled(_) => Kind::FailedPrecondition,
            Self::Provider { failure, .. } => failure.row().0,
            Self::Busy(_) => Kind::RateLimited { retry_after: Some(Duration::from_secs(1)) },
            Self::NoStore => Kind::FailedPrecondition,
            Self::Store(_) => Kind::Unavailable,
            Self::Local(_) => Kind::Internal,
        }
    }

    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Provider { failure, .. } => Some(failure.row().1),
            Self::UnknownModel(_) => Some("MODEL_NOT_FOUND"),
            Self::NotInstalled(_) => Some("MODEL_FILES_MISSING"),
            Self::Busy(_) => Some("LOCAL_QUEUE_FULL"),
            Self::NoStore => Some("OBJECT_STORE_MISSING"),
            Self::Store(_) => Some("OBJECT_STORE_FAILED"),
            Self::Invalid { .. } | Self::Local(_) => None,
        }
    }

    fn field(&self) -> Option<&str> {
        match self {
            Self::Invalid { field, .. } => Some(field),
            Self::UnknownModel(_) => Some("model"),
            Self::Provider { param, .. } => param.as_deref(),
            Self::NoStore => Some("delivery"),
            Self::NotInstalled(_) | Self::Busy(_) | Self::Local(_) | Self::Store(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_failure() {
        let wait = Some(Duration::from_secs(7));
        for (status, failure) in [
            (400, Failure::BadRequest),
            (401, Failure::Unauthenticated),
            (402, Failure::Quota),
            (403, Failure::Forbidden),
            (404, Failure::NotFound),
            (409, Failure::Unavailable),
            (413, Failure::BadRequest),
            (422, Failure::BadRequest),
            (429, Failure::RateLimited { retry_after: wait }),
            (500, Failure::Unavailable),
            (503, Failure::Overloaded),
            (529, Failure::Overloaded),
        ] {
            assert_eq!(Failure::of_status(status, wait), failure, "{status}");
        }
    }

    #[test]
    fn nobody_is_quoted_at_length() {
        let long = "雁".repeat(10_000);
        let error = Error::provider("lab", Failure::BadRequest, long.as_str()).about(&long);
        assert!(error.to_string().len() < 1_020 && error.to_string().ends_with("雁…"));
        assert!(error.field().unwrap().len() < 210);
        let short = Error::provider("lab", Failure::BadRequest, "no").about("seed");
        assert_eq!((short.to_string().as_str(), short.field()), ("lab: no", Some("seed")));
    }

    #[test]
    fn our_key_being_refused_is_not_the_callers_key_being_refused() {
        let error = Error::provider("openai", Failure::Unauthenticated, "refused");
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        assert_eq!(error.reason(), Some("PROVIDER_UNAUTHENTICATED"));
    }
}
