//! An answer that is not streamed: events gathered into one completion.
//!
//! Invariants:
//! - A completion exists only after `finished`; a stream that ends without it
//!   never becomes a 200.

use super::usage::{self, Citation};
use serde_json::{Map, Value, json};
use skein_proto::model::v1::{
    Delta, Finished, Started, ToolCallPiece, delta::Piece, generate_response::Event,
};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Gathered {
    choices: BTreeMap<u32, Choice>,
    finished: Option<Finished>,
}

#[derive(Default)]
struct Choice {
    content: Option<String>,
    refusal: Option<String>,
    reasoning: String,
    calls: BTreeMap<u32, ToolCallPiece>,
    citations: Vec<Citation>,
    logprobs: Map<String, Value>,
    extra: Map<String, Value>,
}

impl Gathered {
    pub fn push(&mut self, event: Event) {
        match event {
            Event::Started(_) => {}
            Event::Delta(delta) => self.choices.entry(delta.choice).or_default().push(delta),
            Event::Finished(finished) => self.finished = Some(finished),
        }
    }

    /// Whether the answer is whole; its end, for the headers.
    pub const fn finished(&self) -> Option<&Finished> {
        self.finished.as_ref()
    }

    pub fn completion(mut self, started: &Started, created: i64) -> Value {
        let finished = self.finished.take().unwrap_or_default();
        let choices: Vec<_> = finished
            .choices
            .iter()
            .map(|end| {
                let mut choice = self.choices.remove(&end.index).unwrap_or_default();
                let logprobs = std::mem::take(&mut choice.logprobs);
                let logprobs =
                    if logprobs.is_empty() { Value::Null } else { Value::Object(logprobs) };
                json!({
                    "index": end.index,
                    "message": choice.message(),
                    "logprobs": logprobs,
                    "finish_reason": usage::finish_reason(end),
                })
            })
            .collect();
        let mut usage = usage::usage(&finished.usage.unwrap_or_default());
        usage.degraded.clone_from(&started.degraded_reason);
        let mut completion = Map::new();
        completion.insert("id".into(), format!("chatcmpl-{}", started.call_id).into());
        completion.insert("object".into(), "chat.completion".into());
        completion.insert("created".into(), created.into());
        completion.insert("model".into(), started.model.as_str().into());
        completion.insert("choices".into(), choices.into());
        completion.insert("usage".into(), json!(usage));
        let extra: Map<String, Value> =
            serde_json::from_str(&finished.extra_json).unwrap_or_default();
        for (name, value) in extra {
            completion.entry(name).or_insert(value);
        }
        completion.into()
    }
}

impl Choice {
    fn push(&mut self, delta: Delta) {
        match delta.piece {
            Some(Piece::Text(text)) => append(&mut self.content, &text),
            Some(Piece::Refusal(text)) => append(&mut self.refusal, &text),
            Some(Piece::Reasoning(text)) => self.reasoning.push_str(&text),
            Some(Piece::Citation(citation)) => self.citations.push(usage::citation(citation)),
            Some(Piece::ToolCall(piece)) => {
                let call = self.calls.entry(piece.index).or_default();
                call.id.push_str(&piece.id);
                call.name.push_str(&piece.name);
                call.arguments.push_str(&piece.arguments);
            }
            None => {}
        }
        if delta.extra_json.is_empty() {
            return;
        }
        let mut extra: Map<String, Value> =
            serde_json::from_str(&delta.extra_json).unwrap_or_default();
        if let Some(Value::Object(logprobs)) = extra.shift_remove("logprobs") {
            join_logprobs(&mut self.logprobs, logprobs);
        }
        self.extra.extend(extra);
    }

    fn message(self) -> Value {
        let content = match self.content {
            // An answer of nothing is an empty text, unless it did something else.
            None if self.calls.is_empty() && self.refusal.is_none() => Some(String::new()),
            content => content,
        };
        let mut message = self.extra;
        message.insert("role".into(), "assistant".into());
        message.insert("content".into(), content.into());
        message.insert("refusal".into(), self.refusal.into());
        message.insert("annotations".into(), json!([]));
        if !self.reasoning.is_empty() {
            message.insert("reasoning_content".into(), self.reasoning.into());
        }
        if !self.calls.is_empty() {
            let call = |call: ToolCallPiece| {
                json!({"id": call.id, "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments}})
            };
            let calls: Vec<_> = self.calls.into_values().map(call).collect();
            message.insert("tool_calls".into(), calls.into());
        }
        if !self.citations.is_empty() {
            message.insert("citations".into(), json!(self.citations));
        }
        message.into()
    }
}

fn append(text: &mut Option<String>, piece: &str) {
    text.get_or_insert_default().push_str(piece);
}

/// `{"content": [...], "refusal": [...]}`, a piece at a time.
fn join_logprobs(all: &mut Map<String, Value>, piece: Map<String, Value>) {
    for (name, value) in piece {
        match (all.get_mut(&name), value) {
            (Some(Value::Array(all)), Value::Array(more)) => all.extend(more),
            (Some(_), Value::Null) => {}
            (_, value) => drop(all.insert(name, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skein_proto::model::v1::{self, FinishReason};

    fn delta(choice: u32, piece: Piece, extra_json: &str) -> Event {
        Event::Delta(Delta { choice, piece: Some(piece), extra_json: extra_json.to_owned() })
    }

    fn call(id: &str, name: &str, arguments: &str) -> Piece {
        let [id, name, arguments] = [id, name, arguments].map(str::to_owned);
        Piece::ToolCall(ToolCallPiece { id, name, arguments, ..ToolCallPiece::default() })
    }

    #[test]
    fn pieces_are_joined_by_choice_and_index() {
        let mut gathered = Gathered::default();
        let logprob =
            |token: &str| json!({"logprobs": {"content": [{"token": token}]}}).to_string();
        gathered.push(delta(0, Piece::Text("He".into()), &logprob("He")));
        gathered.push(delta(1, call("c1", "f", ""), ""));
        gathered.push(delta(0, Piece::Text("llo".into()), &logprob("llo")));
        gathered.push(delta(1, call("", "", "{\"a\""), ""));
        gathered.push(delta(1, call("", "", ":1}"), ""));
        assert!(gathered.finished().is_none());
        let end = |index, reason: FinishReason| v1::Choice {
            index,
            finish_reason: reason.into(),
            ..v1::Choice::default()
        };
        gathered.push(Event::Finished(Finished {
            choices: vec![end(0, FinishReason::Stop), end(1, FinishReason::ToolCalls)],
            extra_json: r#"{"service_tier":"default","id":"theirs"}"#.into(),
            ..Finished::default()
        }));
        let started = Started { call_id: "x".into(), ..Started::default() };
        let answer = gathered.completion(&started, 7);
        assert_eq!(answer["id"], "chatcmpl-x");
        assert_eq!(answer["service_tier"], "default");
        let [hello, called] = [&answer["choices"][0], &answer["choices"][1]];
        assert_eq!(hello["message"]["content"], "Hello");
        assert_eq!(hello["logprobs"]["content"].as_array().unwrap().len(), 2);
        assert_eq!(called["message"]["content"], Value::Null);
        assert_eq!(called["message"]["tool_calls"][0]["function"]["arguments"], "{\"a\":1}");
        assert_eq!(called["finish_reason"], "tool_calls");
    }
}
