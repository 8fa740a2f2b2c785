//! The answers, in OpenAI's words.

use super::log::Open;
use axum::{
    Json,
    body::{Body, Bytes},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::stream;
use serde_json::{Value, json};
use std::{io, time::Duration};

/// What a stream does next.
enum Step {
    Send(Value),
    Wait(Duration),
    /// Nothing more, but the connection stays.
    Stall,
    /// The connection breaks.
    Cut,
    Done,
}

pub(super) async fn chat(request: &Value, mut entry: Open) -> Response {
    let model = request["model"].as_str().unwrap_or_default();
    if let Some(response) = refusal(model) {
        entry.done();
        return response;
    }
    if model == "silent" {
        // The caller's leaving drops this future and with it the entry.
        std::future::pending::<()>().await;
    }
    if let Some(late) = model.strip_prefix("late-").and_then(|late| late.parse().ok()) {
        tokio::time::sleep(Duration::from_millis(late)).await;
    }
    if request["stream"] != true || model == "whole" {
        entry.done();
        return Json(whole(request)).into_response();
    }
    let steps = steps(request, model);
    let body = stream::unfold((steps, entry), |(mut steps, mut entry)| async {
        loop {
            let piece = match steps.next()? {
                Step::Wait(time) => {
                    tokio::time::sleep(time).await;
                    continue;
                }
                Step::Stall => std::future::pending().await,
                Step::Send(chunk) => Ok(Bytes::from(format!("data: {chunk}\n\n"))),
                Step::Cut => {
                    entry.done();
                    Err(io::Error::from(io::ErrorKind::ConnectionReset))
                }
                Step::Done => {
                    entry.done();
                    Ok(Bytes::from_static(b"data: [DONE]\n\n"))
                }
            };
            return Some((piece, (steps, entry)));
        }
    });
    ([("content-type", "text/event-stream; charset=utf-8")], Body::from_stream(body))
        .into_response()
}

fn refusal(model: &str) -> Option<Response> {
    if model == "error-quota" {
        return Some(error(
            429,
            "insufficient_quota",
            Some("insufficient_quota"),
            "You exceeded your current quota",
        ));
    }
    if let Some(status) = model.strip_prefix("html-").and_then(|status| status.parse().ok()) {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        return Some(
            (status, [("content-type", "text/html")], "<html>sorry</html>").into_response(),
        );
    }
    let status: u16 = model.strip_prefix("error-")?.parse().ok()?;
    let (kind, code, message) = match status {
        400 => ("invalid_request_error", Some("unsupported_parameter"), "Unsupported parameter"),
        401 => ("invalid_request_error", Some("invalid_api_key"), "Incorrect API key provided"),
        404 => ("invalid_request_error", Some("model_not_found"), "The model does not exist"),
        429 => ("rate_limit_error", Some("rate_limit_exceeded"), "Rate limit reached"),
        _ => ("server_error", None, "The server had an error"),
    };
    Some(error(status, kind, code, message))
}

pub(super) fn error(status: u16, kind: &str, code: Option<&str>, message: &str) -> Response {
    let param = (code == Some("unsupported_parameter")).then_some("temperature");
    let body = json!({"error": {"message": message, "type": kind, "param": param, "code": code}});
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(body)).into_response();
    if code == Some("rate_limit_exceeded") {
        response.headers_mut().insert("retry-after", http::HeaderValue::from_static("7"));
    }
    response
}

fn steps(request: &Value, model: &str) -> Box<dyn Iterator<Item = Step> + Send> {
    let chunk = chunks(model);
    let text = |text: &str| Step::Send(chunk(json!({"content": text}), None));
    let begin =
        Step::Send(chunk(json!({"role": "assistant", "content": "", "refusal": null}), None));
    if let Some(pause) = model.strip_prefix("slow-").and_then(|pause| pause.parse().ok()) {
        let chunk = chunks(model);
        let words = (0_u64..).flat_map(move |count| {
            let word = chunk(json!({"content": format!("word{count} ")}), None);
            [Step::Wait(Duration::from_millis(pause)), Step::Send(word)]
        });
        return Box::new(std::iter::once(begin).chain(words));
    }
    let steps = match model {
        "silent-body" => vec![Step::Stall],
        "stall" => vec![begin, text("one "), Step::Stall],
        // The pause lets the server send what it has before the connection breaks.
        "cut" => {
            let pause = Step::Wait(Duration::from_millis(1));
            vec![begin, text("one "), text("two "), pause, Step::Cut]
        }
        "error-in-stream" => {
            let error =
                json!({"error": {"message": "overloaded", "type": "server_error", "code": null}});
            vec![begin, text("one "), Step::Send(error), Step::Done]
        }
        "tool" => tool_call(request, &chunk),
        _ => {
            let answer = answer(request);
            let mut steps = vec![begin];
            let pause = model.strip_prefix("paced-").and_then(|pause| pause.parse().ok());
            for word in answer.split_inclusive(' ') {
                steps.extend(pause.map(|pause| Step::Wait(Duration::from_millis(pause))));
                steps.push(text(word));
            }
            steps.push(Step::Send(chunk(json!({}), Some(finish_reason(request)))));
            if model != "no-usage" && request["stream_options"]["include_usage"] == true {
                let mut last = chunk(json!({}), None);
                last["choices"] = json!([]);
                last["usage"] = usage(request, &answer);
                steps.push(Step::Send(last));
            }
            steps.push(Step::Done);
            steps
        }
    };
    Box::new(steps.into_iter())
}

