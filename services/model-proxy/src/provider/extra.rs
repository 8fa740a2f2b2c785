//! The caller's own fields of a dialect, on their way into a request, and
//! fields of an answer that may be anything.
//!
//! Invariant: what the caller adds never replaces a field of ours.

use crate::error::Error;
use serde_json::{Map, Value};

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
