//! `POST /v1/chat/completions`, whole and streamed.
//!
//! Invariants:
//! - The stream and the whole answer say the same and count the same.

use super::{errors::bad, schema};
use crate::{
    answer::Answer,
    reply::Say,
    step::{Live, Role, Step},
    words,
};
use bytes::Bytes;
use serde_json::{Value, json};

/// What is going to be said, streamed or not.
struct Plan<'a> {
    request: &'a Value,
    model: &'a str,
    say: &'a Say,
    texts: Vec<String>,
    calls: Vec<(String, String)>,
    finish: String,
}

pub(super) fn answer(request: &Value, model: &str, say: &Say) -> Answer {
    if let Some(wrong) = wrong(request, model) {
        return wrong;
    }
    let plan = plan(request, model, say);
    if request["stream"] != true || say.whole {
        return Answer::json(200, &whole(&plan));
    }
    Answer::events(match say.endless {
        Some(every) => {
            let chunk = chunks(&plan);
            let word =
                move |count| event(&chunk(0, json!({"content": format!("word{count} ")}), None));
            vec![begin(&plan, 0), Step::Live(Live::every(every, word))]
        }
        None => steps(&plan),
    })
}

fn wrong(request: &Value, model: &str) -> Option<Answer> {
    if request.is_null() {
        return Some(super::errors::refused(400, "the body is not JSON"));
    }
    if words::messages(request).next().is_none() {
        return Some(bad("messages", None, "messages must not be empty"));
    }
    let reasons = ["o1", "o3", "o4", "gpt-5"].iter().any(|family| model.starts_with(family));
    if reasons && !request["max_tokens"].is_null() {
        let message = "Unsupported parameter: 'max_tokens' is not supported with this model. \
                       Use 'max_completion_tokens' instead.";
        return Some(bad("max_tokens", Some("unsupported_parameter"), message));
    }
    None
}

fn plan<'a>(request: &'a Value, model: &'a str, say: &'a Say) -> Plan<'a> {
    let is_result = words::messages(request).last().is_some_and(|last| last["role"] == "tool");
    let tool = request["tools"][0]["function"]["name"].as_str().filter(|_| !is_result);
    let calls = words::calls(model, tool, &say.tools);
    let usual = schema::answer(request).unwrap_or_else(|| words::echo(request));
    let said = say.text.clone().unwrap_or(usual);
    let limit =
        request["max_completion_tokens"].as_u64().or_else(|| request["max_tokens"].as_u64());
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    let cut = limit.is_some_and(|limit| limit < words::count(&said));
    let stop = &request["stop"];
    let stops = stop.as_array().into_iter().flatten().chain([stop]).filter_map(Value::as_str);
    let (said, _) = words::until(stops, words::first(&said, limit.unwrap_or(usize::MAX)));
    let choices = request["n"].as_u64().unwrap_or(1).clamp(1, 128);
    let text = |choice| if choice == 0 { said.clone() } else { format!("{said} ({choice})") };
    let finish = match (&say.finish, calls.is_empty(), cut) {
        (Some(finish), _, _) => finish.as_str(),
        (None, false, _) => "tool_calls",
        (None, true, true) => "length",
        (None, true, false) => "stop",
    };
    let texts = (0..choices).map(text).collect();
    Plan { request, model, say, texts, calls, finish: finish.to_owned() }
}

fn usage(plan: &Plan<'_>) -> Value {
    if let Some(usage) = &plan.say.usage {
        return usage.clone();
    }
    let prompt: usize =
        words::messages(plan.request).map(|message| words::tokens(&message["content"])).sum();
    let thought = plan.say.thinking.as_deref().map_or(0, words::count);
    let said: usize = match &plan.say.refusal {
        Some(refusal) => words::count(refusal),
        None if !plan.calls.is_empty() => plan.calls.len(),
        None => plan.texts.iter().map(|text| words::count(text)).sum(),
    };
    let completion = said + thought;
    json!({
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": thought, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
    })
}

fn call_id(at: usize) -> String {
    if at == 0 { "call_fake".to_owned() } else { format!("call_fake_{at}") }
}

fn whole(plan: &Plan<'_>) -> Value {
    let calls = plan.calls.iter().enumerate().map(|(at, (name, arguments))| {
        let function = json!({"name": name, "arguments": arguments});
        json!({"id": call_id(at), "type": "function", "function": function})
    });
    let calls: Vec<Value> = calls.collect();
    let choices = plan.texts.iter().enumerate().map(|(index, text)| {
        let silent = plan.say.refusal.is_some() || !calls.is_empty();
        let content = if silent { Value::Null } else { json!(text) };
        let mut message = json!({"role": "assistant", "content": content,
            "refusal": plan.say.refusal, "annotations": []});
        if !calls.is_empty() {
            message["tool_calls"] = json!(calls);
        }
        if let Some(thinking) = &plan.say.thinking {
            message["reasoning_content"] = json!(thinking);
        }
        let logprobs = logprobs(plan, words_of(&message["content"]));
        json!({"index": index, "logprobs": logprobs, "finish_reason": plan.finish, "message": message})
    });
    json!({
        "id": "chatcmpl-fake", "object": "chat.completion", "created": 1_700_000_000,
        "model": plan.model, "choices": choices.collect::<Vec<_>>(), "usage": usage(plan),
        "service_tier": "default", "system_fingerprint": "fp_fake",
    })
}

