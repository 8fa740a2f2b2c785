//! What every recording of this dialect says, however it is cut, and what made-up
//! streams say that no recording has.

use super::golden;
use crate::{
    error::Failure,
    provider::{
        Event,
        replay::{Framing, Outcome, decode, files, folder, prove, read, told},
    },
};
use serde_json::{Value, json};

/// See `replay::told`. Each is there framed (`.sse.txt`) and as bare payloads.
const STREAMS: [(&str, &str); 10] = [
    (
        "anthropic-clear-thinking.1",
        "reasoning[0] 76:f7ab8229 | text[0] 14:45d08c25 | Stop, in 69+0+0 out 53 (0)",
    ),
    ("anthropic-fallback", "text[0] 66:ede3ce4e | Stop, in 412+0+0 out 264 (0)"),
    (
        "anthropic-json-tool.1",
        "call[0.0] toolu_01KFbKqPYSuAKujiL6mTfzYA json {\"elements\": [{\"location\": \"San \
         Francisco\", \"temperature\": 58, \"condition\": \"sunny\"}]} | ToolCalls, in \
         849+0+0 out 47 (0)",
    ),
    (
        "anthropic-json-tool.2",
        "text[0] 35:aa21ab11 | call[0.0] toolu_01KFbKqPYSuAKujiL6mTfzYA json {\"elements\": \
         [{\"location\": \"San Francisco\", \"temperature\": 58, \"condition\": \"sunny\"}]} \
         | ToolCalls, in 849+0+0 out 47 (0)",
    ),
    ("anthropic-message-delta-input-tokens", "text[0] 4:7adb16b7 | Stop, in 61+0+0 out 2 (0)"),
    (
        "anthropic-programmatic-tool-calling.1",
        "text[0] 157:28e7bff7 | call[0.0] toolu_019jKkXz4jAdwHweHBw92CVY rollDie \
         {\"player\":\"player1\"} | ToolCalls, in 3369+0+0 out 725 (0)",
    ),
    ("anthropic-refusal", "refusal[0] 110:cc8e02b1 | ContentFilter, in 18+0+0 out 5 (0)"),
    ("anthropic-text", "text[0] 108:0c787221 | Stop, in 12+0+0 out 30 (0)"),
    (
        "anthropic-tool-no-args",
        "text[0] 35:4ea946b4 | call[0.0] toolu_01QE1WLsSVp5hy5Q3GmGTmjP updateIssueList {} | \
         ToolCalls, in 565+0+0 out 48 (0)",
    ),
    ("duplicate-message-start", "text[0] 13:5aecf734 | Stop, in 17+0+0 out 227 (0)"),
];

/// An answer whose beginning comes again in its middle.
const SPLICED: (&str, &str) = (
    "spliced-message-start",
    "reasoning[0] 21:c5a0aaa7 | call[0.0] toolu_first test-tool {\"value\":\"Spark | \
         anthropic: a second answer began within the first",
);

const ANSWERS: [(&str, &str); 6] = [
    (
        "anthropic-claude-opus-5-reasoning-high.1",
        "reasoning[0] 352:56bc05f3 | text[0] 2654:be5d2320 | Stop, in 51+0+0 out 1699 (139)",
    ),
    ("anthropic-compaction.1", "text[0] 4451:b5679fc9 | Stop, in 61067+0+0 out 1912 (0)"),
    ("anthropic-refusal", "refusal[0] 110:cc8e02b1 | ContentFilter, in 18+0+0 out 5 (0)"),
    ("anthropic-text", "text[0] 105:8740ee47 | Stop, in 12+0+0 out 29 (0)"),
    (
        "anthropic-tool-no-args",
        "text[0] 255:d0bb388b | call[0.0] toolu_01LRmxn9vGM1d2DZSDBowdZ1 updateIssueList {} | \
         ToolCalls, in 602+0+0 out 93 (0)",
    ),
    ("anthropic-web-fetch-tool.error", "text[0] 579:6fb285f9 | Stop, in 1902+0+0 out 214 (0)"),
];

#[test]
fn streams_say_what_is_written_down_wherever_they_are_cut() {
    if folder().is_none() {
        return;
    }
    let mut names = Vec::new();
    for (name, expected) in STREAMS.into_iter().chain([SPLICED]) {
        let sent = format!("anthropic/{name}.sse.txt");
        let outcome = prove(name, &read(&sent, Framing::Named), golden::decoder);
        assert_eq!(told(&outcome), expected, "{name}");
        let chunks = format!("anthropic/{name}.chunks.jsonl");
        let same = decode(golden::decoder(), [read(&chunks, Framing::Named).as_slice()]);
        assert_eq!(same.0, outcome.0, "{chunks}");
        names.extend([sent, chunks]);
    }
    names.sort();
    let all = files(&["anthropic"]).into_iter();
    let all: Vec<_> = all.filter(|name| !name.ends_with(".json")).collect();
    assert_eq!(names, all, "a recording that no row is about");
}

