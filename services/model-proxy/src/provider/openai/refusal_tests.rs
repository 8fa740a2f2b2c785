//! What each shape of an error means.

use super::*;
use mesh::error::ServiceError as _;
use serde_json::json;

fn voice() -> Voice {
    Voice { name: "lab".into(), variable: "LAB_API_KEY" }
}

fn refused(status: u16, body: &str) -> (Failure, String) {
    let error = voice().refusal(Failure::of_status(status, None), body.as_bytes());
    (error.failure().unwrap(), error.to_string())
}

#[test]
fn words_sharpen_what_the_status_says() {
    use Failure::{BadRequest, ContentFilter, ContextLength, Overloaded, Quota, Unavailable};
    let limited = Failure::RateLimited { retry_after: None };
    let slower = Failure::RateLimited { retry_after: Some(SLOW_DOWN) };
    for (status, error, failure) in [
        (400, json!({"code": "context_length_exceeded", "message": "x"}), ContextLength),
        (
            400,
            json!({"message": "This model's maximum context length is 8192 tokens."}),
            ContextLength,
        ),
        (413, json!({"message": "Please reduce the length of the messages"}), ContextLength),
        (500, json!({"message": "the maximum context length of a sorrow"}), Unavailable),
        (400, json!({"code": "content_policy_violation", "message": "x"}), ContentFilter),
        (
            400,
            json!({"code": "content_filter", "status": 400, "param": "prompt",
            "message": "The response was filtered due to the prompt triggering Azure OpenAI's \
                content management policy.",
            "innererror": {"code": "ResponsibleAIPolicyViolation"}}),
            ContentFilter,
        ),
        (
            400,
            json!({"message": "Content Exists Risk", "type": "invalid_request_error"}),
            ContentFilter,
        ),
        (400, json!({"message": "nothing special"}), BadRequest),
        (429, json!({"code": "insufficient_quota"}), Quota),
        (429, json!({"type": "exceeded_current_quota_error"}), Quota),
        (403, json!({"code": "billing_not_active"}), Quota),
        (402, json!({"message": "Insufficient Balance"}), Quota),
        (
            402,
            json!({"code": 402, "message": "This request requires more credits, or fewer \
                max_tokens. You requested up to 64000 tokens, but can only afford 1200."}),
            BadRequest,
        ),
        (
            429,
            json!({"type": "tokens", "code": "rate_limit_exceeded", "message": "Request too \
                large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 40000."}),
            ContextLength,
        ),
        (429, json!({"code": "rate_limit_exceeded"}), limited),
        (429, json!({"type": "rate_limit_error", "code": "slow_down"}), slower),
        (429, json!({"type": "engine_overloaded_error"}), Overloaded),
        (
            500,
            json!({"type": "service_unavailable_error", "code": "server_is_overloaded"}),
            Overloaded,
        ),
        (500, json!({"type": "server_error"}), Unavailable),
    ] {
        let body = json!({"error": error}).to_string();
        assert_eq!(refused(status, &body).0, failure, "{status} {body}");
    }
}

#[test]
fn every_shape_of_an_error_is_read() {
    for (body, said, param) in [
        (json!({"error": {"message": "no", "param": "top_p"}}), "no", Some("top_p")),
        (json!({"error": "no"}), "no", None),
        (json!({"code": "Some requested entity was not found", "error": "no"}), "no", None),
        (json!({"object": "error", "message": "no", "type": "BadRequestError"}), "no", None),
        (json!({"message": {"detail": "no"}}), "no", None),
        (json!({"detail": "no"}), "no", None),
        (
            json!({"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "no"}]}),
            "no",
            Some("seed"),
        ),
        (json!([{"error": {"code": 400, "message": "no"}}]), "no", None),
        (json!("no"), "no", None),
        (json!({}), "the provider answered with an error and no message", None),
        (json!(7), "the provider answered with an error and no message", None),
    ] {
        let error = voice().refusal(Failure::BadRequest, body.to_string().as_bytes());
        assert_eq!(error.to_string(), format!("lab: {said}"), "{body}");
        assert_eq!(error.field(), param, "{body}");
    }
}

#[test]
fn nothing_is_quoted_that_nobody_should_read() {
    let page = "<html><body>secret-marker</body></html>";
    assert_eq!(refused(502, page).0, Failure::Unavailable);
    assert!(!refused(502, page).1.contains("marker"));
    let key = json!({"error": {"message": "Incorrect API key provided: sk-marker"}}).to_string();
    assert_eq!(refused(401, &key).1, "lab: the provider refuses our key: check LAB_API_KEY");
    let long = json!({"error": {"message": "雁".repeat(10_000)}}).to_string();
    assert!(refused(400, &long).1.len() < 1_100);
}

#[test]
fn an_error_inside_an_answer_has_no_status_line() {
    for (body, failure) in [
        (
            json!({"error": {"code": 429, "message": "x"}}),
            Failure::RateLimited { retry_after: None },
        ),
        (json!({"error": {"code": "503"}}), Failure::Overloaded),
        (json!({"error": {"type": "overloaded_error"}}), Failure::Overloaded),
        (json!({"error": {"code": "insufficient_quota"}}), Failure::Quota),
        (json!({"error": {"type": "invalid_request_error"}}), Failure::BadRequest),
        (json!({"error": {"code": "context_length_exceeded"}}), Failure::ContextLength),
        (json!({"error": "the engine died"}), Failure::Unavailable),
        (json!({"error": {"code": 200}}), Failure::Unavailable),
        (json!(null), Failure::Unavailable),
    ] {
        assert_eq!(voice().refusal_inside(&body).failure(), Some(failure), "{body}");
    }
}