fn chunks(plan: &Plan<'_>) -> impl Fn(usize, Value, Option<&str>) -> Value + Send + Sync + use<> {
    let model = plan.model.to_owned();
    let with_usage = plan.request["stream_options"]["include_usage"] == true;
    move |index, delta, finish| {
        let choice =
            json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": finish});
        let mut chunk = json!({
            "id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1_700_000_000,
            "model": model, "service_tier": "default", "system_fingerprint": "fp_fake",
            "choices": [choice],
        });
        if with_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }
}

fn event(chunk: &Value) -> Bytes {
    Bytes::from(format!("data: {chunk}\n\n"))
}

fn begin(plan: &Plan<'_>, index: usize) -> Step {
    let delta = json!({"role": "assistant", "content": "", "refusal": null});
    Step::Send(Role::Begin, event(&chunks(plan)(index, delta, None)))
}

fn steps(plan: &Plan<'_>) -> Vec<Step> {
    let chunk = chunks(plan);
    let mut steps = Vec::new();
    if plan.say.empty_first {
        let mut first = chunk(0, json!({}), None);
        first["choices"] = json!([]);
        first["prompt_filter_results"] = json!([{"prompt_index": 0, "content_filter_results": {}}]);
        steps.push(Step::Send(Role::Begin, event(&first)));
    }
    let by_choice: Vec<Vec<Value>> = plan.texts.iter().map(|text| deltas(plan, text)).collect();
    if plan.calls.is_empty() {
        steps.extend((0..by_choice.len()).map(|index| begin(plan, index)));
    }
    // Choices come interleaved, a piece of each in turn.
    let longest = by_choice.iter().map(Vec::len).max().unwrap_or(0);
    for at in 0..longest {
        for (index, deltas) in by_choice.iter().enumerate() {
            let Some(delta) = deltas.get(at) else { continue };
            let mut piece = chunk(index, delta.clone(), None);
            piece["choices"][0]["logprobs"] = logprobs(plan, words_of(&delta["content"]));
            steps.push(Step::Send(Role::Content, event(&piece)));
        }
    }
    for index in 0..by_choice.len() {
        let finish = event(&chunk(index, json!({}), Some(&plan.finish)));
        steps.push(Step::Send(Role::Finish, finish));
    }
    if plan.request["stream_options"]["include_usage"] == true {
        let mut last = chunk(0, json!({}), None);
        last["choices"] = json!([]);
        last["usage"] = usage(plan);
        steps.push(Step::Send(Role::Usage, event(&last)));
    }
    steps.push(Step::Send(Role::Done, Bytes::from_static(b"data: [DONE]\n\n")));
    steps
}

fn words_of(text: &Value) -> impl Iterator<Item = &str> {
    text.as_str().unwrap_or_default().split_inclusive(' ')
}

/// Every word is as likely; null where nobody asked.
fn logprobs<'a>(plan: &Plan<'_>, words: impl Iterator<Item = &'a str>) -> Value {
    if plan.request["logprobs"] != true {
        return Value::Null;
    }
    let each = words.map(|word| {
        let mut token = json!({"token": word, "logprob": -0.25, "bytes": word.as_bytes()});
        let most = plan.request["top_logprobs"].as_u64().unwrap_or(0).min(1);
        token["top_logprobs"] = (0..most).map(|_| token.clone()).collect();
        token
    });
    json!({"content": each.collect::<Vec<_>>(), "refusal": null})
}

/// What one choice says, piece by piece.
fn deltas(plan: &Plan<'_>, text: &str) -> Vec<Value> {
    let each = |field: &str, text: &str| -> Vec<Value> {
        text.split_inclusive(' ').map(|word| json!({field: word})).collect()
    };
    let mut out = Vec::new();
    if let Some(thinking) = &plan.say.thinking {
        out.extend(each("reasoning_content", thinking));
    }
    if let Some(refusal) = &plan.say.refusal {
        out.extend(each("refusal", refusal));
    } else if plan.calls.is_empty() {
        out.extend(each("content", text));
    }
    for (index, (name, arguments)) in plan.calls.iter().enumerate() {
        let at_once = if plan.say.tools_whole { arguments.as_str() } else { "" };
        let function = json!({"name": name, "arguments": at_once});
        let call =
            json!({"index": index, "id": call_id(index), "type": "function", "function": function});
        out.push(json!({"role": "assistant", "content": null, "tool_calls": [call]}));
        if !plan.say.tools_whole {
            out.extend(words::pieces(arguments).into_iter().map(
                |piece| json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}),
            ));
        }
    }
    out
}
