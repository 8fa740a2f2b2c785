//! What callers send, checked once where it arrives.
//!
//! Invariant: a wrong field is refused with its name before anything is written.

use crate::agents::Agents;
use crate::error::Error;
use crate::fold::KINDS;
use crate::store::Cursor;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mesh::error::{invalid, unimplemented};
use skein_proto::agent::v1::{CancelMode, CreateRunRequest, RunLimits};
use skein_proto::model::v1::{ContentPart, Role, content_part::Part};
use std::collections::HashMap;
use tonic::Status;

const METADATA_ENTRIES: usize = 16;
const METADATA_BYTES: usize = 512;
const INPUT_MESSAGES: usize = 1000;

pub fn create_run(request: &CreateRunRequest, agents: &Agents) -> Result<(), Status> {
    if request.request_id.len() > 128 || request.request_id.contains(char::is_control) {
        return Err(invalid("request_id", "must be at most 128 bytes without control characters"));
    }
    if !request.thread_id.is_empty() {
        id("thread_id", &request.thread_id)?;
    }
    if agents.get(&request.agent).is_none() {
        let name = request.agent.chars().take(100).collect();
        return Err(Error::AgentNotFound { name, known: agents.names() }.into());
    }
    if request.input.is_empty() || request.input.len() > INPUT_MESSAGES {
        return Err(invalid("input", "must be 1 to 1000 messages"));
    }
    for (at, message) in request.input.iter().enumerate() {
        if message.role() == Role::Unspecified {
            return Err(invalid(&format!("input[{at}].role"), "is required"));
        }
        let blank = |part: &ContentPart| match &part.part {
            Some(Part::Text(text)) => text.trim().is_empty(),
            Some(Part::Image(_) | Part::Audio(_)) => false,
            None => true,
        };
        let says_nothing = message.content.iter().all(blank)
            && message.tool_calls.is_empty()
            && message.refusal.is_empty();
        if says_nothing {
            return Err(invalid(&format!("input[{at}].content"), "must not be empty"));
        }
    }
    if let Some(empty) = request.collections.iter().position(String::is_empty) {
        return Err(invalid(&format!("collections[{empty}]"), "must not be empty"));
    }
    metadata(&request.metadata)?;
    request.limits.as_ref().map_or(Ok(()), limits)
}

/// How to cancel. Forgetting a run's turn comes with durable runs; until then
/// it is refused rather than taken for an interrupt.
pub(crate) fn cancel_mode(mode: i32) -> Result<(), Status> {
    match CancelMode::try_from(mode) {
        Ok(CancelMode::Unspecified | CancelMode::Interrupt) => Ok(()),
        Ok(CancelMode::Rollback) => {
            Err(unimplemented("cancelling with rollback is not served by this release"))
        }
        Err(_) => Err(invalid("mode", "is not a mode of the contract")),
    }
}

fn limits(limits: &RunLimits) -> Result<(), Status> {
    for (field, value) in [
        ("limits.timeout_ms", limits.timeout_ms),
        ("limits.max_output_tokens", limits.max_output_tokens),
        ("limits.max_nano_usd", limits.max_nano_usd),
        ("limits.max_steps", i64::from(limits.max_steps)),
        ("limits.top_k", i64::from(limits.top_k)),
    ] {
        if value < 0 {
            return Err(invalid(field, format!("must not be negative, is {value}")));
        }
    }
    Ok(())
}

pub fn metadata(metadata: &HashMap<String, String>) -> Result<(), Status> {
    let long = |text: &String| text.len() > METADATA_BYTES;
    if metadata.len() > METADATA_ENTRIES
        || metadata.iter().any(|(key, value)| long(key) || long(value))
    {
        return Err(invalid("metadata", "must be at most 16 entries of at most 512 bytes"));
    }
    Ok(())
}

/// An id of ours: anything else cannot be stored under it.
pub fn id(field: &str, id: &str) -> Result<(), Status> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if (1..=128).contains(&id.len()) && id.bytes().all(plain) {
        return Ok(());
    }
    Err(invalid(field, "must be 1 to 128 characters of a-z, 0-9, _ and -"))
}

pub fn page_size(size: i32) -> Result<i64, Status> {
    match size {
        0 => Ok(100),
        1..=1000 => Ok(i64::from(size)),
        _ => Err(invalid("page_size", format!("must be 1 to 1000, is {size}"))),
    }
}

pub fn kinds(kinds: &[String]) -> Result<(), Status> {
    match kinds.iter().position(|kind| !KINDS.contains(&kind.as_str())) {
        None => Ok(()),
        Some(at) => {
            Err(invalid(&format!("kinds[{at}]"), format!("must be one of {}", KINDS.join(", "))))
        }
    }
}

pub fn cursor(token: &str) -> Result<Cursor, Status> {
    if token.is_empty() {
        return Ok(Cursor::default());
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let parsed = text.as_deref().and_then(|text| text.split_once(' ')).and_then(|(age, id)| {
        self::id("page_token", id).ok()?;
        Some(Cursor { created_at: age.parse().ok()?, id: id.to_owned() })
    });
    parsed.ok_or_else(|| invalid("page_token", "is not one that was given out here"))
}

pub fn page_token(cursor: Option<Cursor>) -> String {
    cursor.map_or_else(String::new, |cursor| {
        URL_SAFE_NO_PAD.encode(format!("{} {}", cursor.created_at, cursor.id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::text;

    type Change = fn(&mut CreateRunRequest);

    fn field(change: impl FnOnce(&mut CreateRunRequest)) -> Option<String> {
        let input = vec![text(Role::User, "hello".to_owned())];
        let mut request = CreateRunRequest { input, ..CreateRunRequest::default() };
        change(&mut request);
        let refused = create_run(&request, &Agents::default()).err()?;
        Some(mesh::error::field(&refused).unwrap_or_else(|| refused.message().to_owned()))
    }

    #[test]
    fn a_wrong_field_is_named() {
        assert_eq!(field(|_| ()), None);
        let cases: [(Change, &str); 8] = [
            (|run| run.input.clear(), "input"),
            (|run| run.input[0].role = 0, "input[0].role"),
            (|run| run.input[0].content.clear(), "input[0].content"),
            (|run| run.request_id = "x".repeat(129), "request_id"),
            (|run| run.thread_id = "../x".to_owned(), "thread_id"),
            (|run| run.collections = vec![String::new()], "collections[0]"),
            (
                |run| {
                    run.limits = Some(RunLimits { max_output_tokens: -1, ..RunLimits::default() });
                },
                "limits.max_output_tokens",
            ),
            (
                |run| run.agent = "nobody".to_owned(),
                "agent \"nobody\" does not exist; there are: default",
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(field(change).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_page_token_leads_back_to_its_place() {
        let place = Cursor { created_at: 17, id: "thr_us_1".to_owned() };
        assert_eq!(cursor(&page_token(Some(place.clone()))).unwrap(), place);
        assert_eq!(cursor("").unwrap(), Cursor::default());
        for token in ["x", "AAAA", "\u{0}"] {
            assert!(cursor(token).is_err());
        }
    }
}
