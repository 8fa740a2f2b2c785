//! `POST /v1/embeddings`: request and answer.
//!
//! Invariants:
//! - The four forms of `input` keep their order.
//! - `base64` is the little-endian f32 bytes; the Python SDK asks for it
//!   whenever its user names no format.

use super::{
    error::Refusal,
    fields::{Fields, wrong},
    usage,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use skein_proto::model::v1::{
    EmbedInput, EmbedRequest, EmbedResponse, TokenIds, embed_input::Input,
};

/// Most inputs in one request.
const INPUTS: usize = 2048;

pub struct Embed {
    pub request: EmbedRequest,
    pub base64: bool,
}

pub fn parse(body: &[u8]) -> Result<Embed, Refusal> {
    let body: Value = serde_json::from_slice(body).map_err(|error| Refusal::bad_json(&error))?;
    let mut fields = Fields::of(body, "")?;
    let model = fields.required_text("model")?;
    let input = fields.take("input").ok_or_else(|| fields.missing("input"))?;
    let inputs = inputs(input)?;
    if inputs.is_empty() || inputs.len() > INPUTS {
        let found = format!("{} long", inputs.len());
        return Err(fields.out_of_range("input", &found, &format!("1 to {INPUTS} long")));
    }
    let base64 = match fields.text("encoding_format")?.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            let found = format!("{other:?}");
            return Err(fields.out_of_range("encoding_format", &found, "float or base64"));
        }
    };
    let dimensions = fields.integer_in("dimensions", 1, 65_536)?;
    let request = EmbedRequest {
        call_id: uuid::Uuid::now_v7().to_string(),
        model,
        inputs,
        dimensions: dimensions.and_then(|dimensions| i32::try_from(dimensions).ok()),
        extra_json: fields.extra(),
        ..EmbedRequest::default()
    };
    Ok(Embed { request, base64 })
}

fn inputs(input: Value) -> Result<Vec<EmbedInput>, Refusal> {
    match input {
        Value::String(text) => Ok(vec![text_input(text, "input")?]),
        Value::Array(list) if list.first().is_some_and(Value::is_number) => {
            Ok(vec![tokens(&list, "input")?])
        }
        Value::Array(list) => list
            .into_iter()
            .enumerate()
            .map(|(index, value)| {
                let path = format!("input[{index}]");
                match value {
                    Value::String(text) => text_input(text, &path),
                    Value::Array(list) => tokens(&list, &path),
                    other => Err(wrong(&path, "a string or an array of token ids", &other)),
                }
            })
            .collect(),
        other => Err(wrong("input", "a string or an array", &other)),
    }
}

fn text_input(text: String, path: &str) -> Result<EmbedInput, Refusal> {
    if text.is_empty() {
        return Err(Refusal::invalid(path, "invalid_value", format!("{path} must not be empty")));
    }
    Ok(EmbedInput { input: Some(Input::Text(text)) })
}

fn tokens(list: &[Value], path: &str) -> Result<EmbedInput, Refusal> {
    let id = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| wrong(path, "an array of token ids", value))
    };
    let ids = list.iter().map(id).collect::<Result<Vec<_>, _>>()?;
    if ids.is_empty() {
        return Err(Refusal::invalid(path, "invalid_value", format!("{path} must not be empty")));
    }
    Ok(EmbedInput { input: Some(Input::Tokens(TokenIds { ids })) })
}

pub fn answer(response: &EmbedResponse, base64: bool) -> Value {
    let data: Vec<_> = response
        .embeddings
        .iter()
        .enumerate()
        .map(|(index, embedding)| {
            let values = &embedding.values;
            let embedding = if base64 {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                Value::from(STANDARD.encode(bytes))
            } else {
                json!(values)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let counted = response.usage.unwrap_or_default();
    let tokens = usage::input_tokens(&counted);
    let mut answer = Map::new();
    answer.insert("object".into(), "list".into());
    answer.insert("data".into(), data.into());
    answer.insert("model".into(), response.model.as_str().into());
    answer.insert("usage".into(), json!({"prompt_tokens": tokens, "total_tokens": tokens}));
    answer.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use skein_proto::model::v1::Embedding;

    fn read(input: &Value) -> Result<Embed, Refusal> {
        parse(json!({"model": "m", "input": input, "user": "u"}).to_string().as_bytes())
    }

    #[test]
    fn the_four_forms_of_input() {
        for (input, count) in
            [(json!("a"), 1), (json!(["a", "b"]), 2), (json!([1, 2]), 1), (json!([[1], [2, 3]]), 2)]
        {
            let embed = read(&input).unwrap();
            assert_eq!(embed.request.inputs.len(), count, "{input}");
            assert_eq!(embed.request.extra_json, r#"{"user":"u"}"#);
        }
    }

    #[test]
    fn a_wrong_input_is_named() {
        for (input, param) in [
            (json!([]), "input"),
            (json!(""), "input"),
            (json!(7), "input"),
            (json!([1, -2]), "input"),
            (json!(["a", ""]), "input[1]"),
            (json!(["a", {}]), "input[1]"),
            (json!([[1], []]), "input[1]"),
            (json!(vec!["a"; INPUTS + 1]), "input"),
        ] {
            assert_eq!(read(&input).err().unwrap().param.as_deref(), Some(param));
        }
    }

    #[test]
    fn floats_and_base64_are_the_same_numbers() {
        let values = vec![1.0_f32, -0.5, 3.25e-3];
        let embeddings = vec![Embedding { values: values.clone() }];
        let response = EmbedResponse { embeddings, ..EmbedResponse::default() };
        let encoded = answer(&response, true);
        let bytes = STANDARD.decode(encoded["data"][0]["embedding"].as_str().unwrap()).unwrap();
        let decoded: Vec<f32> =
            bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
        assert_eq!(decoded, values);
        let plain = answer(&response, false);
        assert_eq!(plain["data"][0]["embedding"], json!(values));
    }
}
