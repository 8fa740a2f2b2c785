//! Every fault, as it looks on the wire: read from a bare socket, so that no
//! client library hides how an answer ended.
//!
//! Invariants:
//! - A fault looks the same each time it is asked for.

#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

mod connections;
mod predictions;
mod raw;
mod recordings;
mod statuses;
mod streams;
mod webhooks;
