//! Replicate's errors: problem details.

use crate::{answer::Answer, limits::Left, reply::Failure};
use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use serde_json::json;

pub(crate) fn failure(failure: Failure) -> Answer {
    match failure {
        Failure::Status(status) => by_status(status),
        Failure::Quota | Failure::SpendLimit => problem(
            402,
            "Insufficient credit",
            "You have insufficient credit to run this model. Go to the billing page to add credit.",
        ),
        Failure::SlowDown => throttled(
            "Your rate limit for creating predictions is reduced to \
            6 requests per minute while you have less than $5.0 in credit. Your rate limit resets in ~9s.",
        ),
        Failure::ContextLength => {
            problem(422, "Input validation failed", "- input.prompt: too many tokens")
        }
        Failure::ContentFilter => problem(
            422,
            "Input validation failed",
            "The input or output was flagged as sensitive. Please try again with different inputs. (E005)",
        ),
    }
}

fn by_status(status: u16) -> Answer {
    let (title, detail) = match status {
        401 => ("Unauthenticated", "You did not pass a valid authentication token"),
        402 => ("Insufficient credit", "You have insufficient credit to run this model."),
        404 => ("Not found", "The requested resource could not be found."),
        422 => ("Input validation failed", "- input.prompt: prompt is required"),
        429 => return throttled("Request was throttled. Your rate limit resets in ~30s."),
        400..500 => ("Bad request", "The request cannot be processed"),
        _ => ("Server error", "Something went wrong on our side"),
    };
    problem(status, title, detail)
}

fn throttled(detail: &str) -> Answer {
    Answer::json(429, &json!({"detail": detail}))
}

pub(crate) fn refused(status: u16, why: &str) -> Answer {
    problem(status, "Bad request", why)
}

fn problem(status: u16, title: &str, detail: &str) -> Answer {
    let kind = format!("https://replicate.com/docs/errors#{status}");
    let body = json!({"type": kind, "title": title, "detail": detail, "status": status});
    Answer::json(status, &body)
}

/// An error in the middle of a stream.
pub(crate) fn event() -> Bytes {
    Bytes::from_static(b"event: error\nid: 1690212292:e\ndata: {\"detail\":\"overloaded\"}\n\n")
}

pub(crate) fn done() -> Bytes {
    Bytes::from_static(b"event: done\nid: 1690212292:d\ndata: {\"reason\":\"error\"}\n\n")
}

pub(crate) fn headers(left: Left) -> HeaderMap {
    let pairs = [
        ("ratelimit-limit", left.limit.into()),
        ("ratelimit-remaining", left.remaining.into()),
        ("ratelimit-reset", left.resets_in().as_secs().into()),
    ];
    pairs.into_iter().map(|(name, value)| (HeaderName::from_static(name), value)).collect()
}
