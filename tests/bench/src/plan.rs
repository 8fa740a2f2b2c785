//! How long and how much: the full run, and the short one for CI.

use std::{path::PathBuf, time::Duration};

#[derive(clap::Args, Clone)]
pub(crate) struct Options {
    /// Tiny counts: does it run, is the report whole; its figures mean little
    #[arg(long)]
    quick: bool,
    /// Where the apps' programs are [default: where bench is]
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,
    /// The report
    #[arg(long, value_name = "FILE", default_value = "target/bench/overhead.json")]
    pub(crate) out: PathBuf,
    /// How long idle streams are held, in minutes, and slow readers up to one [default: 0.5]
    #[arg(long)]
    minutes: Option<f64>,
    /// A virtual environment that holds the wheel tensorzero==2026.6.0
    #[arg(long, value_name = "DIR", default_value = "target/bench/tensorzero")]
    pub(crate) tensorzero: PathBuf,
    /// How long a crowd of slow streams is held, in minutes [default: 10]
    #[arg(long)]
    soak_minutes: Option<f64>,
    /// Only what is needed for this part: calls, chunks, readers, soak or starts
    #[arg(long, value_name = "PART")]
    pub(crate) only: Option<Part>,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Calls,
    Chunks,
    Readers,
    Soak,
    Starts,
}

/// Counts and spans of one run.
pub(crate) struct Plan {
    pub(crate) quick: bool,
    /// Each target has its turn this often.
    pub(crate) rounds: usize,
    /// One turn.
    pub(crate) turn: Duration,
    /// Before the first turn of each load.
    pub(crate) warm: Duration,
    pub(crate) clients: Vec<usize>,
    /// Calls a second of the open load.
    pub(crate) rate: f64,
    /// How often each app is started to be timed.
    pub(crate) starts: usize,
    /// How long slow readers and idle streams are held.
    pub(crate) held: Duration,
    pub(crate) slow_readers: usize,
    pub(crate) idle_streams: usize,
    /// Streams whose chunks are timed, and for how long.
    pub(crate) chunk_streams: Vec<usize>,
    pub(crate) chunks: Duration,
    /// How many slow streams are held, and for how long.
    pub(crate) soak_streams: usize,
    pub(crate) soak: Duration,
}

impl Options {
    pub(crate) fn plan(&self) -> Plan {
        let span = |minutes: f64| Duration::try_from_secs_f64(minutes * 60.0).ok();
        let held = self.minutes.and_then(span);
        let soak = self.soak_minutes.and_then(span);
        if self.quick {
            return Plan {
                quick: true,
                rounds: 1,
                turn: Duration::from_millis(150),
                warm: Duration::from_millis(50),
                clients: vec![1, 10],
                rate: 50.0,
                starts: 1,
                held: held.unwrap_or(Duration::from_secs(1)),
                slow_readers: 2,
                idle_streams: 50,
                chunk_streams: vec![1, 8],
                chunks: Duration::from_millis(500),
                soak_streams: 100,
                soak: soak.unwrap_or(Duration::from_secs(10)),
            };
        }
        Plan {
            quick: false,
            rounds: 3,
            turn: Duration::from_millis(1000),
            warm: Duration::from_millis(300),
            clients: vec![1, 10, 32],
            rate: 500.0,
            starts: 7,
            held: held.unwrap_or(Duration::from_secs(30)),
            slow_readers: 16,
            idle_streams: 1000,
            chunk_streams: vec![1, 32, 256],
            chunks: Duration::from_secs(10),
            soak_streams: 1000,
            soak: soak.unwrap_or(Duration::from_secs(600)),
        }
    }

    pub(crate) fn does(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }
}
