//! What a run found, as it is written to `overhead.json`.

use crate::{proc::Machine, stats::Spread};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) what: &'static str,
    pub(crate) simulated: &'static str,
    pub(crate) quick: bool,
    pub(crate) machine: Machine,
    /// What each name under `calls` stands for.
    pub(crate) targets: BTreeMap<String, String>,
    pub(crate) calls: Vec<Calls>,
    pub(crate) memory: Vec<Memory>,
    pub(crate) starts: Vec<Start>,
    pub(crate) chunks: Vec<Chunks>,
    pub(crate) readers: Vec<Readers>,
    pub(crate) soak: Option<Soak>,
    pub(crate) aims: Vec<Aim>,
    /// What is missing, and why.
    pub(crate) not_measured: Vec<String>,
    pub(crate) seconds: f64,
}

/// One load on one target; times in microseconds.
#[derive(Clone, Serialize)]
pub(crate) struct Calls {
    pub(crate) target: String,
    /// `chat`, `chat stream`, `grpc Generate` or `echo`.
    pub(crate) kind: &'static str,
    /// `closed` or `open`.
    pub(crate) load: &'static str,
    pub(crate) clients: usize,
    pub(crate) ok: usize,
    pub(crate) failed: u64,
    pub(crate) failure: Option<String>,
    /// To the last byte.
    pub(crate) all: Spread,
    /// To the first byte of the body.
    pub(crate) first: Spread,
    /// Over the same question asked of the provider directly.
    pub(crate) added: Option<Spread>,
    pub(crate) added_first: Option<Spread>,
    pub(crate) per_second: f64,
    /// CPU seconds of 1,000 calls, by process.
    pub(crate) cpu_per_1000: BTreeMap<String, f64>,
    /// Requests per CPU-second over all those processes.
    pub(crate) per_cpu_second: Option<f64>,
}

/// Resident MiB by app.
#[derive(Serialize)]
pub(crate) struct Memory {
    pub(crate) target: String,
    pub(crate) when: &'static str,
    pub(crate) mib: BTreeMap<String, f64>,
    pub(crate) together: f64,
    pub(crate) threads: BTreeMap<String, usize>,
}

/// From exec to the first 200 of `/readyz`, milliseconds.
#[derive(Serialize)]
pub(crate) struct Start {
    pub(crate) app: String,
    /// With an empty data directory: schema included.
    pub(crate) first: f64,
    pub(crate) median: f64,
    pub(crate) slowest: f64,
    pub(crate) starts: usize,
    pub(crate) idle_mib: f64,
}

/// What callers that do not read, or have nothing to read, cost the others.
#[derive(Serialize)]
pub(crate) struct Readers {
    pub(crate) what: String,
    pub(crate) streams: usize,
    pub(crate) seconds: f64,
    pub(crate) before_mib: BTreeMap<String, f64>,
    /// The most that was seen while they were held.
    pub(crate) most_mib: BTreeMap<String, f64>,
    pub(crate) after_mib: BTreeMap<String, f64>,
    /// Streams that ended before they were let go.
    pub(crate) lost: usize,
    /// Another client's plain chats before, and meanwhile; microseconds.
    pub(crate) others_before: Spread,
    pub(crate) others_meanwhile: Spread,
    pub(crate) others_failed: u64,
}

/// From the provider's sending of a chunk to its receipt, microseconds.
#[derive(Clone, Serialize)]
pub(crate) struct Chunks {
    pub(crate) target: String,
    pub(crate) streams: usize,
    pub(crate) chunks: usize,
    pub(crate) delay: Spread,
    /// Over the same stream read from the provider directly.
    pub(crate) added: Option<Spread>,
    /// To the first byte of the body.
    pub(crate) first: Spread,
    pub(crate) added_first: Option<Spread>,
    /// CPU of one chunk, by process.
    pub(crate) cpu_us: BTreeMap<String, f64>,
}

/// What a crowd of slow streams leaves behind.
#[derive(Serialize)]
pub(crate) struct Soak {
    pub(crate) streams: usize,
    pub(crate) seconds: f64,
    /// Seconds between two tokens of a stream.
    pub(crate) pace: u64,
    pub(crate) tokens: u64,
    /// Streams that ended, or missed a token, before they were let go.
    pub(crate) lost: usize,
    pub(crate) start_mib: BTreeMap<String, f64>,
    pub(crate) minute_mib: BTreeMap<String, f64>,
    pub(crate) end_mib: BTreeMap<String, f64>,
    pub(crate) slope_mib_per_minute: BTreeMap<String, f64>,
    /// CPU seconds a minute: without a call, with all streams, and after them.
    pub(crate) cpu_idle_before: BTreeMap<String, f64>,
    pub(crate) cpu_meanwhile: BTreeMap<String, f64>,
    pub(crate) cpu_idle_after: BTreeMap<String, f64>,
    /// What the apps count as alive.
    pub(crate) gauges_before: BTreeMap<String, f64>,
    pub(crate) gauges_meanwhile: BTreeMap<String, f64>,
    pub(crate) gauges_after: BTreeMap<String, f64>,
}

#[derive(Serialize)]
pub(crate) struct Aim {
    pub(crate) what: &'static str,
    pub(crate) aim: String,
    pub(crate) found: String,
    pub(crate) met: bool,
}
