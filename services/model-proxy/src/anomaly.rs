//! What is odd about an answer that did not fail.
//!
//! Invariants:
//! - The text of an answer is kept only where JSON was asked for, and only up
//!   to 256 KiB; a longer one is not judged.
//! - Nothing here changes an answer.

use crate::schema;
use serde_json::Value;
use skein_proto::model::v1::{
    Delta, FinishReason, Finished, ResponseFormat, delta::Piece, response_format::Format,
};
use std::collections::BTreeMap;

/// Judging this much takes a millisecond.
const MOST: usize = 256 << 10;

#[derive(Debug, Default)]
pub struct Watch {
    /// JSON was asked for, and perhaps of a shape.
    json: Option<Option<Value>>,
    /// By choice; `None` once it is too long.
    answers: BTreeMap<u32, Option<String>>,
    said: bool,
    called: bool,
    refused: bool,
}

impl Watch {
    pub fn new(format: Option<&ResponseFormat>) -> Self {
        let json = match format.and_then(|format| format.format.as_ref()) {
            Some(Format::JsonObject(true)) => Some(None),
            Some(Format::JsonSchema(wanted)) => {
                Some(serde_json::from_str(&wanted.schema_json).ok())
            }
            Some(Format::JsonObject(false) | Format::Text(_)) | None => None,
        };
        Self { json, ..Self::default() }
    }

    pub fn delta(&mut self, delta: &Delta) {
        match &delta.piece {
            Some(Piece::Text(text)) => {
                self.said |= !text.is_empty();
                if self.json.is_some() {
                    self.keep(delta.choice, text);
                }
            }
            Some(Piece::ToolCall(_)) => self.called = true,
            Some(Piece::Refusal(_)) => self.refused = true,
            Some(Piece::Reasoning(_) | Piece::Citation(_)) | None => {}
        }
    }

    pub fn image(&mut self) {
        self.said = true;
    }

    fn keep(&mut self, choice: u32, text: &str) {
        let answer = self.answers.entry(choice).or_insert_with(|| Some(String::new()));
        if answer.as_ref().is_some_and(|answer| answer.len() + text.len() > MOST) {
            *answer = None;
        }
        if let Some(answer) = answer {
            answer.push_str(text);
        }
    }

    /// The names of what is odd, each once.
    pub fn judge(&self, finished: &Finished) -> Vec<&'static str> {
        let ended = |reason: FinishReason| {
            finished.choices.iter().any(|choice| choice.finish_reason() == reason)
        };
        let filtered = ended(FinishReason::ContentFilter);
        let silent = !self.said && !self.called && !self.refused;
        let broken = finished.choices.iter().any(|choice| !choice.broken_tool_calls.is_empty());
        let (invalid, mismatch) = self.json();
        [
            ("empty", silent && !filtered),
            ("truncated", ended(FinishReason::Length)),
            ("content_filter", filtered),
            ("refusal", self.refused),
            ("invalid_arguments", broken),
            ("invalid_json", invalid && !ended(FinishReason::Length)),
            ("schema_mismatch", mismatch),
        ]
        .into_iter()
        .filter_map(|(kind, is)| is.then_some(kind))
        .collect()
    }

    /// Whether an answer is no JSON, and whether one is of another shape.
    fn json(&self) -> (bool, bool) {
        let Some(wanted) = &self.json else { return (false, false) };
        let (mut invalid, mut mismatch) = (false, false);
        for answer in self.answers.values().flatten() {
            match (serde_json::from_str::<Value>(answer), wanted) {
                (Err(_), _) => invalid = true,
                (Ok(value), Some(schema)) => mismatch |= !schema::fits(schema, &value),
                (Ok(value), None) => mismatch |= !value.is_object(),
            }
        }
        (invalid, mismatch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skein_proto::model::v1::{Choice, JsonSchema, ToolCallPiece};

    fn text(text: &str) -> Delta {
        Delta { piece: Some(Piece::Text(text.to_owned())), ..Delta::default() }
    }

    fn judged(format: Option<Format>, pieces: &[Delta], reason: FinishReason) -> Vec<&'static str> {
        let format = format.map(|format| ResponseFormat { format: Some(format) });
        let mut watch = Watch::new(format.as_ref());
        for piece in pieces {
            watch.delta(piece);
        }
        let choices = vec![Choice { finish_reason: reason.into(), ..Choice::default() }];
        watch.judge(&Finished { choices, ..Finished::default() })
    }

    #[test]
    fn what_is_odd_is_named_and_what_is_not_is_not() {
        let stop = FinishReason::Stop;
        let none: [&str; 0] = [];
        assert_eq!(judged(None, &[text("hi")], stop), none);
        assert_eq!(judged(None, &[], stop), ["empty"]);
        assert_eq!(judged(None, &[text("hi")], FinishReason::Length), ["truncated"]);
        assert_eq!(judged(None, &[], FinishReason::ContentFilter), ["content_filter"]);
        let call =
            Delta { piece: Some(Piece::ToolCall(ToolCallPiece::default())), ..Delta::default() };
        assert_eq!(judged(None, &[call], FinishReason::ToolCalls), none);
        let refusal = Delta { piece: Some(Piece::Refusal("no".into())), ..Delta::default() };
        assert_eq!(judged(None, &[refusal], stop), ["refusal"]);

        let json = || Some(Format::JsonObject(true));
        assert_eq!(judged(json(), &[text("{\"a\""), text(":1}")], stop), none);
        assert_eq!(judged(json(), &[text("Sure: {}")], stop), ["invalid_json"]);
        assert_eq!(judged(json(), &[text("[1]")], stop), ["schema_mismatch"]);
        assert_eq!(judged(json(), &[text("{\"a\"")], FinishReason::Length), ["truncated"]);
        let long = text(&"x".repeat(MOST));
        assert_eq!(judged(json(), &[text("{"), long], stop), none, "too long to judge");
        let schema_json = r#"{"type":"object","required":["a"]}"#.to_owned();
        let schema = || {
            Some(Format::JsonSchema(JsonSchema {
                schema_json: schema_json.clone(),
                ..JsonSchema::default()
            }))
        };
        assert_eq!(judged(schema(), &[text(r#"{"a":1}"#)], stop), none);
        assert_eq!(judged(schema(), &[text(r#"{"b":1}"#)], stop), ["schema_mismatch"]);
    }

    #[test]
    fn a_broken_call_is_odd_and_a_picture_is_not() {
        let mut watch = Watch::new(None);
        watch.delta(&text("hi"));
        let choices = vec![Choice { broken_tool_calls: vec![0], ..Choice::default() }];
        let finished = Finished { choices, ..Finished::default() };
        assert_eq!(watch.judge(&finished), ["invalid_arguments"]);
        let mut watch = Watch::new(None);
        watch.image();
        assert!(watch.judge(&Finished::default()).is_empty());
    }
}
