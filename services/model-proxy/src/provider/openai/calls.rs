//! The tool calls of one choice, joined however a provider cuts and numbers
//! their pieces.
//!
//! Invariants:
//! - Our indexes are dense and in order; a call's id and name come once.
//! - Every call has an id, because nobody could answer one without.

use crate::provider::{
    arguments::{self, Arguments},
    extra::take,
};
use serde_json::{Map, Value};
use skein_proto::model::v1::ToolCallPiece;

/// More than any model makes in one answer.
const MOST: usize = 1_024;

#[derive(Default)]
pub(super) struct Calls(Vec<Call>);

/// A call under way; its place in the list is the index that we give it.
struct Call {
    /// The provider's number for it, where it gives any.
    index: Option<u64>,
    id: String,
    named: bool,
    arguments: Arguments,
}

impl Calls {
    /// `None` if there are more than anybody can mean.
    pub(super) fn piece(&mut self, call: &mut Value) -> Option<ToolCallPiece> {
        let index = call["index"].as_u64();
        let (id, name) = (word(&call["id"]), word(&call["function"]["name"]));
        let mut function = call.get_mut("function");
        let arguments = match function.as_mut().map(|it| take(it, "arguments")).unwrap_or_default()
        {
            Value::Null => String::new(),
            Value::String(text) => text,
            object => object.to_string(),
        };
        let known = self.known(index, &id, &name);
        let (at, id) = match known {
            Some(at) => (at, String::new()),
            None if self.0.len() == MOST => return None,
            None => {
                let at = self.0.len();
                let id = if id.is_empty() { format!("call_{at}") } else { id };
                let mut own = Arguments::default();
                // A call of another kind has no arguments; all of it is extra.
                if call["type"].as_str().is_some_and(|kind| kind != "function") {
                    own.push("{}");
                }
                self.0.push(Call { index, id: id.clone(), named: false, arguments: own });
                (at, id)
            }
        };
        let call_of_ours = &mut self.0[at];
        // Some repeat the name with every piece, or give it late.
        let name = if call_of_ours.named { String::new() } else { name };
        call_of_ours.named |= !name.is_empty();
        call_of_ours.arguments.push(&arguments);
        let extra_json = extra(call);
        Some(ToolCallPiece { index: position(at), id, name, arguments, extra_json })
    }

    /// Which of the calls a piece belongs to, if it begins none.
    fn known(&self, index: Option<u64>, id: &str, name: &str) -> Option<usize> {
        if index.is_none() {
            // Without an index a new id is a new call, and none the last one.
            return match id {
                "" if name.is_empty() => self.0.len().checked_sub(1),
                "" => None,
                id => self.0.iter().rposition(|known| known.id == id),
            };
        }
        let at = self.0.iter().rposition(|known| known.index == index)?;
        // Some give all calls the same number; some give each piece of one call
        // an id of its own, but its name only once.
        let another = !id.is_empty() && self.0[at].id != id && !name.is_empty() && self.0[at].named;
        (!another).then_some(at)
    }

    /// A call without arguments means an empty object, and must say so.
    pub(super) fn end_empty(&mut self) -> impl Iterator<Item = ToolCallPiece> {
        self.0.iter_mut().enumerate().filter(|(_, call)| call.arguments.is_empty()).map(
            |(at, call)| {
                let arguments = "{}".to_owned();
                call.arguments.push(&arguments);
                ToolCallPiece { index: position(at), arguments, ..ToolCallPiece::default() }
            },
        )
    }

    /// Whose arguments are no JSON object.
    pub(super) fn broken(&self) -> Vec<u32> {
        arguments::broken(self.0.iter().map(|call| &call.arguments))
    }
}

