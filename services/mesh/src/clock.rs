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

/// Notices that the machine has slept: a suspended machine resumes with sockets
/// that may be dead and a wall clock that is corrected at some later moment.
#[derive(Debug)]
pub struct Awake {
    wall: i64,
    at: tokio::time::Instant,
}

/// Clocks that are merely adjusted differ by less, in microseconds.
const SLEPT: i64 = 5_000_000;

impl Default for Awake {
    fn default() -> Self {
        Self { wall: now_micros(), at: tokio::time::Instant::now() }
    }
}

impl Awake {
    /// Whether, since the last question, the wall clock has gone elsewhere than
    /// the one that only runs while we do.
    pub fn has_slept(&mut self) -> bool {
        let before = std::mem::take(self);
        jumped(self.wall - before.wall, self.at - before.at)
    }
}

fn jumped(wall: i64, ran: std::time::Duration) -> bool {
    let ran = i64::try_from(ran.as_micros()).unwrap_or(i64::MAX);
    wall.saturating_sub(ran).saturating_abs() > SLEPT
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn sleep_is_a_difference_between_two_clocks() {
        assert!(!jumped(2_000_000, Duration::from_secs(2)));
        assert!(!jumped(2_500_000, Duration::from_secs(2)), "an adjustment");
        assert!(jumped(3_600_000_000, Duration::from_secs(2)));
        assert!(jumped(-60_000_000, Duration::from_secs(2)), "set back");
        assert!(!Awake::default().has_slept());
    }
}