#[test]
fn whole_answers_say_what_is_written_down() {
    let Some(folder) = folder() else { return };
    let mut names = Vec::new();
    for (name, expected) in ANSWERS {
        let file = format!("anthropic/{name}.json");
        let outcome = whole(&std::fs::read(folder.join(&file)).unwrap());
        assert_eq!(told(&outcome), expected, "{name}");
        names.push(file);
    }
    let all: Vec<_> =
        files(&["anthropic"]).into_iter().filter(|name| name.ends_with(".json")).collect();
    assert_eq!(names, all, "a recording that no row is about");
}

fn whole(body: &[u8]) -> Outcome {
    let (mut decoder, mut events) = (golden::decoder(), Vec::new());
    let outcome = decoder.whole(body, &mut events);
    (events, outcome)
}

fn stream(events: &[Value]) -> Outcome {
    let lines: String = events
        .iter()
        .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()))
        .collect();
    prove("made up", lines.as_bytes(), golden::decoder)
}

fn begin() -> Value {
    json!({"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 5}}})
}

fn start(index: u64, block: &Value) -> Value {
    json!({"type": "content_block_start", "index": index, "content_block": block})
}

fn delta(index: u64, delta: &Value) -> Value {
    json!({"type": "content_block_delta", "index": index, "delta": delta})
}

fn ended(reason: &str) -> [Value; 2] {
    [
        json!({"type": "message_delta", "delta": {"stop_reason": reason},
            "usage": {"output_tokens": 3}}),
        json!({"type": "message_stop"}),
    ]
}

fn extra(event: &Event) -> Value {
    let extra = match event {
        Event::Delta(delta) => &delta.extra_json,
        Event::Finished(finished) => &finished.extra_json,
        Event::Progress(_) | Event::Image(_) => panic!("a picture in a chat"),
    };
    if extra.is_empty() { Value::Null } else { serde_json::from_str(extra).unwrap() }
}

#[test]
fn what_must_come_back_is_given_out_whole() {
    let search = json!({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}});
    let call = json!({"type": "tool_use", "id": "t", "name": "f", "input": {}, "caller": {"a": 1}});
    let stop = |index: u64| json!({"type": "content_block_stop", "index": index});
    let mut events = vec![
        begin(),
        start(0, &json!({"type": "thinking", "thinking": "", "signature": ""})),
        delta(0, &json!({"type": "thinking_delta", "thinking": "Let "})),
        json!({"type": "ping"}),
        delta(0, &json!({"type": "thinking_delta", "thinking": "me."})),
        delta(0, &json!({"type": "signature_delta", "signature": "c2ln"})),
        stop(0),
        start(1, &json!({"type": "redacted_thinking", "data": "eHg="})),
        stop(1),
        start(2, &json!({"type": "text", "text": "A"})),
        delta(2, &json!({"type": "citations_delta", "citation": {"cited_text": "a"}})),
        delta(2, &json!({"type": "text_delta", "text": "nswer"})),
        stop(2),
        start(3, &search),
        delta(3, &json!({"type": "input_json_delta", "partial_json": "{\"q\":"})),
        delta(3, &json!({"type": "input_json_delta", "partial_json": "1}"})),
        stop(3),
        start(4, &call),
        delta(4, &json!({"type": "input_json_delta", "partial_json": "{\"x\":2}"})),
    ];
    events.extend(ended("tool_use"));
    let outcome = stream(&events);
    assert_eq!(
        told(&outcome),
        "reasoning[0] 7:3fcf2d6e | text[0] 6:f94ea0ff | call[0.0] t f {\"x\":2} | ToolCalls, \
         in 5+0+0 out 3 (0)"
    );
    let kept = json!({"anthropic": {"content_blocks": [
        {"index": 0, "content_block":
            {"type": "thinking", "thinking": "Let me.", "signature": "c2ln"}},
        {"index": 1, "content_block": {"type": "redacted_thinking", "data": "eHg="}},
        {"index": 2, "content_block": {"type": "text", "citations": [{"cited_text": "a"}]}},
        {"index": 3, "content_block": {"type": "server_tool_use", "id": "s",
            "name": "web_search", "input": {"q": 1}}},
        {"index": 4, "content_block": {"type": "tool_use", "id": "t", "name": "f",
            "input": {"x": 2}, "caller": {"a": 1}}}]}});
    let events = outcome.0;
    assert_eq!(extra(&events[events.len() - 2]), kept);
    assert_eq!(extra(&events[events.len() - 1]), Value::Null);
}

#[test]
fn every_reason_to_stop_has_ours_and_says_what_ours_does_not() {
    for (reason, ours, exact) in [
        ("end_turn", "Stop", true),
        ("max_tokens", "Length", true),
        ("tool_use", "ToolCalls", true),
        ("stop_sequence", "Stop", false),
        ("pause_turn", "Length", false),
        ("model_context_window_exceeded", "Length", false),
        ("refusal", "ContentFilter", false),
        ("unheard_of", "Stop", false),
    ] {
        let mut events = vec![begin()];
        events.extend(ended(reason));
        let outcome = stream(&events);
        assert_eq!(told(&outcome), format!("{ours}, in 5+0+0 out 3 (0)"), "{reason}");
        let told = extra(&outcome.0[0])["anthropic"]["stop_reason"].take();
        assert_eq!(told, if exact { Value::Null } else { json!(reason) }, "{reason}");
    }
}

#[test]
fn what_breaks_a_stream_is_one_error_after_what_was_real() {
    let said = [begin(), start(0, &json!({"type": "text", "text": "a"}))];
    let broken = |kind: &str| json!({"type": "error", "error": {"type": kind, "message": "no"}});
    let limited = Failure::RateLimited { retry_after: None };
    for (event, failure) in [
        (json!({"type": "ping"}), Failure::Cut),
        (json!({"type": "message_stop"}), Failure::Cut),
        (broken("overloaded_error"), Failure::Overloaded),
        (broken("api_error"), Failure::Unavailable),
        (broken("rate_limit_error"), limited),
        (broken("billing_error"), Failure::Quota),
        (broken("invalid_request_error"), Failure::BadRequest),
        (begin(), Failure::Malformed),
        (start(0, &json!({"type": "text"})), Failure::Malformed),
        (delta(7, &json!({"type": "text_delta", "text": "b"})), Failure::Malformed),
    ] {
        let mut events = said.to_vec();
        events.push(event.clone());
        let (events, outcome) = stream(&events);
        assert_eq!(outcome.unwrap_err().failure(), Some(failure), "{event}");
        assert_eq!(events.len(), 1, "{event}");
    }
    let (events, outcome) = decode(golden::decoder(), [b"data: <html>\n\n".as_slice()]);
    assert!(events.is_empty());
    assert_eq!(outcome.unwrap_err().failure(), Some(Failure::Malformed));
    for odd in ["[1]", "1", "{}", "null", "{\"type\":[]}"] {
        let event = format!("data: {odd}\n\n");
        let (events, outcome) = decode(golden::decoder(), [event.as_bytes()]);
        assert!(events.is_empty() && outcome.is_err(), "{odd}");
    }
    for kind in ["message_start", "content_block_start", "content_block_delta", "message_delta"] {
        for odd in [json!([1]), json!("x"), json!({"type": 1}), json!(null)] {
            let name = if kind == "message_start" { "message" } else { "delta" };
            let mut event = json!({"type": kind, "index": odd, "usage": odd, "content_block": odd});
            event[name] = odd;
            let stream = format!("data: {event}\n\n");
            // Whatever it is called, it is no answer.
            assert!(decode(golden::decoder(), [stream.as_bytes()]).1.is_err(), "{event}");
        }
    }
    let body = broken("overloaded_error").to_string();
    assert_eq!(whole(body.as_bytes()).1.unwrap_err().failure(), Some(Failure::Overloaded));
}

#[test]
fn arguments_cut_short_are_told_as_broken() {
    let call = |id: &str| json!({"type": "tool_use", "id": id, "name": "f", "input": {}});
    let json = |index, json: &str| {
        delta(index, &json!({"type": "input_json_delta", "partial_json": json}))
    };
    let mut events =
        vec![begin(), start(2, &call("a")), json(2, "{}"), start(5, &call("b")), json(5, "{\"x")];
    events.extend(ended("max_tokens"));
    assert_eq!(
        told(&stream(&events)),
        "call[0.0] a f {} | call[0.1] b f {\"x | Length broken [1], in 5+0+0 out 3 (0)"
    );
}

#[test]
fn a_stream_without_its_last_event_is_whole_once_it_said_why_it_stopped() {
    let [stopped, _] = ended("end_turn");
    let outcome = stream(&[begin(), start(0, &json!({"type": "text", "text": "a"})), stopped]);
    assert!(outcome.1.is_ok());
    assert_eq!(outcome.0.len(), 2);
}
