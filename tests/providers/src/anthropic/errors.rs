//! Anthropic's errors, and the headers it puts on every answer.

use crate::{answer::Answer, limits::Left, reply::Failure, time};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

const TOKENS: u64 = 400_000;

pub(crate) fn failure(failure: Failure) -> Answer {
    match failure {
        Failure::Status(status) => by_status(status),
        Failure::Quota => {
            let message = "Your credit balance is too low to access the Anthropic API.";
            error(400, "invalid_request_error", message)
        }
        Failure::SpendLimit => {
            let message = "You have reached your specified API usage limits.";
            let mut body = body("rate_limit_error", message);
            body["error"]["details"] = json!({"error_code": "enforced_spend_limit_reached"});
            Answer::json(429, &body)
        }
        Failure::SlowDown => {
            error(429, "rate_limit_error", "Your traffic grew too fast (acceleration limit).")
        }
        Failure::ContextLength => {
            let message = "prompt is too long: 210000 tokens > 200000 maximum";
            error(400, "invalid_request_error", message)
        }
        Failure::ContentFilter => {
            let message = "Output blocked by content filtering policy";
            error(400, "invalid_request_error", message)
        }
    }
}

fn by_status(status: u16) -> Answer {
    let (kind, message) = match status {
        401 => ("authentication_error", "invalid x-api-key"),
        402 => ("billing_error", "There is an issue with your billing"),
        403 => ("permission_error", "Your API key has no permission for this"),
        404 => ("not_found_error", "model: not found"),
        413 => ("request_too_large", "Request exceeds the maximum size"),
        429 => ("rate_limit_error", "This request would exceed your organization's rate limit"),
        504 => ("timeout_error", "The request timed out"),
        529 => ("overloaded_error", "Overloaded"),
        400..500 => ("invalid_request_error", "temperature: this field is not supported"),
        _ => ("api_error", "Internal server error"),
    };
    error(status, kind, message)
}

pub(crate) fn refused(status: u16, why: &str) -> Answer {
    let kind = if status == 404 { "not_found_error" } else { "invalid_request_error" };
    error(status, kind, why)
}

fn error(status: u16, kind: &str, message: &str) -> Answer {
    Answer::json(status, &body(kind, message))
}

fn body(kind: &str, message: &str) -> Value {
    let error = json!({"type": kind, "message": message});
    json!({"type": "error", "error": error, "request_id": "req_fake"})
}

/// An error in the middle of a stream.
pub(crate) fn event() -> Bytes {
    let error = json!({"type": "overloaded_error", "message": "Overloaded"});
    let body = json!({"type": "error", "error": error});
    Bytes::from(format!("event: error\ndata: {body}\n\n"))
}

/// Remaining tokens are rounded to thousands, and a reset is a moment.
pub(crate) fn headers(request: u64, left: Left) -> HeaderMap {
    let reset = time::rfc3339(time::now() + left.resets_in());
    let tokens = (TOKENS, TOKENS);
    let kinds = [
        ("requests", (left.limit, left.remaining)),
        ("tokens", tokens),
        ("input-tokens", tokens),
        ("output-tokens", tokens),
    ];
    let limits = kinds.into_iter().flat_map(|(kind, (limit, remaining))| {
        let name = |what: &str| format!("anthropic-ratelimit-{kind}-{what}");
        [
            (name("limit"), limit.to_string()),
            (name("remaining"), remaining.to_string()),
            (name("reset"), reset.clone()),
        ]
    });
    let organization = "00000000-0000-0000-0000-000000000000".to_owned();
    let own = [
        ("request-id".to_owned(), format!("req_{request:024}")),
        ("anthropic-organization-id".to_owned(), organization),
    ];
    let all = own.into_iter().chain(limits);
    all.filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?))).collect()
}
