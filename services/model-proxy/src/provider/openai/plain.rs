//! The chunk that most chunks are, a piece of text and nothing else, read
//! without building a tree of it.
//!
//! Invariant: a chunk with anything else in it, even a field nobody knows, is
//! none of these, and is read in full by `stream`.

use serde::{Deserialize, de::IgnoredAny};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chunk {
    pub(super) choices: Vec<Choice>,
    pub(super) service_tier: Option<String>,
    pub(super) system_fingerprint: Option<String>,
    #[serde(rename = "id", default)]
    _id: IgnoredAny,
    #[serde(rename = "object", default)]
    _object: IgnoredAny,
    #[serde(rename = "created", default)]
    _created: IgnoredAny,
    #[serde(rename = "model", default)]
    _model: IgnoredAny,
    #[serde(rename = "obfuscation", default)]
    _obfuscation: IgnoredAny,
    #[serde(rename = "usage", default)]
    _usage: Null,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Choice {
    pub(super) index: u32,
    pub(super) delta: Delta,
    #[serde(rename = "finish_reason", default)]
    _finish_reason: Null,
    #[serde(rename = "logprobs", default)]
    _logprobs: Null,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Delta {
    pub(super) content: Option<String>,
    #[serde(rename = "role", default)]
    _role: IgnoredAny,
    #[serde(rename = "refusal", default)]
    _refusal: Null,
}

/// `null`, or the chunk is no plain one.
type Null = ();

pub(super) fn read(data: &str) -> Option<Chunk> {
    serde_json::from_str(data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(delta: &str, rest: &str) -> String {
        format!(
            r#"{{"id":"x","object":"chat.completion.chunk","created":1,"model":"m",
            "choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":null}}]{rest}}}"#
        )
    }

    #[test]
    fn text_alone_is_plain_and_nothing_else_is() {
        let plain = read(&chunk(r#"{"role":"assistant","content":"hi","refusal":null}"#, ""));
        assert_eq!(plain.unwrap().choices[0].delta.content.as_deref(), Some("hi"));
        let known = r#","usage":null,"service_tier":"default","system_fingerprint":null"#;
        let plain = read(&chunk(r#"{"content":""}"#, known)).unwrap();
        assert_eq!(plain.service_tier.as_deref(), Some("default"));
        for delta in [r#"{"refusal":"no"}"#, r#"{"tool_calls":[]}"#, r#"{"reasoning":"a"}"#] {
            assert!(read(&chunk(delta, "")).is_none(), "{delta}");
        }
        for rest in [r#","usage":{"total_tokens":1}"#, r#","error":null"#, r#","new":1"#] {
            assert!(read(&chunk(r#"{"content":"a"}"#, rest)).is_none(), "{rest}");
        }
        assert!(read("[]").is_none() && read("nonsense").is_none());
    }
}