/// What a call says that we have no field for, such as a signed thought.
fn extra(call: &mut Value) -> String {
    let mut rest = Map::new();
    let Some(fields) = call.as_object_mut() else { return String::new() };
    for (name, value) in std::mem::take(fields) {
        match (name.as_str(), value) {
            (_, Value::Null) | ("index" | "id", _) => {}
            ("type", value) if value == "function" => {}
            ("function", Value::Object(mut function)) => {
                function.retain(|name, value| {
                    !matches!(name.as_str(), "name" | "arguments") && !value.is_null()
                });
                if !function.is_empty() {
                    rest.insert(name, function.into());
                }
            }
            (_, value) => drop(rest.insert(name, value)),
        }
    }
    if rest.is_empty() { String::new() } else { Value::Object(rest).to_string() }
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn position(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn joined(pieces: &[Value]) -> Vec<String> {
        let mut calls = Calls::default();
        let mut found: BTreeMap<u32, [String; 3]> = BTreeMap::new();
        let told = pieces.iter().map(|piece| calls.piece(&mut piece.clone()).unwrap());
        let told: Vec<_> = told.collect();
        for piece in told.into_iter().chain(calls.end_empty()) {
            let call = found.entry(piece.index).or_default();
            call[0] += &piece.id;
            call[1] += &piece.name;
            call[2] += &piece.arguments;
        }
        assert_eq!(calls.broken(), [0_u32; 0]);
        found
            .into_values()
            .map(|[id, name, arguments]| format!("{id} {name} {arguments}"))
            .collect()
    }

    fn piece(index: Option<u64>, id: &str, name: &str, arguments: &str) -> Value {
        json!({"index": index, "id": id, "function": {"name": name, "arguments": arguments}})
    }

    #[test]
    fn pieces_find_their_call() {
        let two = ["a f {\"x\":1}", "b g {}"];
        for (what, pieces) in [
            (
                "numbered",
                [
                    piece(Some(0), "a", "f", ""),
                    piece(Some(1), "b", "g", ""),
                    piece(Some(0), "", "", "{\"x\":1}"),
                ],
            ),
            (
                "numbered from elsewhere, repeated",
                [
                    piece(Some(3), "a", "f", "{\"x\":"),
                    piece(Some(3), "a", "f", "1}"),
                    piece(Some(7), "b", "g", "{}"),
                ],
            ),
            (
                "without numbers",
                [
                    piece(None, "a", "f", "{\"x\":"),
                    piece(None, "", "", "1}"),
                    piece(None, "b", "g", ""),
                ],
            ),
            (
                "all with one number",
                [
                    piece(Some(0), "a", "f", "{\"x\":1}"),
                    piece(Some(0), "b", "g", "{"),
                    piece(Some(0), "", "", "}"),
                ],
            ),
            (
                "an id for each piece",
                [
                    piece(Some(0), "a", "f", "{\"x\":"),
                    piece(Some(0), "a2", "", "1}"),
                    piece(Some(1), "b", "g", "{}"),
                ],
            ),
        ] {
            assert_eq!(joined(&pieces), two, "{what}");
        }
        let late = [piece(Some(0), "a", "", ""), piece(Some(0), "", "f", "{}")];
        assert_eq!(joined(&late), ["a f {}"]);
        let nameless = [json!({"function": {"name": "f", "arguments": {"x": 1}}})];
        assert_eq!(joined(&nameless), ["call_0 f {\"x\":1}"]);
        let twice = [piece(None, "", "f", "{}"), piece(None, "", "f", "{}")];
        assert_eq!(joined(&twice), ["call_0 f {}", "call_1 f {}"]);
    }

    #[test]
    fn a_calls_own_fields_are_kept() {
        let mut call = json!({"index": 0, "id": "a", "type": "function", "new": null,
            "function": {"name": "f", "arguments": "{}", "lang": "x"}, "extra_content": {"g": 1}});
        let piece = Calls::default().piece(&mut call).unwrap();
        assert_eq!(piece.extra_json, r#"{"function":{"lang":"x"},"extra_content":{"g":1}}"#);
    }

    #[test]
    fn calls_without_end_are_too_many() {
        let mut calls = Calls::default();
        let call = |index: usize| json!({"index": index, "id": index.to_string()});
        assert!((0..MOST).all(|index| calls.piece(&mut call(index)).is_some()));
        assert!(calls.piece(&mut call(MOST)).is_none());
    }
}
