//! What goes wrong in this dialect: error bodies, error objects in streams,
//! and what is no answer at all.
//!
//! Invariants:
//! - The status line decides; words may only sharpen what it says, so that a
//!   page of HTML changes nothing and is never quoted.
//! - Spent credit is no rate limit: nothing is won by asking again. Nor is a
//!   request that is too large for the limit, or for the credit that is left:
//!   that is the request's own fault, and a smaller one may do.

use crate::error::{Error, Failure};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

/// How long a provider that says "slow down", and not for how long, is left.
const SLOW_DOWN: Duration = Duration::from_secs(2);

/// Codes and types, in the words of all vendors.
const QUOTA: [&str; 11] = [
    "insufficient_quota",
    "credit_balance_exhausted",
    "billing_hard_limit_reached",
    "billing_not_active",
    "spend_limit_reached",
    "usage_limit_reached",
    "insufficient_balance",
    "insufficient_credits",
    "exceeded_current_quota_error", // Moonshot
    "enforced_spend_limit_reached",
    "1113", // Z.ai: the account has nothing left
];
const FILTERED: [&str; 8] = [
    "content_filter",
    "content_policy_violation",
    "moderation_blocked",
    "ResponsibleAIPolicyViolation",
    "data_inspection_failed",
    "invalid_prompt",
    "content_filtered",
    "1301", // Z.ai
];
const TOO_LONG: [&str; 3] =
    ["context_length_exceeded", "model_context_window_exceeded", "context_window_exceeded"];
const LIMITED: [&str; 6] = [
    "rate_limit_exceeded",
    "rate_limit_error",
    "rate_limit_reached_error",
    "too_many_requests",
    "slow_down",
    "RESOURCE_EXHAUSTED",
];
const OVERLOADED: [&str; 5] = [
    "server_is_overloaded",
    "service_unavailable_error",
    "engine_overloaded_error",
    "overloaded_error",
    "insufficient_system_resource",
];
const BAD: [&str; 4] =
    ["invalid_request_error", "BadRequestError", "unsupported_parameter", "unknown_parameter"];
/// What messages say where no code does.
const SAYS_TOO_LONG: [&str; 7] = [
    "maximum context length",
    "max context length",
    "context length of",
    "context window",
    "prompt is too long",
    "maximum prompt length",
    "reduce the length of the messages",
];
/// More at once than a whole minute's limit: no wait helps.
const SAYS_NEVER: [&str; 1] = ["request too large"];
/// What is left pays for a shorter answer.
const SAYS_AFFORDABLE: [&str; 2] = ["fewer max_tokens", "can only afford"];
const SAYS_FILTERED: [&str; 2] = ["content management policy", "content exists risk"];

/// Who speaks, for the errors made of what it says.
#[derive(Debug)]
pub(super) struct Voice {
    pub(super) name: Arc<str>,
    /// Where its key comes from.
    pub(super) variable: &'static str,
}

impl Voice {
    pub(super) fn error(&self, failure: Failure, message: impl Into<String>) -> Error {
        Error::provider(&self.name, failure, message)
    }

    pub(super) fn malformed(&self, message: impl Into<String>) -> Error {
        self.error(Failure::Malformed, message)
    }

    pub(super) fn parse(&self, body: &[u8]) -> Result<Value, Error> {
        serde_json::from_slice(body)
            .map_err(|error| self.malformed(format!("the answer is not JSON: {error}")))
    }

    /// Of the body of an answer whose status says `failure`.
    pub(super) fn refusal(&self, failure: Failure, body: &[u8]) -> Error {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        self.sharpened(failure, &Said::of(&body))
    }

    /// Of an error object where a chunk or an answer should be.
    pub(super) fn refusal_inside(&self, body: &Value) -> Error {
        let said = Said::of(body);
        let status = said.status.and_then(|status| u16::try_from(status).ok());
        let status = status.filter(|status| (400..600).contains(status));
        let failure = if said.is(&LIMITED) {
            Failure::RateLimited { retry_after: None }
        } else if said.is(&BAD) {
            Failure::BadRequest
        } else if said.is(&OVERLOADED) {
            Failure::Overloaded
        } else {
            status.map_or(Failure::Unavailable, |status| Failure::of_status(status, None))
        };
        self.sharpened(failure, &said)
    }

    fn sharpened(&self, failure: Failure, said: &Said<'_>) -> Error {
        let failure = said.sharpen(failure);
        let message = match failure {
            // The provider's text may repeat a part of the key.
            Failure::Unauthenticated => {
                format!("the provider refuses our key: check {}", self.variable)
            }
            _ if said.message.is_empty() => {
                "the provider answered with an error and no message".to_owned()
            }
            _ => said.message.to_owned(),
        };
        let error = self.error(failure, message);
        match said.param {
            Some(param) => error.about(param),
            None => error,
        }
    }
}

/// What an error body says, in whichever of its shapes.
struct Said<'a> {
    codes: [&'a str; 4],
    status: Option<u64>,
    message: &'a str,
    param: Option<&'a str>,
}

impl<'a> Said<'a> {
    /// `{"error": {…}}`, `{"error": "…"}`, `{"message": …}`, `{"detail": …}`,
    /// a list of one of them.
    fn of(body: &'a Value) -> Self {
        let body = if body[0].is_object() { &body[0] } else { body };
        let error = if body["error"].is_object() { &body["error"] } else { body };
        let text = |value: &'a Value| value.as_str().filter(|text| !text.is_empty());
        // FastAPI's: `detail` is a text, or a list of what is wrong where; Mistral
        // puts it into `message`.
        let detail = match &error["detail"] {
            Value::Null => &error["message"]["detail"],
            detail => detail,
        };
        let messages = [&error["message"], &body["error"], detail, &detail[0]["msg"], body];
        let place = detail[0]["loc"].as_array().and_then(|place| place.last());
        let words =
            [&error["code"], &error["type"], &error["status"], &error["innererror"]["code"]];
        let numbers = [&error["status"], &error["code"], &body["status"]].into_iter();
        let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
        Self {
            codes: words.map(|word| word.as_str().unwrap_or_default()),
            status: numbers.filter_map(number).next(),
            message: messages.into_iter().find_map(text).unwrap_or_default(),
            param: text(&error["param"]).or_else(|| place?.as_str()),
        }
    }

    fn is(&self, known: &[&str]) -> bool {
        self.codes.iter().any(|code| known.contains(code))
    }

    fn says(&self, known: &[&str]) -> bool {
        let message = self.message.to_ascii_lowercase();
        known.iter().any(|words| message.contains(words))
    }

    fn sharpen(&self, failure: Failure) -> Failure {
        let bad = matches!(failure, Failure::BadRequest);
        match failure {
            Failure::Quota if self.says(&SAYS_AFFORDABLE) => Failure::BadRequest,
            _ if self.is(&QUOTA) => Failure::Quota,
            Failure::RateLimited { .. } if self.says(&SAYS_NEVER) => Failure::ContextLength,
            _ if self.is(&TOO_LONG) || (bad && self.says(&SAYS_TOO_LONG)) => Failure::ContextLength,
            _ if self.is(&FILTERED) || (bad && self.says(&SAYS_FILTERED)) => Failure::ContentFilter,
            Failure::RateLimited { .. } | Failure::Unavailable if self.is(&OVERLOADED) => {
                Failure::Overloaded
            }
            Failure::RateLimited { retry_after: None } if self.is(&["slow_down"]) => {
                Failure::RateLimited { retry_after: Some(SLOW_DOWN) }
            }
            other => other,
        }
    }
}

#[cfg(test)]
#[path = "refusal_tests.rs"]
mod tests;
