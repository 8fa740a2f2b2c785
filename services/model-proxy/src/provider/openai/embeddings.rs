//! `POST /embeddings`: asked for in base64, taken in either form.
//!
//! Invariant: as many vectors as inputs, in their order, all of one length and
//! of finite numbers; anything else is the provider's error, not half an answer.

use super::{extra, refusal::Voice};
use crate::{error::Error, provider::Embedded};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use skein_proto::model::v1::{EmbedRequest, Embedding, Usage, embed_input::Input};

pub(super) fn body(model: &str, request: &EmbedRequest) -> Result<Map<String, Value>, Error> {
    let input: Vec<Value> = request
        .inputs
        .iter()
        .map(|input| match &input.input {
            Some(Input::Text(text)) => json!(text),
            Some(Input::Tokens(tokens)) => json!(tokens.ids),
            None => json!(""),
        })
        .collect();
    let mut body = Map::new();
    body.insert("model".into(), model.into());
    body.insert("input".into(), input.into());
    // A third of the bytes, and no digits to parse.
    body.insert("encoding_format".into(), "base64".into());
    body.extend(request.dimensions.map(|length| ("dimensions".into(), length.into())));
    extra::merge(&mut body, extra::object("extra_json", &request.extra_json)?, &[]);
    Ok(body)
}

pub(super) fn read(voice: &Voice, inputs: usize, body: &[u8]) -> Result<Embedded, Error> {
    let answer = voice.parse(body)?;
    if !answer["error"].is_null() {
        return Err(voice.refusal_inside(&answer));
    }
    let data =
        answer["data"].as_array().ok_or_else(|| voice.malformed("embeddings without `data`"))?;
    let mut embeddings = vec![Embedding::default(); inputs];
    if data.len() != inputs {
        let message = format!("{} embeddings for {inputs} inputs", data.len());
        return Err(voice.malformed(message));
    }
    for (position, entry) in data.iter().enumerate() {
        let index = match &entry["index"] {
            Value::Null => Some(position),
            index => index.as_u64().and_then(|index| usize::try_from(index).ok()),
        };
        let place = index.and_then(|index| embeddings.get_mut(index));
        let place = place.filter(|place| place.values.is_empty()).ok_or_else(|| {
            voice.malformed("an embedding for an input that was not sent, or a second one")
        })?;
        place.values = values(voice, &entry["embedding"])?;
    }
    let length = embeddings.first().map_or(0, |embedding| embedding.values.len());
    if length == 0 || embeddings.iter().any(|embedding| embedding.values.len() != length) {
        return Err(voice.malformed("embeddings are missing or differ in length"));
    }
    let tokens = extra::count(&answer["usage"]["prompt_tokens"]).filter(|tokens| *tokens > 0);
    let usage = tokens.map(|tokens| Usage { input_uncached: tokens, ..Usage::default() });
    Ok(Embedded { embeddings, usage })
}

fn values(voice: &Voice, embedding: &Value) -> Result<Vec<f32>, Error> {
    let values: Vec<f32> = match embedding {
        Value::String(text) => {
            let bytes =
                STANDARD.decode(text).ok().filter(|bytes| bytes.len() % 4 == 0).ok_or_else(
                    || voice.malformed("an embedding is not base64 of 32-bit floats"),
                )?;
            let (numbers, _) = bytes.as_chunks::<4>();
            numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        }
        Value::Array(numbers) => {
            #[expect(clippy::cast_possible_truncation, reason = "embeddings are 32-bit floats")]
            let float = |number: &Value| number.as_f64().map(|number| number as f32);
            let values: Option<Vec<f32>> = numbers.iter().map(float).collect();
            values
                .ok_or_else(|| voice.malformed("an embedding holds something that is no number"))?
        }
        _ => return Err(voice.malformed("an embedding is neither base64 nor a list")),
    };
    if values.iter().all(|value| value.is_finite()) {
        Ok(values)
    } else {
        Err(voice.malformed("an embedding holds NaN or infinity"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(inputs: usize, body: &[u8]) -> Result<Embedded, Error> {
        super::read(&Voice { name: "openai".into(), variable: "OPENAI_API_KEY" }, inputs, body)
    }

    #[test]
    fn both_forms_and_any_order_are_read() {
        let floats = br#"{"data":[{"index":1,"embedding":[0,1]},{"index":0,"embedding":[1.0,0.5]}],
            "usage":{"prompt_tokens":3,"total_tokens":3}}"#;
        let read_floats = read(2, floats).unwrap();
        let encode = |values: [f32; 2]| STANDARD.encode(values.map(f32::to_le_bytes).concat());
        let body = json!({"data": [
            {"index": 0, "embedding": encode([1.0, 0.5])},
            {"index": 1, "embedding": encode([0.0, 1.0])},
        ]});
        let read_base64 = read(2, body.to_string().as_bytes()).unwrap();
        assert_eq!(read_floats.embeddings, read_base64.embeddings);
        assert_eq!(read_floats.embeddings[0].values, [1.0, 0.5]);
        assert_eq!(read_floats.usage.unwrap().input_uncached, 3);
        assert_eq!(read_base64.usage, None, "unknown is not zero");
        let zero = br#"{"data":[{"embedding":[1]}],"usage":{"prompt_tokens":0}}"#;
        assert_eq!(read(1, zero).unwrap().usage, None, "nor is zero a count");
    }

    #[test]
    fn half_an_answer_is_an_error() {
        for body in [
            r#"{"data":[{"index":0,"embedding":[1]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[1,2]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":5,"embedding":[1]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[1]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":"1","embedding":[1]}]}"#,
            r#"{"data":[{"embedding":[1]},{"embedding":[1]},{"embedding":[1]}]}"#,
            r#"{"data":[{"index":0,"embedding":["x"]},{"index":1,"embedding":[1]}]}"#,
            r#"{"data":[{"index":0,"embedding":"AADAfw=="},{"index":1,"embedding":"AADAfw=="}]}"#,
            "<html>",
        ] {
            assert!(read(2, body.as_bytes()).is_err(), "{body}");
        }
    }
}
