//! `POST /v1/embeddings`.
//!
//! Invariants:
//! - Vectors have length 1, and the same text has the same one.
//! - The order is that of the inputs.

use super::errors::bad;
use crate::{answer::Answer, replay::Random, words};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

const MOST: usize = 2_048;

pub(super) fn answer(request: &Value) -> Answer {
    let model = request["model"].as_str().unwrap_or_default();
    let inputs = match &request["input"] {
        Value::Array(inputs) if inputs.iter().all(Value::is_number) => vec![&request["input"]],
        Value::Array(inputs) => inputs.iter().collect(),
        input => vec![input],
    };
    let is_empty = |input: &&Value| input.as_str() == Some("") || input.is_null();
    if inputs.is_empty() || inputs.iter().any(is_empty) || request["input"] == json!([]) {
        return bad("input", None, "'$.input' is invalid: it must not be empty");
    }
    if inputs.len() > MOST {
        let message = format!("'$.input' is invalid: at most {MOST} inputs in a request");
        return bad("input", None, &message);
    }
    if model.ends_with("ada-002") && !request["dimensions"].is_null() {
        return bad("dimensions", None, "This model does not support specifying dimensions.");
    }
    let asked = request["dimensions"].as_u64().and_then(|length| usize::try_from(length).ok());
    let usual = dimensions(model);
    let length = asked.unwrap_or(usual);
    if length == 0 || usual > 8 && length > usual {
        return bad("dimensions", None, "Invalid value for 'dimensions'");
    }
    let data = inputs.iter().enumerate().map(|(index, input)| {
        let vector = vector(&input.to_string(), length);
        let embedding = if request["encoding_format"] == "base64" {
            let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
            json!(STANDARD.encode(bytes))
        } else {
            json!(vector)
        };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    });
    let data: Vec<Value> = data.collect();
    let tokens: usize = inputs.iter().map(|input| tokens(input)).sum();
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    Answer::json(200, &json!({"object": "list", "data": data, "model": model, "usage": usage}))
}

/// As the real ones have, 8 for any other.
fn dimensions(model: &str) -> usize {
    match model {
        "text-embedding-3-small" | "text-embedding-ada-002" => 1_536,
        "text-embedding-3-large" => 3_072,
        _ => 8,
    }
}

fn tokens(input: &Value) -> usize {
    match input {
        Value::String(text) => words::count(text),
        Value::Array(tokens) => tokens.len(),
        _ => 1,
    }
}

fn vector(text: &str, length: usize) -> Vec<f32> {
    let mut random = Random::of(text);
    let mut draw = || {
        let [low, high, ..] = random.next().to_le_bytes();
        f32::from(i16::from_le_bytes([low, high])) + 0.5
    };
    let raw: Vec<f32> = (0..length).map(|_| draw()).collect();
    let norm = raw.iter().map(|value| value * value).sum::<f32>().sqrt();
    raw.iter().map(|value| value / norm).collect()
}
