//! How long a provider asks to wait, in all the spellings that are met.
//!
//! Invariants:
//! - What cannot be read, and a wait that is over, is unknown: never a wait of
//!   zero, which would be a reason to ask again at once.
//! - No wait is longer than [`LONGEST`], so that it can be added to any clock.

use serde_json::Value;
use std::time::Duration;

const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// The value of a header: seconds, a Go duration, an RFC 3339 time, an HTTP
/// date. `now` is in microseconds since the epoch.
pub(super) fn value(text: &str, now: i64) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return number(seconds, now);
    }
    duration(text).or_else(|| until(rfc3339(text).or_else(|| http_date(text))?, now))
}

/// Seconds from now. What would be thirty years is a date since the epoch, in
/// seconds or milliseconds.
fn number(seconds: f64, now: i64) -> Option<Duration> {
    let date = match seconds {
        1e9..1e11 => seconds * 1e6,
        1e11..1e14 => seconds * 1e3,
        _ => return seconds_to_come(seconds),
    };
    #[expect(clippy::cast_possible_truncation, reason = "below 1e17")]
    let date = date as i64;
    until(date, now)
}

fn seconds_to_come(seconds: f64) -> Option<Duration> {
    plausible(Duration::try_from_secs_f64(seconds).ok()?)
}

pub(super) fn milliseconds(text: &str) -> Option<Duration> {
    seconds_to_come(text.trim().parse::<f64>().ok()? / 1000.0)
}

fn plausible(wait: Duration) -> Option<Duration> {
    (!wait.is_zero()).then_some(wait.min(LONGEST))
}

fn until(at: i64, now: i64) -> Option<Duration> {
    let micros = u64::try_from(at.checked_sub(now)?).ok()?;
    plausible(Duration::from_micros(micros))
}

/// As Go writes it: `6m0s`, `1h2m3s`, `120ms`, `7.66s`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (found, rest) = leading_duration(text)?;
    rest.is_empty().then_some(found)
}

/// A duration at the beginning of a text, and what follows it. Units may also
/// be words: `26 seconds`.
fn leading_duration(text: &str) -> Option<(Duration, &str)> {
    let (mut total, mut rest) = (0.0, text);
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let Ok(number) = rest[..digits].trim_end_matches('.').parse::<f64>() else { break };
        let after = rest[digits..].trim_start();
        let end = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let Some(unit) = unit(&after[..end]) else { break };
        total += number * unit;
        rest = &after[end..];
    }
    if rest.len() == text.len() {
        return None;
    }
    Some((plausible(Duration::try_from_secs_f64(total).ok()?)?, rest))
}

fn unit(word: &str) -> Option<f64> {
    Some(match word {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        _ => return None,
    })
}

/// Microseconds since the epoch of `2024-02-29T12:00:00.25Z` or `…+02:00`.
pub(super) fn rfc3339(text: &str) -> Option<i64> {
    let (date, time) = text.split_at_checked(10)?;
    let mut parts = date.split('-').map(str::parse::<i64>);
    let mut next = || parts.next()?.ok();
    let (year, month, day) = (next()?, next()?, next()?);
    let time = time.strip_prefix(['T', 't', ' '])?;
    let zone = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone);
    let mut parts = clock.split(':');
    let mut next = || parts.next()?.parse::<f64>().ok().filter(|part| (0.0..62.0).contains(part));
    let seconds = next()? * 3600.0 + next()? * 60.0 + next()?;
    let offset = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign, offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            let minutes =
                i64::from(hours.parse::<u8>().ok()?) * 60 + i64::from(minutes.parse::<u8>().ok()?);
            let minutes = (minutes < 24 * 60).then_some(minutes)?;
            if sign == "-" { -minutes } else { minutes }
        }
    };
    #[expect(clippy::cast_possible_truncation, reason = "less than three days in microseconds")]
    let micros = (seconds * 1e6) as i64;
    Some((days(year, month, day)? * 86_400 - offset * 60) * 1_000_000 + micros)
}

/// Days since the epoch of a date of our calendar.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // The year begins in March here, so that the leap day is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before = year * 365 + year / 4 - year / 100 + year / 400;
    Some(before + (month * 153 + 2) / 5 + day - 1 - 719_468)
}

/// `Wed, 21 Oct 2026 07:28:00 GMT`: the one form that is still written.
fn http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<_> = text.split_ascii_whitespace().collect();
    let [_, day, month, year, clock, "GMT" | "UTC"] = words[..] else { return None };
    let month = MONTHS.iter().zip(1..).find(|(name, _)| **name == month)?.1;
    rfc3339(&format!("{year}-{month:02}-{day:0>2}T{clock}Z"))
}

