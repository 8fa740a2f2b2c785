//! What a provider says that the contract has no field for, on its way out.
//!
//! Invariants:
//! - It never replaces a field of ours.
//! - Pieces of a stream are joined as their kinds allow: lists grow, objects
//!   are joined inside, of anything else the last word holds.

use serde_json::{Map, Value};

/// Nothing and nonsense are an object of nothing.
pub(super) fn read(extra_json: &str) -> Map<String, Value> {
    if extra_json.is_empty() {
        return Map::new();
    }
    serde_json::from_str(extra_json).unwrap_or_default()
}

/// Takes an object out that is a member of another.
pub(super) fn inner(outer: &mut Map<String, Value>, name: &str) -> Map<String, Value> {
    match outer.shift_remove(name) {
        Some(Value::Object(inner)) => inner,
        _ => Map::new(),
    }
}

/// Adds the next piece.
pub(super) fn join(all: &mut Map<String, Value>, piece: Map<String, Value>) {
    for (name, value) in piece {
        match (all.get_mut(&name), value) {
            (Some(Value::Array(all)), Value::Array(more)) => all.extend(more),
            (Some(Value::Object(all)), Value::Object(more)) => join(all, more),
            (Some(_), Value::Null) => {}
            (_, value) => drop(all.insert(name, value)),
        }
    }
}

/// Adds what is not there yet, at every depth.
pub(super) fn fill(ours: &mut Map<String, Value>, theirs: Map<String, Value>) {
    for (name, value) in theirs {
        match (ours.get_mut(&name), value) {
            (None, value) => drop(ours.insert(name, value)),
            (Some(Value::Object(ours)), Value::Object(theirs)) => fill(ours, theirs),
            (Some(_), _) => {}
        }
    }
}
