//! Models, versions and deployments: any name is one, and says what it does.
//!
//! Invariants:
//! - A version's id is made of its model's name, and gives it back.

use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Output is a list of pieces of text.
    Chat,
    /// Output is one URL.
    Image,
    /// Output is a list of URLs.
    Images,
}

const LISTS: [&str; 2] = ["schnell", "sdxl"];
const PICTURES: [&str; 5] = ["flux", "imagen", "ideogram", "recraft", "image"];
/// Models that the list names.
const KNOWN: [&str; 3] = [
    "meta/meta-llama-3-8b-instruct",
    "black-forest-labs/flux-schnell",
    "black-forest-labs/flux-1.1-pro",
];

impl Kind {
    pub(super) fn of(model: &str, input: &Value) -> Self {
        let any = |parts: &[&str]| parts.iter().any(|part| model.contains(part));
        if any(&LISTS) || any(&PICTURES) && !input["num_outputs"].is_null() {
            Self::Images
        } else if any(&PICTURES) {
            Self::Image
        } else {
            Self::Chat
        }
    }
}

/// 64 hexadecimal digits; names of up to 32 bytes come back whole.
pub(super) fn version_of(model: &str) -> String {
    format!("{:0<64}", hex::encode(model)).chars().take(64).collect()
}

/// The model of `owner/name`, `owner/name:version` or a version's id.
pub(super) fn model_of(version: &str) -> Option<String> {
    if let Some((model, _)) = version.split_once(':') {
        return Some(model.to_owned());
    }
    if version.contains('/') {
        return Some(version.to_owned());
    }
    let name = String::from_utf8(hex::decode(version).ok()?).ok()?;
    let name = name.trim_end_matches('\0');
    name.contains('/').then(|| name.to_owned())
}

pub(super) fn model(name: &str, origin: &str) -> Value {
    let (owner, short) = name.split_once('/').unwrap_or(("", name));
    json!({
        "url": format!("{origin}/{name}"), "owner": owner, "name": short,
        "description": "A fake", "visibility": "public", "github_url": null, "paper_url": null,
        "license_url": null, "run_count": 1, "cover_image_url": null, "default_example": null,
        "latest_version": version(name), "is_official": true,
    })
}

pub(super) fn version(name: &str) -> Value {
    let output = match Kind::of(name, &Value::Null) {
        Kind::Chat => json!({"type": "array", "title": "Output", "items": {"type": "string"},
            "x-cog-array-type": "iterator", "x-cog-array-display": "concatenate"}),
        Kind::Image => json!({"type": "string", "title": "Output", "format": "uri"}),
        Kind::Images => {
            json!({"type": "array", "title": "Output", "items": {"type": "string", "format": "uri"}})
        }
    };
    let prompt = json!({"type": "string", "title": "Prompt", "x-order": 0});
    let input = json!({"type": "object", "title": "Input", "properties": {"prompt": prompt}});
    let schema = json!({"openapi": "3.0.2", "info": {"title": "Cog", "version": "0.1.0"},
        "components": {"schemas": {"Input": input, "Output": output}}});
    json!({"id": version_of(name), "created_at": "2026-01-01T00:00:00.000000Z",
        "cog_version": "0.16.0", "openapi_schema": schema})
}

pub(super) fn deployment(name: &str) -> Value {
    let (owner, short) = name.split_once('/').unwrap_or(("", name));
    let configuration = json!({"hardware": "gpu-l40s", "min_instances": 0, "max_instances": 1});
    let account = json!({"type": "organization", "username": owner, "name": owner});
    let release = json!({"number": 1, "model": name, "version": version_of(name),
        "created_at": "2026-01-01T00:00:00.000000Z", "created_by": account,
        "configuration": configuration});
    json!({"owner": owner, "name": short, "current_release": release})
}

pub(super) fn known(origin: &str) -> Vec<Value> {
    KNOWN.iter().map(|name| model(name, origin)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_gives_its_model_back() {
        let version = version_of("meta/llama-3");
        assert_eq!(version.len(), 64);
        for form in [version.as_str(), "meta/llama-3", "meta/llama-3:1234"] {
            assert_eq!(model_of(form).as_deref(), Some("meta/llama-3"), "{form}");
        }
        assert_eq!(model_of("nothing"), None);
    }
}
