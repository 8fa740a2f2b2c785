//! What the headers of any provider's answer say about waiting and allowances.
//!
//! Invariants:
//! - What cannot be read is unknown, and never a wait of zero.
//! - A provider's names are its own, so that all are read by one table.

use super::wait;
use http::HeaderMap;
use std::time::Duration;

/// What is left of a key's allowance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    pub requests: Option<u64>,
    pub tokens: Option<u64>,
    /// Until both are full again.
    pub resets: Option<Duration>,
}

/// What is left, and when it is full again.
type Pair = (&'static str, &'static str);

const REQUESTS: [Pair; 6] = [
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"), // OpenAI and most others
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("x-ratelimit-remaining-requests-day", "x-ratelimit-reset-requests-day"), // Cerebras
    ("x-ratelimit-remaining-req-minute", "x-ratelimit-reset-req-minute"),     // Mistral
    ("x-ratelimit-remaining", "x-ratelimit-reset"),                           // Together
    ("ratelimit-remaining", "ratelimit-reset"),                               // Replicate
];

const TOKENS: [Pair; 7] = [
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
    ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
    ("x-ratelimit-remaining-tokens-minute", "x-ratelimit-reset-tokens-minute"),
    ("x-tokenlimit-remaining", "x-tokenlimit-reset"),
    ("ratelimitbysize-remaining", "ratelimitbysize-reset"),
];

impl Quota {
    pub fn of(headers: &HeaderMap) -> Self {
        let now = mesh::clock::now_micros();
        let least = |pairs: &[Pair]| pairs.iter().filter_map(|pair| left(headers, *pair)).min();
        let resets = REQUESTS.iter().chain(&TOKENS).filter_map(|pair| reset(headers, *pair, now));
        Self { requests: least(&REQUESTS), tokens: least(&TOKENS), resets: resets.max() }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    Some(headers.get(name)?.to_str().ok()?.trim())
}

fn left(headers: &HeaderMap, pair: Pair) -> Option<u64> {
    text(headers, pair.0)?.parse().ok()
}

fn reset(headers: &HeaderMap, pair: Pair, now: i64) -> Option<Duration> {
    wait::value(text(headers, pair.1)?, now)
}

/// How long an error answer asks to wait. `retry-after-ms` is finer; where
/// neither is there, an allowance that is used up says when it is full again.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let now = mesh::clock::now_micros();
    let asked = || wait::value(text(headers, "retry-after")?, now);
    let used_up = || {
        let pairs = REQUESTS.iter().chain(&TOKENS).filter(|pair| left(headers, **pair) == Some(0));
        pairs.filter_map(|pair| reset(headers, *pair, now)).max()
    };
    let finer = text(headers, "retry-after-ms").and_then(wait::milliseconds);
    finer.or_else(asked).or_else(used_up)
}

/// What the provider itself says about asking for the same again.
pub(super) fn should_retry(headers: &HeaderMap) -> Option<bool> {
    match text(headers, "x-should-retry")? {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn the_finest_word_on_waiting_wins() {
        let read = |pairs: &[(&'static str, &'static str)]| {
            retry_after(&headers(pairs)).map(|wait| wait.as_millis())
        };
        assert_eq!(read(&[("retry-after", "7")]), Some(7_000));
        assert_eq!(read(&[("retry-after-ms", "250"), ("retry-after", "1")]), Some(250));
        assert_eq!(read(&[("retry-after-ms", "?"), ("retry-after", "1.5")]), Some(1_500));
        assert_eq!(read(&[("retry-after", "soon")]), None);
        assert_eq!(read(&[("retry-after", "0")]), None, "zero is no reason to ask at once");
        let used_up = [
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "6m0s"),
            ("x-ratelimit-remaining-tokens", "12"),
            ("x-ratelimit-reset-tokens", "9h"),
        ];
        assert_eq!(read(&used_up), Some(360_000), "only what is used up has to be waited for");
        assert_eq!(read(&used_up[2..]), None);
        let anthropic = [
            ("anthropic-ratelimit-tokens-remaining", "0"),
            ("anthropic-ratelimit-tokens-reset", "2999-01-01T00:00:00Z"),
        ];
        assert_eq!(read(&anthropic), Some(30 * 24 * 3600 * 1000), "no wait is longer");
    }

    #[test]
    fn what_is_left_is_read_in_every_providers_names() {
        let quota = Quota::of(&headers(&[
            ("anthropic-ratelimit-requests-remaining", "49"),
            ("anthropic-ratelimit-input-tokens-remaining", "9000"),
            ("anthropic-ratelimit-output-tokens-remaining", "800"),
            ("anthropic-ratelimit-output-tokens-reset", "2000-01-01T00:00:00Z"),
        ]));
        assert_eq!((quota.requests, quota.tokens, quota.resets), (Some(49), Some(800), None));
        let quota = Quota::of(&headers(&[
            ("x-ratelimit-remaining-requests", "14370"),
            ("x-ratelimit-reset-requests", "2m59.56s"),
            ("x-ratelimit-reset-tokens", "7.66s"),
        ]));
        assert_eq!(quota.resets, Some(Duration::from_millis(179_560)));
        assert_eq!(Quota::of(&HeaderMap::new()), Quota::default());
    }

    #[test]
    fn the_providers_word_on_asking_again_is_read() {
        assert_eq!(should_retry(&headers(&[("x-should-retry", "false")])), Some(false));
        assert_eq!(should_retry(&headers(&[("x-should-retry", "perhaps")])), None);
    }
}
