//! `POST /v1/images/generations`, whole and with partial images.
//!
//! Invariants:
//! - gpt-image models give data and usage and refuse `response_format`; dall-e
//!   models give URLs unless data is asked, and no usage.

use super::errors::bad;
use crate::{
    answer::Answer,
    images,
    step::{Role, Step},
    words,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};

const CREATED: u64 = 1_700_000_000;
/// Tokens of a picture made at medium quality.
const TOKENS: usize = 1_056;

pub(super) fn answer(request: &Value, origin: &str) -> Answer {
    let model = request["model"].as_str().unwrap_or("dall-e-2");
    let Some(prompt) = request["prompt"].as_str().filter(|prompt| !prompt.is_empty()) else {
        return bad("prompt", None, "Missing required parameter: 'prompt'.");
    };
    let modern = model.starts_with("gpt-image");
    if modern && !request["response_format"].is_null() {
        let message = "Unknown parameter: 'response_format'.";
        return bad("response_format", Some("unknown_parameter"), message);
    }
    let size = request["size"].as_str().filter(|size| *size != "auto").unwrap_or("1024x1024");
    let Some(sides) = images::parse_size(size) else {
        return bad("size", Some("invalid_value"), "Invalid value for 'size'.");
    };
    let count = request["n"].as_u64().unwrap_or(1);
    if count == 0 || count > 10 || model == "dall-e-3" && count > 1 {
        return bad("n", Some("invalid_value"), "Invalid value for 'n'.");
    }
    let names = (0..usize::try_from(count).unwrap_or(1)).map(|at| images::name(prompt, at, sides));
    let names: Vec<String> = names.collect();
    let data = |name: &String| STANDARD.encode(images::named(name).unwrap_or_default());
    if modern && request["stream"] == true {
        return Answer::events(steps(request, &data(&names[0]), prompt));
    }
    let b64 = modern || request["response_format"] == "b64_json";
    let pictures = names.iter().map(|name| {
        let mut picture = match b64 {
            true => json!({"b64_json": data(name)}),
            false => json!({"url": format!("{origin}/_pictures/{name}")}),
        };
        if model == "dall-e-3" {
            picture["revised_prompt"] = json!(format!("In detail: {prompt}"));
        }
        picture
    });
    let mut body = json!({"created": CREATED, "data": pictures.collect::<Vec<_>>()});
    if modern {
        body["background"] = json!("opaque");
        body["output_format"] = json!("png");
        body["quality"] = json!("medium");
        body["size"] = json!(size);
        body["usage"] = usage(prompt, names.len());
    }
    Answer::json(200, &body)
}

fn usage(prompt: &str, pictures: usize) -> Value {
    let (input, output) = (words::count(prompt), pictures * TOKENS);
    json!({
        "input_tokens": input, "output_tokens": output, "total_tokens": input + output,
        "input_tokens_details": {"text_tokens": input, "image_tokens": 0},
        "output_tokens_details": {"text_tokens": 0, "image_tokens": output},
    })
}

fn steps(request: &Value, data: &str, prompt: &str) -> Vec<Step> {
    let event = |kind: &str, extra: Value| {
        let mut event = json!({"type": kind, "b64_json": data, "created_at": CREATED,
            "background": "opaque", "output_format": "png", "quality": "medium",
            "size": request["size"].as_str().unwrap_or("1024x1024")});
        let extra = extra.as_object().into_iter().flatten();
        for (name, value) in extra {
            event[name] = value.clone();
        }
        Bytes::from(format!("event: {kind}\ndata: {event}\n\n"))
    };
    let partial = request["partial_images"].as_u64().unwrap_or(0).min(3);
    let mut steps: Vec<Step> = (0..partial)
        .map(|at| event("image_generation.partial_image", json!({"partial_image_index": at})))
        .map(|event| Step::Send(Role::Content, event))
        .collect();
    let done = event("image_generation.completed", json!({"usage": usage(prompt, 1)}));
    steps.push(Step::Send(Role::Done, done));
    steps
}
