//! Fly's own clocks, run faster than on Fly.
//!
//! Invariants:
//! - Everything that Fly waits for is divided by one number, so that which of two
//!   things happens first does not change.

use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// How many times as fast.
    pub(crate) speed: u32,
    /// Between `started` and the program; as it is, not divided.
    pub(crate) boot: Duration,
}

impl Pace {
    pub(crate) fn scaled(self, span: Duration) -> Duration {
        span / self.speed.max(1)
    }
}
