//! The one table from a failure to OpenAI's `{"error": {...}}` and its status.
//!
//! Invariants:
//! - Clients branch on status, `type` and `code`; a stable reason of our own
//!   that OpenAI has no word for travels as `code` in lower case.
//! - What a private service says about our own credentials towards it is our
//!   fault, never reported as the client's 401.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use mesh::error::{self as rich, Kind, ServiceError};
use serde_json::{Value, json};
use std::time::Duration;
use tonic::{Code, Status};

/// A refusal on the HTTP surface.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub status: StatusCode,
    pub kind: &'static str,
    pub code: Option<Box<str>>,
    pub param: Option<Box<str>>,
    pub message: Box<str>,
    pub retry_after: Option<Duration>,
    pub allow: Option<&'static str>,
}

const INVALID: &str = "invalid_request_error";

/// By gRPC status: HTTP status, `type`, `code`.
const fn row(code: Code) -> (u16, &'static str, Option<&'static str>) {
    match code {
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => (400, INVALID, None),
        Code::PermissionDenied => (403, INVALID, Some("insufficient_scope")),
        Code::NotFound => (404, INVALID, None),
        Code::AlreadyExists | Code::Aborted => (409, INVALID, None),
        Code::ResourceExhausted => (429, "rate_limit_error", Some("rate_limit_exceeded")),
        Code::Cancelled => (499, "request_cancelled", Some("cancelled")),
        Code::Unimplemented => (501, INVALID, Some("unimplemented")),
        Code::Unavailable => (503, "service_unavailable_error", Some("unavailable")),
        Code::DeadlineExceeded => (504, "timeout_error", Some("deadline_exceeded")),
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss | Code::Unauthenticated => {
            (500, "server_error", Some("server_error"))
        }
    }
}

/// Reasons that need another row than their status gives, or OpenAI's word.
fn by_reason(reason: &str) -> Option<(u16, &'static str, &'static str)> {
    Some(match reason {
        "MODEL_NOT_FOUND" | "PROVIDER_NOT_FOUND" => (404, INVALID, "model_not_found"),
        "CONTEXT_LENGTH_EXCEEDED" => (400, INVALID, "context_length_exceeded"),
        "CONTENT_FILTERED" => (400, INVALID, "content_filter"),
        "MESSAGE_TOO_LARGE" => (413, INVALID, "request_too_large"),
        "IDEMPOTENT_CALL_RUNNING" => (409, INVALID, "idempotent_call_running"),
        "IDEMPOTENCY_KEY_REUSED" => (422, INVALID, "idempotency_key_reused"),
        // Not 409: clients try that again by themselves.
        "IDEMPOTENT_ANSWER_NOT_KEPT" => (410, INVALID, "idempotent_answer_not_kept"),
        "CLIENT_TOO_SLOW" => (408, INVALID, "request_timeout"),
        "ANSWER_TOO_LARGE" => (502, "server_error", "answer_too_large"),
        // Nothing that waiting would mend.
        "PROVIDER_QUOTA" | "BUDGET_EXCEEDED" => (429, "insufficient_quota", "insufficient_quota"),
        // The machine's limit, not the caller's.
        mesh::load::OVERLOADED => (503, "service_unavailable_error", "overloaded"),
        // The operator's key, not the client's.
        "PROVIDER_UNAUTHENTICATED" => (500, "server_error", "provider_unauthenticated"),
        _ => return None,
    })
}

impl Refusal {
    pub fn new(status: StatusCode, kind: &'static str, code: &str, message: String) -> Self {
        let (code, message) = (Some(code.into()), message.into());
        Self { status, kind, code, param: None, message, retry_after: None, allow: None }
    }

    /// A request field that cannot be right; `param` is its path.
    pub fn invalid(param: impl Into<String>, code: &str, message: impl Into<String>) -> Self {
        let refusal = Self::new(StatusCode::BAD_REQUEST, INVALID, code, message.into());
        Self { param: Some(param.into().into()), ..refusal }
    }

    pub fn bad_json(error: &serde_json::Error) -> Self {
        let message = format!("the body is not valid JSON: {error}");
        Self::new(StatusCode::BAD_REQUEST, INVALID, "invalid_json", message)
    }

    pub fn too_many_headers(most: usize) -> Self {
        let message = format!("the request has more headers than this gateway's limit of {most}");
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Self::new(status, INVALID, "too_many_headers", message)
    }

    pub fn bad_path(path: &str) -> Self {
        let message = format!("{path} is not UTF-8 when its %-escapes are decoded");
        Self::new(StatusCode::BAD_REQUEST, INVALID, "invalid_path", message)
    }

    pub fn unknown_route(method: &http::Method, path: &str) -> Self {
        let message = format!(
            "unknown route {method} {path}; there are POST /v1/chat/completions, \
             POST /v1/embeddings, POST /v1/images/generations and GET /v1/models"
        );
        Self::new(StatusCode::NOT_FOUND, INVALID, "unknown_url", message)
    }

