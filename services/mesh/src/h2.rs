//! HTTP/2 settings both ends agree on.
//!
//! Invariants:
//! - `CONNECTION_WINDOW >= STREAMS * STREAM_WINDOW`; otherwise a few unread
//!   streams use up the connection's window and stall every other call.
//! - `STREAM_WINDOW` is at least bandwidth x RTT of an ocean: measured, 8 MiB at
//!   171 ms take 22.6 s with 64 KiB windows and 1.4 s with 1 MiB.
//! - `MAX_MESSAGE` lies above the gateway's body limit, so that a request the
//!   edge has let in is never refused inside.

use std::time::Duration;

pub const STREAMS: u32 = 1024;
pub const STREAM_WINDOW: u32 = 1 << 20;
pub const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;
pub const PING_INTERVAL: Duration = Duration::from_secs(10);
pub const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest gRPC message on every client and server, in bytes.
pub const MAX_MESSAGE: usize = 40 << 20;
/// Largest request body the edge accepts by default, in bytes.
pub const MAX_PUBLIC_BODY: u64 = 32 << 20;

const _: () = assert!(CONNECTION_WINDOW as u64 >= STREAMS as u64 * STREAM_WINDOW as u64);
const _: () = assert!(MAX_MESSAGE as u64 > MAX_PUBLIC_BODY);
