//! The caller's own fields of a dialect, on their way into a request, and
//! fields of an answer that may be anything.
//!
//! Invariants:
//! - What the caller adds never replaces a field of ours.
//! - No count of a provider's is below zero, or so large that sums of them are
//!   no numbers any more.

use crate::error::Error;
use serde_json::{Map, Value};

/// No answer is longer: what says more is wrong.
const MOST_TOKENS: i64 = 1_000_000_000_000;

/// A count of tokens, if that is what it is.
pub(super) fn count(value: &Value) -> Option<i64> {
    value.as_i64().filter(|count| *count >= 0).map(|count| count.min(MOST_TOKENS))
}

/// Reads `extra_json`, which is empty or an object; `field` is its name.
pub(super) fn object(field: &str, text: &str) -> Result<Map<String, Value>, Error> {
    if text.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(text)
        .map_err(|error| Error::invalid(field, format!("is not a JSON object: {error}")))
}

/// Adds `extra` to `body`; the objects named in `shared` may hold fields of
/// ours and of the caller's side by side.
pub(super) fn merge(body: &mut Map<String, Value>, extra: Map<String, Value>, shared: &[&str]) {
    for (name, value) in extra {
        match (body.get_mut(&name), value) {
            (None, value) => drop(body.insert(name, value)),
            (Some(Value::Object(ours)), Value::Object(theirs))
                if shared.contains(&name.as_str()) =>
            {
                fill(ours, theirs);
            }
            (Some(_), _) => {}
        }
    }
}

/// Adds what is missing, at every depth.
fn fill(ours: &mut Map<String, Value>, theirs: Map<String, Value>) {
    for (name, value) in theirs {
        match (ours.get_mut(&name), value) {
            (None, value) => drop(ours.insert(name, value)),
            (Some(Value::Object(ours)), Value::Object(theirs)) => fill(ours, theirs),
            (Some(_), _) => {}
        }
    }
}

/// Takes a field out of what may be no object, where indexing would panic.
pub(super) fn take(value: &mut Value, name: &str) -> Value {
    value.get_mut(name).map(Value::take).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn counts_are_counts() {
        assert_eq!([json!(0), json!(7)].map(|value| count(&value)), [Some(0), Some(7)]);
        assert_eq!(count(&json!(i64::MAX)), Some(MOST_TOKENS));
        for none in [json!(-1), json!("7"), json!(1.5), json!(null), json!([1])] {
            assert_eq!(count(&none), None, "{none}");
        }
    }
}
