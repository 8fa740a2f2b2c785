//! Usage and citations in OpenAI's words.
//!
//! Invariants:
//! - `prompt_tokens` holds the cached tokens too, as OpenAI counts; our classes
//!   do not overlap, so they are summed.
//! - A cost that is not known is absent, never zero.

use serde::Serialize;
use skein_proto::model::v1;

#[derive(Debug, Serialize)]
pub struct Usage {
    prompt_tokens: i64,
    completion_tokens: i64,
    total_tokens: i64,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_usd: Option<f64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    estimated: bool,
    /// What the answer had to do without; on streams there is no header for it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub degraded: String,
}

#[derive(Debug, Serialize)]
struct PromptDetails {
    cached_tokens: i64,
    cache_write_tokens: i64,
    audio_tokens: i64,
}

#[derive(Debug, Serialize)]
struct CompletionDetails {
    reasoning_tokens: i64,
    audio_tokens: i64,
    accepted_prediction_tokens: i64,
    rejected_prediction_tokens: i64,
}

/// All input classes together.
pub fn input_tokens(usage: &v1::Usage) -> i64 {
    let cached = usage.input_cache_read.saturating_add(usage.input_cache_write);
    usage.input_uncached.saturating_add(cached)
}

#[expect(clippy::cast_precision_loss, reason = "shown to people; money is counted in integers")]
pub fn usage(usage: &v1::Usage) -> Usage {
    let prompt_tokens = input_tokens(usage);
    Usage {
        prompt_tokens,
        completion_tokens: usage.output,
        total_tokens: prompt_tokens.saturating_add(usage.output),
        prompt_tokens_details: PromptDetails {
            cached_tokens: usage.input_cache_read,
            cache_write_tokens: usage.input_cache_write,
            audio_tokens: usage.input_audio,
        },
        completion_tokens_details: CompletionDetails {
            reasoning_tokens: usage.output_reasoning,
            audio_tokens: usage.output_audio,
            accepted_prediction_tokens: 0,
            rejected_prediction_tokens: 0,
        },
        cost_usd: nano_usd(usage).map(|nano| nano as f64 / 1e9),
        estimated: usage.estimated,
        degraded: String::new(),
    }
}

/// Of a picture call.
#[derive(Debug, Serialize)]
pub struct ImageUsage {
    input_tokens: i64,
    output_tokens: i64,
    total_tokens: i64,
    input_tokens_details: TokenKinds,
    output_tokens_details: TokenKinds,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_usd: Option<f64>,
}

#[derive(Debug, Serialize)]
struct TokenKinds {
    text_tokens: i64,
    image_tokens: i64,
}

impl ImageUsage {
    /// `None` where pictures are counted and not tokens.
    #[expect(clippy::cast_precision_loss, reason = "shown to people; money is counted in integers")]
    pub fn of(usage: &v1::Usage) -> Option<Self> {
        let (input_tokens, output_tokens) = (input_tokens(usage), usage.output);
        let kinds = |all: i64, image_tokens: i64| TokenKinds {
            text_tokens: all.saturating_sub(image_tokens).max(0),
            image_tokens,
        };
        let total_tokens = input_tokens.saturating_add(output_tokens);
        (total_tokens > 0).then(|| Self {
            input_tokens,
            output_tokens,
            total_tokens,
            input_tokens_details: kinds(input_tokens, usage.input_image),
            output_tokens_details: kinds(output_tokens, usage.output_image),
            cost_usd: nano_usd(usage).map(|nano| nano as f64 / 1e9),
        })
    }
}

pub fn nano_usd(usage: &v1::Usage) -> Option<i64> {
    usage.cost.as_ref().and_then(|cost| cost.nano_usd)
}

/// Dollars as plain decimals: `0.000012345`.
pub fn dollars(nano: i64) -> String {
    format!("{}.{:09}", nano / 1_000_000_000, nano.rem_euclid(1_000_000_000))
}

/// Which bytes of which document a part of the answer rests on.
#[derive(Debug, Serialize)]
pub struct Citation {
    /// Of the passage, as numbered in the answer's text, from 0.
    passage: u32,
    collection: String,
    document_id: String,
    chunk_id: String,
    title: String,
    /// Bytes in the document's text, the end not included.
    span: Option<Span>,
    quote: String,
}

#[derive(Debug, Serialize)]
struct Span {
    start: u64,
    end: u64,
}

pub fn citation(citation: v1::Citation) -> Citation {
    Citation {
        passage: citation.passage,
        collection: citation.collection,
        document_id: citation.document_id,
        chunk_id: citation.chunk_id,
        title: citation.title,
        span: citation.span.map(|span| Span { start: span.start, end: span.end }),
        quote: citation.quote,
    }
}

pub fn finish_reason(choice: &v1::Choice) -> &'static str {
    match choice.finish_reason() {
        v1::FinishReason::Length => "length",
        v1::FinishReason::ToolCalls => "tool_calls",
        v1::FinishReason::ContentFilter => "content_filter",
        v1::FinishReason::Stop | v1::FinishReason::Unspecified => "stop",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_summed_and_an_unknown_cost_is_absent() {
        let counted = v1::Usage {
            input_uncached: 10,
            input_cache_read: 5,
            input_cache_write: 1,
            output: 4,
            ..v1::Usage::default()
        };
        let shown = serde_json::to_value(usage(&counted)).unwrap();
        assert_eq!((&shown["prompt_tokens"], &shown["total_tokens"]), (&16.into(), &20.into()));
        assert_eq!(shown["prompt_tokens_details"]["cached_tokens"], 5);
        assert!(shown.get("cost_usd").is_none());
        assert_eq!(dollars(12_345), "0.000012345");
        assert_eq!(dollars(2_500_000_000), "2.500000000");
    }

    #[test]
    fn no_number_is_too_large() {
        let most = i64::MAX;
        let counted = v1::Usage {
            input_uncached: most,
            input_cache_read: most,
            input_cache_write: most,
            output: most,
            ..v1::Usage::default()
        };
        assert_eq!(usage(&counted).total_tokens, most);
        assert_eq!(ImageUsage::of(&counted).unwrap().total_tokens, most);
    }
}