    pub fn wrong_method(method: &http::Method, path: &str, allow: &'static str) -> Self {
        let message = format!("{path} takes {allow}, not {method}");
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self { allow: Some(allow), ..Self::new(status, INVALID, "method_not_allowed", message) }
    }

    pub fn too_large(limit: u64) -> Self {
        let limit = mesh::config::Size(limit);
        let message = format!("the body is larger than this gateway's limit of {limit}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID, "request_too_large", message)
    }

    pub fn media_type(found: &str) -> Self {
        let message = format!("content-type must be application/json, is {found:?}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID, "unsupported_media_type", message)
    }

    pub fn no_model(model: &str) -> Self {
        let message = format!("the model {model:?} does not exist or is not served here");
        let refusal = Self::new(StatusCode::NOT_FOUND, INVALID, "model_not_found", message);
        Self { param: Some("model".into()), ..refusal }
    }

    /// What a call into the mesh was answered with.
    pub fn from_status(status: &Status) -> Self {
        let reason = rich::reason(status);
        let (number, kind, code) = row(status.code());
        let named = reason.as_deref().and_then(by_reason);
        let (number, kind, code) =
            named.map_or((number, kind, code), |(number, kind, code)| (number, kind, Some(code)));
        let own = || match status.code() {
            Code::InvalidArgument | Code::FailedPrecondition | Code::NotFound => {
                reason.as_deref().map(|reason| reason.to_lowercase().into())
            }
            _ => None,
        };
        let message = match status.code() {
            Code::Unauthenticated => {
                "the mesh refused the gateway's own token: check SKEIN_MESH_PEERS on every app"
            }
            _ if status.message().is_empty() => "the call failed without a message",
            _ => status.message(),
        };
        Self {
            status: StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            kind,
            code: code.map(Into::into).or_else(own),
            param: match rich::field(status) {
                Some(field) => Some(param_of(&field).into()),
                // OpenAI's clients are told which field named it.
                None if code == Some("model_not_found") => Some("model".into()),
                None => None,
            },
            message: message.into(),
            retry_after: rich::retry_after(status),
            allow: None,
        }
    }

    pub fn of(error: &impl ServiceError) -> Self {
        let refusal = Self::from_status(&rich::to_status(error));
        match error.kind() {
            Kind::Unauthenticated => Self {
                status: StatusCode::UNAUTHORIZED,
                kind: INVALID,
                code: Some("invalid_api_key".into()),
                message: error.to_string().into(),
                ..refusal
            },
            _ => refusal,
        }
    }

    pub fn body(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }})
    }
}

/// The client wrote OpenAI's field names, not ours.
fn param_of(field: &str) -> &str {
    match field {
        "inputs" => "input",
        "delivery" => "response_format",
        other => other.strip_prefix("sampling.").unwrap_or(other),
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body())).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"skein\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(delay) = self.retry_after {
            // Whole seconds, rounded up: OpenAI's clients read nothing finer here.
            let seconds = delay.as_millis().div_ceil(1000).max(1);
            let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_the_body_its_clients_expect() {
        for (code, status, kind) in [
            (Code::InvalidArgument, 400, "invalid_request_error"),
            (Code::PermissionDenied, 403, "invalid_request_error"),
            (Code::NotFound, 404, "invalid_request_error"),
            (Code::ResourceExhausted, 429, "rate_limit_error"),
            (Code::Cancelled, 499, "request_cancelled"),
            (Code::Internal, 500, "server_error"),
            (Code::Unauthenticated, 500, "server_error"),
            (Code::Unavailable, 503, "service_unavailable_error"),
            (Code::DeadlineExceeded, 504, "timeout_error"),
        ] {
            let refusal = Refusal::from_status(&Status::new(code, "no"));
            assert_eq!((refusal.status.as_u16(), refusal.kind), (status, kind), "{code:?}");
        }
    }

    #[test]
    fn a_reason_and_a_field_survive_in_openais_words() {
        let status =
            rich::status(Kind::NotFound, Some("MODEL_NOT_FOUND"), Some("model"), "no".into());
        let refusal = Refusal::from_status(&status);
        assert_eq!(
            refusal.body(),
            json!({"error": {"message": "no", "type": "invalid_request_error", "param": "model",
                "code": "model_not_found"}})
        );
        let status = rich::invalid("sampling.max_tokens", "must be at least 1");
        assert_eq!(Refusal::from_status(&status).param.as_deref(), Some("max_tokens"));
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds_rounded_up() {
        let kind = Kind::RateLimited { retry_after: Some(Duration::from_millis(1200)) };
        let status = rich::status(kind, None, None, "slow down".into());
        let response = Refusal::from_status(&status).into_response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["retry-after"]),
            (429, &HeaderValue::from_static("2"))
        );
    }
}
