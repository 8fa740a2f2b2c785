//! When a chunk left, written into the chunk.
//!
//! Invariant: one clock on both sides: who reads a time is the process that
//! wrote it, so nothing is lost to clocks that differ.

use std::{sync::LazyLock, time::Duration};
use tokio::time::Instant;

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Time since this process looked at its clock first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(Duration);

impl Stamp {
    pub(crate) fn now() -> Self {
        Self(ORIGIN.elapsed())
    }

    /// Some number from 0 to 1, another one every time.
    pub(crate) fn part(self) -> f64 {
        f64::from(self.0.subsec_nanos() % 1009) / 1009.0
    }

    /// What chunk number `number` says.
    pub(crate) fn text(self, number: u64) -> String {
        format!("<{number}:{}>", self.0.as_nanos())
    }

    pub(crate) fn is_after(self, other: Self) -> bool {
        self.0 > other.0
    }

    pub(crate) fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }

    /// The numbers and times of all chunks in `bytes`.
    pub(crate) fn all(bytes: &[u8]) -> Vec<(u64, Self)> {
        let text = String::from_utf8_lossy(bytes);
        let chunks = text.split('<').skip(1).filter_map(|piece| {
            let (number, nanos) = piece.split_once('>')?.0.split_once(':')?;
            Some((number.parse().ok()?, Self(Duration::from_nanos(nanos.parse().ok()?))))
        });
        chunks.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let stamp = Stamp::now();
        let event = format!("data: {{\"content\":\"{}\"}}\n\n", stamp.text(7));
        assert_eq!(Stamp::all(event.repeat(2).as_bytes()), [(7, stamp), (7, stamp)]);
        assert!(Stamp::all(b"data: <no:stamp> [DONE]").is_empty());
    }
}
