//! OpenAI's errors, and the headers it puts on every answer.

use crate::{answer::Answer, limits::Left, reply::Failure, time};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

const TOKENS: u64 = 2_000_000;

pub(crate) fn failure(failure: Failure) -> Answer {
    match failure {
        Failure::Status(status) => by_status(status),
        Failure::Quota | Failure::SpendLimit => error(
            429,
            "insufficient_quota",
            Some("insufficient_quota"),
            "You exceeded your current quota, please check your plan and billing details.",
        ),
        Failure::SlowDown => {
            let message = "Your traffic grew too fast. Slow down.";
            error(429, "rate_limit_error", Some("slow_down"), message)
        }
        Failure::ContextLength => {
            let message = "This model's maximum context length is 128000 tokens. However, your \
                           messages resulted in 130000 tokens. Please reduce the length of the messages.";
            let mut body = body("invalid_request_error", Some("context_length_exceeded"), message);
            body["error"]["param"] = json!("messages");
            Answer::json(400, &body)
        }
        Failure::ContentFilter => {
            let message = "Your request was rejected as a result of our safety system.";
            error(400, "invalid_request_error", Some("content_policy_violation"), message)
        }
    }
}

fn by_status(status: u16) -> Answer {
    let (kind, code, message) = match status {
        400 => ("invalid_request_error", Some("unsupported_parameter"), "Unsupported parameter"),
        401 => ("invalid_request_error", Some("invalid_api_key"), "Incorrect API key provided"),
        403 => ("invalid_request_error", Some("unsupported_country"), "Country not supported"),
        404 => ("invalid_request_error", Some("model_not_found"), "The model does not exist"),
        409 => ("invalid_request_error", None, "The resource was changed by another request"),
        429 => ("rate_limit_error", Some("rate_limit_exceeded"), "Rate limit reached"),
        503 => {
            ("service_unavailable_error", Some("server_is_overloaded"), "The server is overloaded")
        }
        402..500 => ("invalid_request_error", None, "The request cannot be processed"),
        _ => ("server_error", None, "The server had an error"),
    };
    let mut body = body(kind, code, message);
    if code == Some("unsupported_parameter") {
        body["error"]["param"] = json!("temperature");
    }
    Answer::json(status, &body)
}

/// A request that is wrong in `param`.
pub(super) fn bad(param: &str, code: Option<&str>, message: &str) -> Answer {
    let mut body = body("invalid_request_error", code, message);
    body["error"]["param"] = json!(param);
    Answer::json(400, &body)
}

pub(crate) fn refused(status: u16, why: &str) -> Answer {
    error(status, "invalid_request_error", None, why)
}

fn error(status: u16, kind: &str, code: Option<&str>, message: &str) -> Answer {
    Answer::json(status, &body(kind, code, message))
}

fn body(kind: &str, code: Option<&str>, message: &str) -> Value {
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

/// An error in the middle of a stream.
pub(crate) fn event() -> Bytes {
    let body = body("server_error", None, "overloaded");
    Bytes::from(format!("data: {body}\n\n"))
}

pub(crate) fn headers(request: u64, left: Left) -> HeaderMap {
    let text = |text: String| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    let reset = text(time::go(left.resets_in()));
    let fixed = HeaderValue::from_static;
    let pairs = [
        ("x-request-id", text(format!("req_{request:024}"))),
        ("openai-organization", fixed("org-fake")),
        ("openai-processing-ms", fixed("1")),
        ("openai-version", fixed("2020-10-01")),
        ("x-ratelimit-limit-requests", left.limit.into()),
        ("x-ratelimit-remaining-requests", left.remaining.into()),
        ("x-ratelimit-reset-requests", reset.clone()),
        ("x-ratelimit-limit-tokens", TOKENS.into()),
        ("x-ratelimit-remaining-tokens", TOKENS.into()),
        ("x-ratelimit-reset-tokens", reset),
    ];
    pairs.into_iter().map(|(name, value)| (HeaderName::from_static(name), value)).collect()
}
