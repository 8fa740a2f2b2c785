//! `POST /v1/messages`, whole and streamed, and the counting of tokens.
//!
//! Invariants:
//! - The stream and the whole answer say the same and count the same.

use super::errors::refused;
use crate::{
    answer::Answer,
    reply::Say,
    step::{Live, Role, Step},
    words,
};
use bytes::Bytes;
use serde_json::{Value, json};

/// A block of the answer: as it begins, what it is given piece by piece, whole.
struct Block {
    begin: Value,
    deltas: Vec<Value>,
    whole: Value,
}

struct Plan<'a> {
    request: &'a Value,
    say: &'a Say,
    blocks: Vec<Block>,
    stop_reason: String,
    /// The stop sequence that was met.
    stopped_by: Option<String>,
    output: usize,
}

pub(super) fn answer(request: &Value, say: &Say) -> Answer {
    if let Some(wrong) = wrong(request) {
        return wrong;
    }
    let plan = plan(request, say);
    if request["stream"] != true || say.whole {
        return Answer::json(200, &whole(&plan));
    }
    Answer::events(match say.endless {
        Some(every) => {
            let word = |count| text_delta(0, &format!("word{count} "));
            let begin = vec![begin(&plan), block_start(0, &json!({"type": "text", "text": ""}))];
            [begin, vec![Step::Live(Live::every(every, word))]].concat()
        }
        None => steps(&plan),
    })
}

/// `POST /v1/messages/count_tokens`.
pub(super) fn count(request: &Value) -> Answer {
    match words::messages(request).next() {
        Some(_) => Answer::json(200, &json!({"input_tokens": input(request)})),
        None => refused(400, "messages: at least one message is required"),
    }
}

fn wrong(request: &Value) -> Option<Answer> {
    let message = if request.is_null() {
        "The request body is not valid JSON"
    } else if request["model"].as_str().is_none() {
        "model: Field required"
    } else if request["max_tokens"].as_u64().is_none_or(|most| most == 0) {
        "max_tokens: Field required"
    } else if words::messages(request).next().is_none() {
        "messages: at least one message is required"
    } else if words::messages(request).any(|message| message["role"] == "system") {
        "messages: Unexpected role \"system\". The Messages API accepts a top-level `system` parameter"
    } else {
        return None;
    };
    Some(refused(400, message))
}

fn input(request: &Value) -> usize {
    let messages: usize =
        words::messages(request).map(|message| words::tokens(&message["content"])).sum();
    messages + words::tokens(&request["system"])
}

fn plan<'a>(request: &'a Value, say: &'a Say) -> Plan<'a> {
    let model = request["model"].as_str().unwrap_or_default();
    let last = words::messages(request).last();
    let told = last.and_then(|last| last["content"].as_array()).into_iter().flatten();
    let is_result = told.clone().any(|block| block["type"] == "tool_result");
    let tool = request["tools"][0]["name"].as_str().filter(|_| !is_result);
    let calls = words::calls(model, tool, &say.tools);
    let wants_thinking =
        request["thinking"]["type"].as_str().is_some_and(|kind| kind != "disabled");
    let thinking =
        say.thinking.as_deref().or_else(|| wants_thinking.then_some("Let me think about it."));
    let mut blocks: Vec<Block> = thinking.into_iter().map(thinking_block).collect();
    let said = say.text.clone().unwrap_or_else(|| words::echo(request));
    let limit = request["max_tokens"].as_u64().and_then(|most| usize::try_from(most).ok());
    let limit = limit.unwrap_or(usize::MAX);
    let cut = limit < words::count(&said);
    let stops = request["stop_sequences"].as_array().into_iter().flatten();
    let (said, stopped_by) =
        words::until(stops.filter_map(Value::as_str), words::first(&said, limit));
    let refused = say.refusal.is_some();
    if !refused && (calls.is_empty() || say.text.is_some()) {
        blocks.push(text_block(&said));
    }
    let tools = calls.iter().enumerate().map(|(at, call)| tool_block(at, call, say.tools_whole));
    blocks.extend(tools);
    let stop_reason = match &say.finish {
        Some(finish) => finish.as_str(),
        None if refused => "refusal",
        None if !calls.is_empty() => "tool_use",
        None if stopped_by.is_some() => "stop_sequence",
        None if cut => "max_tokens",
        None => "end_turn",
    };
    let thought = thinking.map_or(0, words::count);
    let output = thought + if calls.is_empty() { words::count(&said) } else { calls.len() };
    Plan { request, say, blocks, stop_reason: stop_reason.to_owned(), stopped_by, output }
}

fn thinking_block(thinking: &str) -> Block {
    let signature = "c2lnbmF0dXJlIG9mIGEgZmFrZQ==";
    let mut deltas: Vec<Value> = thinking
        .split_inclusive(' ')
        .map(|word| json!({"type": "thinking_delta", "thinking": word}))
        .collect();
    deltas.push(json!({"type": "signature_delta", "signature": signature}));
    Block {
        begin: json!({"type": "thinking", "thinking": "", "signature": ""}),
        deltas,
        whole: json!({"type": "thinking", "thinking": thinking, "signature": signature}),
    }
}

