//! The wall clock, and how the providers write it.

#![expect(clippy::disallowed_types, reason = "headers and signatures carry the real time")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Since 1970.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

struct Date {
    year: u64,
    month: usize,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    weekday: usize,
}

/// Proleptic Gregorian, by eras of 400 years that begin in March.
fn date(since: Duration) -> Date {
    let seconds = since.as_secs();
    let days = seconds / 86_400;
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    Date {
        year: era * 400 + year_of_era + u64::from(month <= 2),
        month: usize::try_from(month).unwrap_or(1),
        day: day_of_year - (153 * from_march + 2) / 5 + 1,
        hour: seconds / 3_600 % 24,
        minute: seconds / 60 % 60,
        second: seconds % 60,
        weekday: usize::try_from((days + 4) % 7).unwrap_or(0),
    }
}

/// `Mon, 23 Nov 2026 15:55:28 GMT`.
pub(crate) fn http_date(since: Duration) -> String {
    let date = date(since);
    let day = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"][date.weekday];
    let month =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
            [date.month - 1];
    let Date { year, day: of_month, hour, minute, second, .. } = date;
    format!("{day}, {of_month:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

/// `2026-11-23T15:55:28.123456Z`.
pub(crate) fn rfc3339(since: Duration) -> String {
    let Date { year, month, day, hour, minute, second, .. } = date(since);
    let micros = since.subsec_micros();
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// As Go writes it: `120ms`, `6s`, `6m0s`, `1h2m3s`.
pub(crate) fn go(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0) => format!("{}ms", duration.subsec_millis()),
        (0, 0, _) => {
            format!("{}s", f64::from(u32::try_from(duration.as_millis()).unwrap_or(0)) / 1e3)
        }
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_as_the_standards_write_them() {
        let since = Duration::new(1_795_449_328, 123_456_000);
        assert_eq!(http_date(since), "Mon, 23 Nov 2026 15:55:28 GMT");
        assert_eq!(rfc3339(since), "2026-11-23T15:55:28.123456Z");
        assert_eq!(http_date(Duration::from_secs(951_782_400)), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(http_date(Duration::ZERO), "Thu, 01 Jan 1970 00:00:00 GMT");
    }

    #[test]
    fn durations_are_as_go_writes_them() {
        let seconds = |seconds| go(Duration::from_secs(seconds));
        assert_eq!(
            [seconds(6), seconds(360), seconds(3_723), seconds(0)],
            ["6s", "6m0s", "1h2m3s", "0ms"]
        );
        assert_eq!(go(Duration::from_millis(120)), "120ms");
        assert_eq!(go(Duration::from_millis(1_500)), "1.5s");
    }
}
