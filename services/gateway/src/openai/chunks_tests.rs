//! Our chunks against what OpenAI sent, byte for byte: each recorded stream is
//! read into events and written again.

use super::{Encoder, data};
use serde_json::{Map, Value, json};
use skein_proto::model::v1::{
    Choice, Delta, FinishReason, Finished, Started, ToolCallPiece, Usage, delta::Piece,
    generate_response::Event,
};

const RECORDINGS: [(&str, &str); 4] = [
    ("text", include_str!("../../tests/recordings/text.sse.txt")),
    ("tool_call", include_str!("../../tests/recordings/tool_call.sse.txt")),
    ("n3_interleaved", include_str!("../../tests/recordings/n3_interleaved.sse.txt")),
    ("refusal_logprobs", include_str!("../../tests/recordings/refusal_logprobs.sse.txt")),
];

/// The events that a stream amounts to.
fn events(chunks: &[Value]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut finished = Finished::default();
    for chunk in chunks {
        for choice in chunk["choices"].as_array().unwrap() {
            let index = u32::try_from(choice["index"].as_u64().unwrap()).unwrap();
            let delta = &choice["delta"];
            let logprobs = &choice["logprobs"];
            let extra_json = if logprobs.is_null() {
                String::new()
            } else {
                json!({"logprobs": logprobs}).to_string()
            };
            let text = |name: &str| delta[name].as_str().filter(|text| !text.is_empty());
            let call = &delta["tool_calls"][0];
            let piece = if let Some(text) = text("content") {
                Piece::Text(text.into())
            } else if let Some(text) = text("refusal") {
                Piece::Refusal(text.into())
            } else if call.is_object() {
                let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                Piece::ToolCall(ToolCallPiece {
                    index: u32::try_from(call["index"].as_u64().unwrap()).unwrap(),
                    id: word(&call["id"]),
                    name: word(&call["function"]["name"]),
                    arguments: word(&call["function"]["arguments"]),
                    ..ToolCallPiece::default()
                })
            } else {
                if let Some(reason) = choice["finish_reason"].as_str() {
                    let finish_reason = match reason {
                        "tool_calls" => FinishReason::ToolCalls,
                        "length" => FinishReason::Length,
                        _ => FinishReason::Stop,
                    };
                    finished.choices.push(Choice {
                        index,
                        finish_reason: finish_reason.into(),
                        ..Choice::default()
                    });
                }
                continue;
            };
            events.push(Event::Delta(Delta { choice: index, piece: Some(piece), extra_json }));
        }
        if let Some(input) = chunk["usage"]["prompt_tokens"].as_i64() {
            let output = chunk["usage"]["completion_tokens"].as_i64().unwrap();
            finished.usage = Some(Usage { input_uncached: input, output, ..Usage::default() });
        }
    }
    events.push(Event::Finished(finished));
    events
}

/// What 2024's recordings did not have yet or we do not know is levelled out.
fn level(stream: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in stream.split("\n\n").filter(|line| !line.is_empty()) {
        let payload = line.strip_prefix("data: ").unwrap();
        let Ok(mut chunk) = serde_json::from_str::<Map<String, Value>>(payload) else {
            lines.push(payload.to_owned());
            continue;
        };
        chunk.shift_remove("system_fingerprint");
        if let Some(usage) = chunk.get_mut("usage").and_then(Value::as_object_mut) {
            usage.retain(|name, _| name.ends_with("_tokens"));
        } else {
            chunk.shift_remove("usage");
        }
        let role = chunk["choices"][0]["delta"]["role"].is_string();
        if role {
            chunk["choices"][0]["logprobs"] = Value::Null;
        }
        lines.push(Value::Object(chunk).to_string());
    }
    lines
}

#[test]
fn our_chunks_are_openais_byte_for_byte() {
    for (name, recording) in RECORDINGS {
        let chunks: Vec<Value> = recording
            .split("\n\n")
            .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
            .collect();
        let id = chunks[0]["id"].as_str().unwrap();
        let started = Started {
            call_id: id.strip_prefix("chatcmpl-").unwrap().to_owned(),
            model: chunks[0]["model"].as_str().unwrap().to_owned(),
            ..Started::default()
        };
        let mut encoder = Encoder::new(&started, chunks[0]["created"].as_i64().unwrap(), true);
        let mut out = String::new();
        for event in events(&chunks) {
            encoder.push(event, &mut out);
        }
        assert!(out.ends_with("data: [DONE]\n\n"));
        let (ours, theirs) = (level(&out), level(recording));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "{name}");
        }
        assert_eq!(ours.len(), theirs.len(), "{name}");
    }
}

#[test]
fn without_being_asked_no_chunk_mentions_usage() {
    let mut encoder = Encoder::new(&Started::default(), 0, false);
    let mut out = String::new();
    let choices = vec![Choice { finish_reason: FinishReason::Stop.into(), ..Choice::default() }];
    encoder.push(Event::Finished(Finished { choices, ..Finished::default() }), &mut out);
    assert!(!out.contains("usage"), "{out}");
    let events: Vec<_> = out.split_terminator("\n\n").collect();
    assert_eq!(events.len(), 3, "role, finish, done: {out}");
}

#[test]
fn what_has_no_field_is_at_its_place() {
    let mut encoder = Encoder::new(&Started::default(), 0, false);
    let mut out = String::new();
    let piece = ToolCallPiece {
        id: "c".into(),
        extra_json: r#"{"type":"custom","custom":{"input":"x"}}"#.into(),
        ..ToolCallPiece::default()
    };
    let extra_json = r#"{"mark":1,"choice":{"stop_reason":"x"}}"#.to_owned();
    let delta = Delta { piece: Some(Piece::ToolCall(piece)), extra_json, choice: 0 };
    encoder.push(Event::Delta(delta), &mut out);
    let chunk: Value = serde_json::from_str(out.trim().strip_prefix("data: ").unwrap()).unwrap();
    let choice = &chunk["choices"][0];
    assert_eq!((&choice["delta"]["mark"], &choice["stop_reason"]), (&json!(1), &json!("x")));
    let call = json!({"index": 0, "id": "c", "type": "custom", "custom": {"input": "x"}});
    assert_eq!(choice["delta"]["tool_calls"], json!([call]));
}

#[test]
fn a_line_break_in_the_text_does_not_break_the_frame() {
    let mut out = String::new();
    data(&json!({"text": "a\n\nb"}), &mut out);
    assert_eq!(out, "data: {\"text\":\"a\\n\\nb\"}\n\n");
}
