//! How many tokens a call has used, from all places and names vendors put it.
//!
//! Invariants:
//! - Classes of tokens do not overlap: input without what came from the cache,
//!   output with the reasoning in it.
//! - What is not said is unknown: no usage at all, rather than one of zeros.

use crate::provider::extra;
use serde_json::Value;
use skein_proto::model::v1::Usage;

/// Of a chunk or an answer; Groq and Moonshot have had places of their own.
pub(super) fn find(chunk: &Value) -> Option<Usage> {
    let places = [&chunk["usage"], &chunk["x_groq"]["usage"], &chunk["choices"][0]["usage"]];
    let told = places.into_iter().filter(|place| place.is_object()).map(read);
    // Some servers fill in what they have not counted.
    told.into_iter().find(|usage| *usage != Usage::default())
}

fn read(usage: &Value) -> Usage {
    let count = |value: &Value| extra::count(value).unwrap_or_default();
    let first = |places: [&Value; 3]| places.into_iter().map(count).find(|count| *count > 0);
    let (input, output) = (count(&usage["prompt_tokens"]), count(&usage["completion_tokens"]));
    let input_details = &usage["prompt_tokens_details"];
    let output_details = &usage["completion_tokens_details"];
    let cached = first([
        &input_details["cached_tokens"],
        &usage["prompt_cache_hit_tokens"], // DeepSeek
        &usage["cached_tokens"],           // Moonshot
    ]);
    let read = cached.unwrap_or_default().min(input);
    let write = count(&input_details["cache_write_tokens"]).min(input - read);
    let reasoning =
        count(&output_details["reasoning_tokens"]).max(count(&usage["reasoning_tokens"]));
    // xAI counts reasoning beside the completion, everybody else inside.
    let together = input.saturating_add(output).saturating_add(reasoning);
    let beside = reasoning > 0 && count(&usage["total_tokens"]) >= together;
    Usage {
        input_uncached: input - read - write,
        input_cache_read: read,
        input_cache_write: write,
        output: if beside { output.saturating_add(reasoning) } else { output },
        output_reasoning: reasoning,
        input_audio: count(&input_details["audio_tokens"]),
        output_audio: count(&output_details["audio_tokens"]),
        ..Usage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_vendors_spelling_is_read() {
        let classes = |usage: Value| {
            let usage = find(&usage).unwrap();
            (usage.input_uncached, usage.input_cache_read, usage.output, usage.output_reasoning)
        };
        let counts = json!({"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13});
        assert_eq!(classes(json!({"usage": counts})), (10, 0, 3, 0));
        assert_eq!(classes(json!({"usage": null, "x_groq": {"usage": counts}})), (10, 0, 3, 0));
        assert_eq!(classes(json!({"choices": [{"usage": counts}]})), (10, 0, 3, 0));
        let with = |name: &str, value: Value| {
            let mut counts = counts.clone();
            counts[name] = value;
            classes(json!({"usage": counts}))
        };
        assert_eq!(with("prompt_cache_hit_tokens", json!(4)), (6, 4, 3, 0));
        assert_eq!(with("cached_tokens", json!(4)), (6, 4, 3, 0));
        assert_eq!(with("prompt_tokens_details", json!({"cached_tokens": 99})), (0, 10, 3, 0));
        assert_eq!(with("reasoning_tokens", json!(2)), (10, 0, 3, 2));
        let beside = json!({"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 15,
            "completion_tokens_details": {"reasoning_tokens": 2}});
        assert_eq!(classes(json!({"usage": beside})), (10, 0, 5, 2));
        assert_eq!(find(&json!({"usage": null, "choices": []})), None);
        let zeros = json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0});
        assert_eq!(find(&json!({"usage": zeros})), None, "zeros are no count");
        assert_eq!(classes(json!({"usage": zeros, "x_groq": {"usage": counts}})), (10, 0, 3, 0));
    }

    #[test]
    fn no_number_is_too_large() {
        let most = json!(i64::MAX);
        let usage = json!({"prompt_tokens": most, "completion_tokens": most, "total_tokens": most,
            "completion_tokens_details": {"reasoning_tokens": most}});
        let usage = find(&json!({"usage": usage})).unwrap();
        assert_eq!((usage.input_uncached, usage.output), (1_000_000_000_000, 1_000_000_000_000));
    }
}
