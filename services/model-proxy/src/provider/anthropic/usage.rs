//! Tokens in Anthropic's words, where input excludes what a cache gave or took.
//!
//! Invariants:
//! - Counts are cumulative: a later one replaces an earlier one, so that
//!   `message_delta` may correct what `message_start` said.
//! - What a compaction used comes on top: the counts beside it leave it out.

use crate::provider::extra;
use serde_json::{Map, Value};
use skein_proto::model::v1::Usage;

/// Counts that have a field of ours.
const NAMED: [&str; 6] = [
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cache_creation",
    "output_tokens_details",
];

#[derive(Default)]
pub(super) struct Counts {
    counts: Map<String, Value>,
    last: bool,
}

impl Counts {
    /// `last`: counted when the answer was complete, not when it began.
    pub(super) fn update(&mut self, usage: Value, last: bool) {
        let Value::Object(fields) = usage else { return };
        self.counts.extend(fields.into_iter().filter(|(_, value)| !value.is_null()));
        self.last |= last && self.counts.contains_key("output_tokens");
    }

    /// Absent if the last count never came, as the first one knows no output, or
    /// if it is nothing: some servers fill in what they have not counted.
    pub(super) fn usage(&self) -> Option<Usage> {
        self.so_far().filter(|_| self.last)
    }

    /// What was counted until now: the input, and little of the output.
    pub(super) fn so_far(&self) -> Option<Usage> {
        Some(self.sum()).filter(|sum| *sum != Usage::default())
    }

    fn sum(&self) -> Usage {
        let compactions =
            self.counts.get("iterations").and_then(Value::as_array).into_iter().flatten();
        let compactions = compactions.filter(|one| one["type"] == "compaction");
        let compactions = compactions.filter_map(Value::as_object).map(classes);
        compactions.fold(classes(&self.counts), |sum, one| Usage {
            input_uncached: sum.input_uncached.saturating_add(one.input_uncached),
            input_cache_read: sum.input_cache_read.saturating_add(one.input_cache_read),
            input_cache_write: sum.input_cache_write.saturating_add(one.input_cache_write),
            input_cache_write_hour: sum
                .input_cache_write_hour
                .saturating_add(one.input_cache_write_hour),
            output: sum.output.saturating_add(one.output),
            ..sum
        })
    }

    /// What has no field of ours.
    pub(super) fn rest(self) -> Map<String, Value> {
        let unnamed = |(name, _): &(String, Value)| !NAMED.contains(&name.as_str());
        self.counts.into_iter().filter(unnamed).collect()
    }
}

fn classes(counts: &Map<String, Value>) -> Usage {
    let count = |value: Option<&Value>| value.and_then(extra::count).unwrap_or_default();
    let of = |outer: &str, inner: &str| count(counts.get(outer).and_then(|value| value.get(inner)));
    let hour = of("cache_creation", "ephemeral_1h_input_tokens");
    let kept = hour.saturating_add(of("cache_creation", "ephemeral_5m_input_tokens"));
    let output = count(counts.get("output_tokens"));
    Usage {
        input_uncached: count(counts.get("input_tokens")),
        input_cache_read: count(counts.get("cache_read_input_tokens")),
        input_cache_write: count(counts.get("cache_creation_input_tokens")).max(kept),
        input_cache_write_hour: hour,
        output,
        output_reasoning: of("output_tokens_details", "thinking_tokens").min(output),
        ..Usage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes_do_not_overlap_and_later_counts_win() {
        let mut counts = Counts::default();
        assert_eq!(counts.usage(), None, "unknown is not zero");
        counts.update(
            json!({"input_tokens": 43, "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 30, "output_tokens": 1, "service_tier": "standard",
            "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}}),
            false,
        );
        assert_eq!(counts.usage(), None, "nor is the beginning the end");
        assert_eq!(counts.so_far().unwrap().input_uncached, 43, "but it is something");
        counts.update(
            json!({"input_tokens": 61, "output_tokens": 9, "server_tool_use": null,
            "output_tokens_details": {"thinking_tokens": 4}}),
            true,
        );
        let expected = Usage {
            input_uncached: 61,
            input_cache_read: 100,
            input_cache_write: 30,
            input_cache_write_hour: 20,
            output: 9,
            output_reasoning: 4,
            ..Usage::default()
        };
        assert_eq!(counts.usage(), Some(expected));
        let mut zeros = Counts::default();
        zeros.update(json!({"input_tokens": 0, "output_tokens": 0}), true);
        assert_eq!(zeros.usage(), None);
        assert_eq!(Value::Object(counts.rest()), json!({"service_tier": "standard"}));
    }

    #[test]
    fn a_compaction_is_paid_for_too() {
        let mut counts = Counts::default();
        counts.update(
            json!({"input_tokens": 682, "output_tokens": 1320, "iterations": [
            {"type": "compaction", "input_tokens": 60385, "output_tokens": 592},
            {"type": "message", "input_tokens": 682, "output_tokens": 1320}]}),
            true,
        );
        let usage = counts.usage().unwrap();
        assert_eq!((usage.input_uncached, usage.output), (61_067, 1_912));
    }
}