fn text_block(text: &str) -> Block {
    let words = text.split_inclusive(' ');
    Block {
        begin: json!({"type": "text", "text": ""}),
        deltas: words.map(|word| json!({"type": "text_delta", "text": word})).collect(),
        whole: json!({"type": "text", "text": text}),
    }
}

/// Without arguments the one piece is empty and means `{}`.
fn tool_block(at: usize, (name, arguments): &(String, String), at_once: bool) -> Block {
    let id = if at == 0 { "toolu_fake".to_owned() } else { format!("toolu_fake_{at}") };
    let tool = |input: Value| json!({"type": "tool_use", "id": id, "name": name, "input": input});
    let mut pieces = vec![String::new()];
    if at_once {
        pieces.push(arguments.clone());
    } else if arguments != "{}" {
        pieces.extend(words::pieces(arguments));
    }
    let delta = |piece| json!({"type": "input_json_delta", "partial_json": piece});
    Block {
        begin: tool(json!({})),
        deltas: pieces.into_iter().map(delta).collect(),
        whole: tool(serde_json::from_str(arguments).unwrap_or_else(|_| json!({}))),
    }
}

fn usage(plan: &Plan<'_>, output: usize) -> Value {
    if plan.say.no_usage {
        return json!({"input_tokens": 0, "output_tokens": 0});
    }
    let mut usage = json!({
        "input_tokens": input(plan.request), "output_tokens": output,
        "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "service_tier": "standard",
    });
    for (name, value) in plan.say.usage.as_ref().and_then(Value::as_object).into_iter().flatten() {
        usage[name] = value.clone();
    }
    usage
}

fn stop_details(plan: &Plan<'_>) -> Value {
    match &plan.say.refusal {
        Some(why) => json!({"type": "refusal", "category": "cyber", "explanation": why}),
        None => Value::Null,
    }
}

fn message(plan: &Plan<'_>) -> Value {
    let mut usage = usage(plan, 1);
    // Whatever the end will say.
    usage["output_tokens"] = json!(1);
    json!({
        "id": "msg_fake", "type": "message", "role": "assistant", "model": plan.request["model"],
        "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage,
    })
}

fn whole(plan: &Plan<'_>) -> Value {
    let mut whole = message(plan);
    whole["content"] = plan.blocks.iter().map(|block| block.whole.clone()).collect();
    whole["stop_reason"] = json!(plan.stop_reason);
    whole["stop_sequence"] = json!(plan.stopped_by);
    whole["stop_details"] = stop_details(plan);
    whole["usage"] = usage(plan, plan.output);
    whole
}

fn event(payload: &Value) -> Bytes {
    let kind = payload["type"].as_str().unwrap_or_default();
    Bytes::from(format!("event: {kind}\ndata: {payload}\n\n"))
}

fn begin(plan: &Plan<'_>) -> Step {
    let payload = json!({"type": "message_start", "message": message(plan)});
    Step::Send(Role::Begin, event(&payload))
}

fn block_start(index: usize, block: &Value) -> Step {
    let payload = json!({"type": "content_block_start", "index": index, "content_block": block});
    Step::Send(Role::Other, event(&payload))
}

fn delta(index: usize, delta: &Value) -> Bytes {
    event(&json!({"type": "content_block_delta", "index": index, "delta": delta}))
}

fn text_delta(index: usize, text: &str) -> Bytes {
    delta(index, &json!({"type": "text_delta", "text": text}))
}

fn steps(plan: &Plan<'_>) -> Vec<Step> {
    let mut steps = vec![begin(plan)];
    for (index, block) in plan.blocks.iter().enumerate() {
        steps.push(block_start(index, &block.begin));
        if index == 0 {
            let ping = event(&json!({"type": "ping"}));
            steps.push(Step::Send(Role::Other, ping));
        }
        let deltas = block.deltas.iter().map(|piece| delta(index, piece));
        steps.extend(deltas.map(|piece| Step::Send(Role::Content, piece)));
        let stop = event(&json!({"type": "content_block_stop", "index": index}));
        steps.push(Step::Send(Role::Other, stop));
    }
    let mut end = json!({"stop_reason": plan.stop_reason, "stop_sequence": plan.stopped_by});
    if plan.say.refusal.is_some() {
        end["stop_details"] = stop_details(plan);
    }
    let usage = usage(plan, plan.output);
    let finish = event(&json!({"type": "message_delta", "delta": end, "usage": usage}));
    steps.push(Step::Send(Role::Finish, finish));
    steps.push(Step::Send(Role::Done, event(&json!({"type": "message_stop"}))));
    steps
}
