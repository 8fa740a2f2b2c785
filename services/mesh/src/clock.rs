//! The wall clock, read in one place.
//!
//! Everything that waits uses tokio's clock, which tests can pause; only what
//! is written down (rows, tokens, logs) needs the time of day.

/// Microseconds since the Unix epoch, UTC.
pub fn now_micros() -> i64 {
    #[expect(clippy::disallowed_types, reason = "the one place that reads the wall clock")]
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Seconds since the Unix epoch, UTC.
pub fn now_seconds() -> i64 {
    now_micros() / 1_000_000
}
