//! Waits until a machine answers its own readiness check.
//!
//! Invariants:
//! - Ends by the deadline at the latest, with the end of the machine's log.
//! - A machine that keeps ending is reported at once, not at the deadline.

use crate::{
    checks,
    error::Error,
    machine::{Machine, State},
};
use std::{fs, time::Duration};
use tokio::time;

const EVERY: Duration = Duration::from_millis(10);
const ONE_TRY: Duration = Duration::from_secs(2);
/// Starts after which a machine is not going to make it.
const STARTS: u32 = 3;
const LINES: usize = 20;

pub(crate) async fn wait(machine: &Machine, patience: Duration) -> Result<(), Error> {
    let Some((address, path)) = machine.ready_check() else { return Ok(()) };
    let asking = async {
        let mut every = time::interval(EVERY);
        loop {
            every.tick().await;
            let asked = checks::status(address, "GET", &path, &[]);
            let says_so = matches!(time::timeout(ONE_TRY, asked).await, Ok(Ok(200)));
            // a check that came before the program listened keeps the proxy away
            if says_so && machine.routable() {
                return Ok(());
            }
            let (state, starts) = {
                let status = machine.status.borrow();
                (status.state, status.starts)
            };
            if state == State::Stopped || starts > STARTS {
                return Err(Error::Died {
                    app: machine.app.clone(),
                    machine: machine.id.clone(),
                    log: end_of_log(machine),
                });
            }
        }
    };
    time::timeout(patience, asking).await.unwrap_or_else(|_| {
        Err(Error::NotReady {
            app: machine.app.clone(),
            machine: machine.id.clone(),
            seconds: patience.as_secs(),
            log: end_of_log(machine),
        })
    })
}

pub(crate) fn end_of_log(machine: &Machine) -> String {
    let text = fs::read(&machine.log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    if last.is_empty() {
        return "; it has logged nothing".to_owned();
    }
    format!("; the end of its log:\n  {}", last.join("\n  "))
}