/// What the body of a refusal says: a field, or a sentence in its message.
pub(super) fn in_body(body: &Value) -> Option<Duration> {
    // Google puts its error into a list.
    let body = if body[0].is_object() { &body[0] } else { body };
    let error = if body["error"].is_object() { &body["error"] } else { body };
    let details = error["details"].as_array().into_iter().flatten();
    let google = details.filter_map(|detail| detail["retryDelay"].as_str()).find_map(duration);
    let field = |object: &Value| match &object["retry_after"] {
        Value::Number(seconds) => seconds_to_come(seconds.as_f64()?),
        Value::String(text) => value(text, mesh::clock::now_micros()),
        _ => None,
    };
    let said = [&error["message"], &body["detail"], &body["message"], &body["error"]];
    let said = || said.into_iter().filter_map(Value::as_str).find_map(in_text);
    google.or_else(|| field(error)).or_else(|| field(body)).or_else(said)
}

/// `Please try again in 6m0s.`, `retry after 26 seconds`, `resets in ~30s`.
fn in_text(text: &str) -> Option<Duration> {
    const BEFORE: [&str; 7] = [
        "try again in ",
        "try again after ",
        "retry after ",
        "retry in ",
        "retry again in ",
        "resets in ",
        "reset in ",
    ];
    let lower = text.to_ascii_lowercase();
    BEFORE.iter().find_map(|before| {
        let at = lower.find(before)? + before.len();
        leading_duration(lower.get(at..)?.trim_start_matches('~')).map(|(wait, _)| wait)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// 2026-10-21T07:28:00Z.
    const NOW: i64 = 1_792_567_680_000_000;

    #[test]
    fn every_spelling_of_a_value_is_read() {
        for (text, milliseconds) in [
            ("7", 7_000),
            ("0.25", 250),
            (" 12 ", 12_000),
            ("120ms", 120),
            ("6m0s", 360_000),
            ("1h2m3s", 3_723_000),
            ("7.66s", 7_660),
            ("1m26.4s", 86_400),
            ("2026-10-21T07:28:30Z", 30_000),
            ("2026-10-21T09:28:00.5+02:00", 500),
            ("2026-10-21T02:29:00-05:00", 60_000),
            ("Wed, 21 Oct 2026 07:29:00 GMT", 60_000),
            ("Thu, 1 Oct 2026 07:29:00 GMT", 0),
            ("1e300", 0),
            ("1792567690", 10_000),
            ("1792567690500", 10_500),
            ("99999999", 2_592_000_000),
            ("99999999h", 2_592_000_000),
        ] {
            let expected = (milliseconds > 0).then(|| Duration::from_millis(milliseconds));
            assert_eq!(value(text, NOW), expected, "{text}");
        }
        for text in ["", "soon", "-1", "0", "NaN", "inf", "5 parsecs", "s", "2026-13-01T00:00:00Z"]
        {
            assert_eq!(value(text, NOW), None, "{text}");
        }
        for text in ["2026-10-21T07:27:59Z", "Wed, 21 Oct 2026 07:28:00 GMT", "9999-99-99T", "雁"]
        {
            assert_eq!(value(text, NOW), None, "{text}: over or no date");
        }
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(days(1970, 1, 1), Some(0));
        assert_eq!(days(2000, 2, 29), Some(11_016));
        assert_eq!(days(2026, 11, 23), Some(20_780));
    }

    #[test]
    fn every_spelling_of_a_body_is_read() {
        let openai = |message: &str| json!({"error": {"message": message}});
        for (body, milliseconds) in [
            (openai("Rate limit reached. Please try again in 20s. Visit …"), 20_000),
            (openai("Limit 1, Used 1. Please try again in 6m0s."), 360_000),
            (openai("Please try again in 1.2s."), 1_200),
            (openai("Please try again in 120ms."), 120),
            (openai("Please retry after 26 seconds."), 26_000),
            (openai("Please try again in a while"), 0),
            (json!({"detail": "Request was throttled. Your rate limit resets in ~30s."}), 30_000),
            (json!({"detail": "throttled", "retry_after": 9}), 9_000),
            (json!({"error": "slow down, retry in 2 minutes"}), 120_000),
            (json!([{"error": {"details": [{"retryDelay": "34.4s"}]}}]), 34_400),
            (json!({"error": {"details": [{"a": 1}, {"retryDelay": "3s"}]}}), 3_000),
            (json!({"error": {"retry_after": "0.5"}}), 500),
            (json!("<html>"), 0),
            (json!(null), 0),
        ] {
            let expected = (milliseconds > 0).then(|| Duration::from_millis(milliseconds));
            assert_eq!(in_body(&body), expected, "{body}");
        }
    }
}
