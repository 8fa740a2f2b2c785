//! Waits until a machine answers its own readiness check.
//!
//! Invariants:
//! - Ends by the deadline at the latest, with the end of the machine's log.
//! - A machine that keeps ending is reported at once, not at the deadline.

use crate::{
    error::Error,
    machine::{Machine, State},
};
use std::{fs, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time,
};

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
            if time::timeout(ONE_TRY, ask(address, &path)).await == Ok(Some(200)) {
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

/// The status of a plain GET, as Fly's own checks make it: HTTP/1, no redirects.
async fn ask(address: SocketAddr, path: &str) -> Option<u16> {
    let mut socket = TcpStream::connect(address).await.ok()?;
    let get = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    socket.write_all(get.as_bytes()).await.ok()?;
    let mut head = [0; 12]; // `HTTP/1.1 200`
    socket.read_exact(&mut head).await.ok()?;
    std::str::from_utf8(&head[9..]).ok()?.parse().ok()
}

fn end_of_log(machine: &Machine) -> String {
    let text = fs::read(&machine.log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    if last.is_empty() {
        return "; it has logged nothing".to_owned();
    }
    format!("; the end of its log:\n  {}", last.join("\n  "))
}
