//! The runtime of a service: everything on one thread on a machine with one
//! core, a thread per core on a larger one.
//!
//! Waking another thread costs much of a hop, and with one core there is nobody
//! to share the work with. Measured by `make bench` on two cores: three bare
//! hops take 0.31 ms on one thread each and 0.39 ms on two; a chat through three
//! services adds 0.55 ms instead of 0.70, and a second of CPU serves 5,000 chats
//! of ten clients instead of 3,100.
//!
//! Invariant: what computes for longer than a call lasts is not on these
//! threads; models and indexes have their own.

use std::{future::Future, io};
use tokio::runtime::Builder;

/// More than any machine of Fly has.
pub(crate) const MOST: usize = 64;

/// Runs a service to its end on `threads` threads.
pub fn run<F: Future>(threads: usize, service: F) -> io::Result<F::Output> {
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    Ok(builder.enable_all().build()?.block_on(service))
}

/// As many as this machine has cores.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::runtime::{Handle, RuntimeFlavor};

    #[test]
    fn one_core_is_one_thread() {
        let flavor = |threads| run(threads, async { Handle::current().runtime_flavor() }).unwrap();
        assert_eq!(flavor(1), RuntimeFlavor::CurrentThread);
        assert_eq!(flavor(2), RuntimeFlavor::MultiThread);
        assert!((1..=MOST).contains(&cores()));
    }
}
