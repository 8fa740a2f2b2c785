//! An answer that is not streamed: events gathered into one completion.
//!
//! Invariants:
//! - A completion exists only after `finished`; a stream that ends without it
//!   never becomes a 200.

use super::{
    extra,
    usage::{self, Citation},
};
use serde_json::{Map, Value, json};
use skein_proto::model::v1::{Delta, Finished, Started, delta::Piece, generate_response::Event};
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
    calls: BTreeMap<u32, Call>,
    citations: Vec<Citation>,
    logprobs: Map<String, Value>,
    /// Of the message, and of the choice.
    extra: Map<String, Value>,
    outer: Map<String, Value>,
}

#[derive(Default)]
struct Call {
    id: String,
    name: String,
    arguments: String,
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
                let outer = std::mem::take(&mut choice.outer);
                let mut ours = Map::new();
                ours.insert("index".into(), end.index.into());
                ours.insert("message".into(), choice.message());
                ours.insert("logprobs".into(), logprobs);
                ours.insert("finish_reason".into(), usage::finish_reason(end).into());
                extra::fill(&mut ours, outer);
                Value::Object(ours)
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
        for (name, value) in extra::read(&finished.extra_json) {
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
                extra::join(&mut call.extra, extra::read(&piece.extra_json));
            }
            None => {}
        }
        let mut extra = extra::read(&delta.extra_json);
        extra::join(&mut self.logprobs, extra::inner(&mut extra, "logprobs"));
        extra::join(&mut self.outer, extra::inner(&mut extra, "choice"));
        extra::join(&mut self.extra, extra);
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
        message.entry("annotations").or_insert_with(|| json!([]));
        if !self.reasoning.is_empty() {
            message.insert("reasoning_content".into(), self.reasoning.into());
        }
        if !self.calls.is_empty() {
            let calls: Vec<_> = self.calls.into_values().map(Call::whole).collect();
            message.insert("tool_calls".into(), calls.into());
        }
        if !self.citations.is_empty() {
            message.insert("citations".into(), json!(self.citations));
        }
        message.into()
    }
}

impl Call {
    fn whole(self) -> Value {
        let mut call = Map::new();
        call.insert("id".into(), self.id.into());
        // A call of another kind says so itself, and has no function.
        if !self.extra.contains_key("type") {
            call.insert("type".into(), "function".into());
            let function = json!({"name": self.name, "arguments": self.arguments});
            call.insert("function".into(), function);
        }
        extra::fill(&mut call, self.extra);
        call.into()
    }
}

fn append(text: &mut Option<String>, piece: &str) {
    text.get_or_insert_default().push_str(piece);
}

#[cfg(test)]
mod tests {
    use super::*;
    use skein_proto::model::v1::{self, FinishReason, ToolCallPiece};

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

    #[test]
    fn what_has_no_field_comes_back_at_its_place() {
        let mut gathered = Gathered::default();
        let said = |annotation: &str, filter: &str| {
            json!({"annotations": [annotation], "provider": {"blocks": [annotation]},
                "choice": {"content_filter_results": {filter: "safe"}, "index": 9}})
            .to_string()
        };
        gathered.push(delta(0, Piece::Text("a".into()), &said("one", "hate")));
        gathered.push(delta(0, Piece::Text("b".into()), &said("two", "violence")));
        let own = r#"{"extra_content":{"g":1},"function":{"lang":"x"},"id":"theirs"}"#;
        let signed = ToolCallPiece {
            id: "c1".into(),
            name: "f".into(),
            extra_json: own.into(),
            ..ToolCallPiece::default()
        };
        gathered.push(delta(0, Piece::ToolCall(signed), ""));
        let custom = r#"{"type":"custom","custom":{"name":"g","input":"x"}}"#;
        let custom = ToolCallPiece {
            index: 1,
            id: "c2".into(),
            extra_json: custom.into(),
            ..ToolCallPiece::default()
        };
        gathered.push(delta(0, Piece::ToolCall(custom), ""));
        let end = v1::Choice { finish_reason: FinishReason::Stop.into(), ..v1::Choice::default() };
        gathered.push(Event::Finished(Finished { choices: vec![end], ..Finished::default() }));
        let answer = gathered.completion(&Started::default(), 7);
        let choice = &answer["choices"][0];
        assert_eq!(choice["index"], 0);
        assert_eq!(choice["content_filter_results"], json!({"hate": "safe", "violence": "safe"}));
        assert_eq!(choice["message"]["annotations"], json!(["one", "two"]));
        assert_eq!(choice["message"]["provider"], json!({"blocks": ["one", "two"]}));
        let calls = json!([
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "", "lang": "x"},
                "extra_content": {"g": 1}},
            {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "x"}},
        ]);
        assert_eq!(choice["message"]["tool_calls"], calls);
    }
}
