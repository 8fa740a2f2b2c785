//! Ends a process whose runtime makes no progress, so that the restart policy
//! brings it back: Fly's health checks never restart a machine.
//!
//! A task on the runtime beats; a thread of its own listens. The thread counts
//! its own waking hours, not the clock: after a suspend or a freeze both have
//! slept, and nobody is to blame.
//!
//! Invariants:
//! - The process ends by abort, without running anybody's code: what hangs may
//!   hold the very locks that a clean exit would wait for.
//! - One line says why, and a log that hangs too cannot keep it alive.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::task::AbortOnDropHandle;

/// The thread looks this often while it waits for one beat to be missed.
const LOOKS: u32 = 10;
/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Watches the runtime it was made on; dropped, it stops watching.
#[must_use = "watches only until this is dropped"]
pub struct Watchdog {
    _beating: AbortOnDropHandle<()>,
    /// The one strong reference: its end is the end of both sides.
    _beats: Arc<AtomicU64>,
}

impl Watchdog {
    /// Aborts the process when the runtime stood still for `patience`.
    pub fn abort_after(patience: Duration) -> std::io::Result<Self> {
        Self::start(patience, move || {
            let (told, heard) = mpsc::channel();
            let speak = move || {
                tracing::error!(?patience, "the runtime makes no progress; ending the process");
                let _late = told.send(());
            };
            if thread::Builder::new().spawn(speak).is_ok() {
                let _silent = heard.recv_timeout(LAST_WORDS);
            }
            std::process::abort()
        })
    }

    fn start(patience: Duration, end: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        let beats = Arc::new(AtomicU64::new(0));
        let listening = Arc::downgrade(&beats);
        thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            if listen(&listening, patience / LOOKS) {
                end();
            }
        })?;
        let beating = tokio::spawn(beat(Arc::downgrade(&beats), patience / LOOKS));
        Ok(Self { _beating: AbortOnDropHandle::new(beating), _beats: beats })
    }
}

/// Beats, and measures by how much a beat comes late: what every other task of
/// this runtime waits too.
async fn beat(beats: Weak<AtomicU64>, every: Duration) {
    let every = every.min(Duration::from_millis(500));
    let mut ticks = time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut due = ticks.tick().await + every;
    loop {
        ticks.tick().await;
        let lag = Instant::now().saturating_duration_since(due);
        metrics::histogram!("skein_runtime_lag_seconds").record(lag.as_secs_f64());
        due = Instant::now() + every;
        let Some(beats) = beats.upgrade() else { return };
        beats.fetch_add(1, Relaxed);
    }
}

/// Whether the beat stopped; `false` once nobody beats any more.
fn listen(beats: &Weak<AtomicU64>, look: Duration) -> bool {
    let (mut last, mut missed) = (None, 0);
    while missed < LOOKS {
        thread::sleep(look);
        let Some(beats) = beats.upgrade() else { return false };
        let now = Some(beats.load(Relaxed));
        missed = if now == last { missed + 1 } else { 0 };
        last = now;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::RecvTimeoutError;

    const PATIENCE: Duration = Duration::from_millis(200);

    #[test]
    fn a_runtime_that_stands_still_is_noticed_and_one_that_works_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (told, heard) = mpsc::channel();
        runtime.block_on(async {
            let _watchdog = Watchdog::start(PATIENCE, move || told.send(()).unwrap()).unwrap();
            time::sleep(PATIENCE * 3).await;
            assert_eq!(heard.try_recv(), Err(mpsc::TryRecvError::Empty));
            // Blocks the only thread of the runtime, as a wedged handler would.
            assert_eq!(heard.recv_timeout(PATIENCE * 100), Ok(()));
        });
    }

    #[test]
    fn a_watchdog_that_was_dropped_watches_no_more() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (told, heard) = mpsc::channel();
        runtime.block_on(async {
            drop(Watchdog::start(PATIENCE, move || told.send(()).unwrap()).unwrap());
        });
        assert_eq!(heard.recv_timeout(PATIENCE * 4), Err(RecvTimeoutError::Disconnected));
    }
}