fn chunks(model: &str) -> impl Fn(Value, Option<&str>) -> Value + Send + use<> {
    let model = model.to_owned();
    move |delta, finish_reason| {
        json!({
            "id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1_700_000_000,
            "model": model, "system_fingerprint": "fp_fake",
            "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason}],
        })
    }
}

fn tool_call(request: &Value, chunk: &dyn Fn(Value, Option<&str>) -> Value) -> Vec<Step> {
    let name = request["tools"][0]["function"]["name"].as_str().unwrap_or("none");
    let mut pieces = vec![json!({"role": "assistant", "content": null, "tool_calls": [
        {"index": 0, "id": "call_fake", "type": "function", "function": {"name": name, "arguments": ""}},
    ]})];
    pieces.extend(
        ["{\"ci", "ty\":\"Lis", "bon\"}"]
            .map(|piece| json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})),
    );
    let mut steps: Vec<_> =
        pieces.into_iter().map(|piece| Step::Send(chunk(piece, None))).collect();
    steps.push(Step::Send(chunk(json!({}), Some("tool_calls"))));
    let mut last = chunk(json!({}), None);
    last["choices"] = json!([]);
    last["usage"] = usage(request, "call");
    steps.extend([Step::Send(last), Step::Done]);
    steps
}

fn whole(request: &Value) -> Value {
    let answer = answer(request);
    json!({
        "id": "chatcmpl-fake", "object": "chat.completion", "created": 1_700_000_000,
        "model": request["model"], "system_fingerprint": "fp_fake", "usage": usage(request, &answer),
        "choices": [{"index": 0, "logprobs": null, "finish_reason": finish_reason(request),
            "message": {"role": "assistant", "content": answer, "refusal": null}}],
    })
}

/// Cut where `max_tokens` words are said.
fn answer(request: &Value) -> String {
    let said = format!("You said: {}", last_message(request));
    match limit(request) {
        Some(limit) => said.split_inclusive(' ').take(limit).collect(),
        None => said,
    }
}

fn limit(request: &Value) -> Option<usize> {
    let limit =
        request["max_completion_tokens"].as_u64().or_else(|| request["max_tokens"].as_u64())?;
    usize::try_from(limit).ok()
}

fn finish_reason(request: &Value) -> &'static str {
    let said = words(&format!("You said: {}", last_message(request)));
    if limit(request).is_some_and(|limit| limit < said) { "length" } else { "stop" }
}

fn last_message(request: &Value) -> String {
    let last = request["messages"].as_array().and_then(|messages| messages.last());
    last.map(|message| content(&message["content"])).unwrap_or_default()
}

fn content(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

fn usage(request: &Value, answer: &str) -> Value {
    let messages = request["messages"].as_array().into_iter().flatten();
    let prompt: usize = messages.map(|message| words(&content(&message["content"]))).sum();
    let completion = words(answer);
    json!({
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    })
}

pub(super) fn embeddings(request: &Value) -> Response {
    let model = request["model"].as_str().unwrap_or_default();
    if let Some(response) = refusal(model) {
        return response;
    }
    let inputs = match &request["input"] {
        Value::Array(inputs) if inputs.iter().all(Value::is_number) => {
            vec![request["input"].clone()]
        }
        Value::Array(inputs) => inputs.clone(),
        input => vec![input.clone()],
    };
    let length =
        request["dimensions"].as_u64().and_then(|length| usize::try_from(length).ok()).unwrap_or(8);
    let tokens: usize = inputs.iter().map(|input| input.as_str().map_or(1, words)).sum();
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, input)| {
            let vector = vector(&input.to_string(), length);
            let embedding = if request["encoding_format"] == "base64" {
                let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                json!(STANDARD.encode(bytes))
            } else {
                json!(vector)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    Json(json!({"object": "list", "data": data, "model": model, "usage": usage})).into_response()
}

/// Of length 1 and the same for the same text (FNV-1a, then xorshift).
fn vector(text: &str, length: usize) -> Vec<f32> {
    let seed = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut state = seed | 1;
    let raw: Vec<f32> = (0..length.max(1))
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            f32::from(i16::from_le_bytes([state.to_le_bytes()[0], state.to_le_bytes()[1]])) + 0.5
        })
        .collect();
    let norm = raw.iter().map(|value| value * value).sum::<f32>().sqrt();
    raw.iter().map(|value| value / norm).collect()
}
