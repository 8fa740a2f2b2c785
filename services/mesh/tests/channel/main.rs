//! A channel among machines that freeze, break, are busy, far away, or come
//! back: what its callers notice of that.

#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

mod far;
mod machines;
mod relay;
mod trouble;
