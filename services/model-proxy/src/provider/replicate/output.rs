//! What a prediction says of itself: output, counts, failures.
//!
//! Invariants:
//! - Counts that are not given are unknown, never zero.
//! - An error text is one line, short, and without the prompt.

use super::{NAME, malformed};
use crate::{
    error::{Error, Failure},
    pictures,
    provider::{Event, extra},
};
use serde_json::Value;
use skein_proto::model::v1::{
    Choice, FinishReason, Finished, Image, ImageDone, Usage, image::Source,
};
use std::time::Duration;

/// What a model is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    Text { longest: Option<i64> },
    Pictures,
}

/// Longest error text that is passed on, in characters.
const LONGEST: usize = 300;

/// The text so far: a list of pieces, or one string.
pub(super) fn text(output: &Value) -> String {
    match output {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(pieces) => pieces.iter().map(text).collect(),
        other => other.to_string(),
    }
}

/// One URL or a list of them; a `data:` URL is a picture in itself.
pub(super) fn pictures(output: &Value, out: &mut Vec<Event>) -> Result<(), Error> {
    let urls = match output {
        Value::Array(urls) => urls.as_slice(),
        one => std::slice::from_ref(one),
    };
    for (index, url) in urls.iter().enumerate() {
        let url = url.as_str().unwrap_or_default();
        let image = if url.starts_with("data:") {
            let data = pictures::decode(url);
            data.ok_or_else(|| malformed("its data: URL holds no picture"))?
        } else if url.starts_with("https://") || url.starts_with("http://") {
            Image { source: Some(Source::Url(url.to_owned())), ..Image::default() }
        } else {
            return Err(malformed("its output is no picture: does this model make them"));
        };
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        out.push(Event::Image(ImageDone { index, image: Some(image), ..ImageDone::default() }));
    }
    if urls.is_empty() { Err(malformed("it made no picture")) } else { Ok(()) }
}

pub(super) fn finished(wanted: Wanted, prediction: &Value) -> Finished {
    let metrics = &prediction["metrics"];
    let count = |name: &str| extra::count(&metrics[name]);
    let (input, output) = (count("input_token_count"), count("output_token_count"));
    match wanted {
        Wanted::Text { longest } => {
            let cut = longest.zip(output).is_some_and(|(longest, output)| output >= longest);
            let reason = if cut { FinishReason::Length } else { FinishReason::Stop };
            let choice = Choice { finish_reason: reason.into(), ..Choice::default() };
            let usage = input.zip(output).map(|(input_uncached, output)| Usage {
                input_uncached,
                output,
                ..Usage::default()
            });
            Finished { choices: vec![choice], usage, ..Finished::default() }
        }
        Wanted::Pictures => {
            let images = match &prediction["output"] {
                Value::Array(urls) => i64::try_from(urls.len()).unwrap_or(i64::MAX),
                Value::Null => 0,
                _ => 1,
            };
            let usage = Some(Usage { images, ..Usage::default() });
            Finished { usage, ..Finished::default() }
        }
    }
}

/// How far it is, by the last percentage in its logs; 0 while unknown.
pub(super) fn progress(logs: &str) -> f64 {
    let percent = |(end, _): (usize, &str)| {
        let head = &logs[..end];
        let digits = head.len() - head.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        head[end - digits..].parse::<f64>().ok().filter(|percent| *percent <= 100.0)
    };
    logs.rmatch_indices('%').find_map(percent).map_or(0.0, |percent| percent / 100.0)
}

/// A prediction that ended without success.
pub(super) fn failed(status: &str, said: &Value, prompt: &str) -> Error {
    let said = said.as_str().unwrap_or_default();
    let (failure, message) = match status {
        "canceled" => (Failure::Unavailable, "somebody else canceled the prediction".to_owned()),
        "aborted" => {
            (Failure::Unavailable, "the prediction's deadline passed before it began".to_owned())
        }
        _ if said.is_empty() => (Failure::Unavailable, "the prediction failed".to_owned()),
        _ => (class(said).unwrap_or(Failure::Unavailable), clean(said, prompt)),
    };
    Error::provider(NAME, failure, message)
}

/// `{"title","detail","status"}`, `{"detail"}` or `{"error"}`.
pub(super) fn refusal(failure: Failure, body: &[u8]) -> Error {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let said = ["detail", "error", "title"].into_iter().find_map(|name| answer[name].as_str());
    let said = said.unwrap_or_default();
    let failure = match failure {
        Failure::RateLimited { retry_after: None } => {
            Failure::RateLimited { retry_after: resets(said) }
        }
        Failure::BadRequest => class(said).unwrap_or(failure),
        other => other,
    };
    let message = match failure {
        Failure::Unauthenticated => {
            "the provider refuses our token: check REPLICATE_API_TOKEN".to_owned()
        }
        _ if said.is_empty() => "the provider answered with an error and no message".to_owned(),
        _ => clean(said, ""),
    };
    Error::provider(NAME, failure, message)
}

/// `… resets in ~30s.`
fn resets(said: &str) -> Option<Duration> {
    let (_, rest) = said.split_once("resets in ~")?;
    let (seconds, _) = rest.split_once('s')?;
    // No longer than a day: further sums are made of it.
    seconds.parse::<u64>().ok().map(|seconds| Duration::from_secs(seconds.min(86_400)))
}

fn class(said: &str) -> Option<Failure> {
    let said = said.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if has(&["flagged as sensitive", "nsfw", "safety"]) {
        Some(Failure::ContentFilter)
    } else if has(&["too many tokens", "context length", "maximum context"]) {
        Some(Failure::ContextLength)
    } else {
        None
    }
}

fn clean(said: &str, prompt: &str) -> String {
    let said = if prompt.trim().is_empty() { said.to_owned() } else { said.replace(prompt, "…") };
    said.lines().next().unwrap_or_default().chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_percentage_counts() {
        assert_eq!(progress("  5%|█  | 1/20\n 45%|███ | 9/20"), 0.45);
        assert_eq!(progress("loading\n100%|███|"), 1.0);
        assert_eq!(progress("a % of nothing, 3 of 4"), 0.0);
        assert_eq!(progress(""), 0.0);
    }

    #[test]
    fn a_wait_is_read_from_the_text() {
        let body = br#"{"detail":"Request was throttled. Your rate limit resets in ~30s."}"#;
        let error = refusal(Failure::of_status(429, None), body);
        let wait = Some(Duration::from_secs(30));
        assert_eq!(error.failure(), Some(Failure::RateLimited { retry_after: wait }));
        let header = Failure::of_status(429, Some(Duration::from_secs(2)));
        assert_eq!(refusal(header, body).failure(), Some(header), "the header is finer");
    }

    #[test]
    fn an_error_never_repeats_the_prompt() {
        let said = "prompt 'a secret goose' is too long\nTraceback: …".into();
        let error = failed("failed", &said, "a secret goose").to_string();
        assert_eq!(error, "replicate: prompt '…' is too long");
    }
}
