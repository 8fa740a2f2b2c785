//! Health checks as Fly runs them.
//!
//! Invariants:
//! - A failing check never restarts a machine and never touches DNS. One of a
//!   service takes the machine out of the proxy's choice; one of `[checks]` does
//!   nothing while the machine runs. Deploys wait for both.
//! - The first comes after the grace period; only 2xx passes, redirects are not
//!   followed.

use crate::{
    events::What,
    fly_toml::{Check, Probe},
    machine::{Machine, Order, State},
    pace::Pace,
};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time,
};

/// A busy computer is no sick machine: timeouts are not scaled below this.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(500);

/// What a check said last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    pub name: String,
    /// Of a service: while it fails, the proxy does not route to the machine.
    pub service: bool,
    pub status: Verdict,
    pub output: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Not asked yet.
    Warning,
    Passing,
    Critical,
}

/// Checks as long as the machine is meant to run, or until the set is dropped.
pub(crate) fn begin(machine: &Arc<Machine>) -> JoinSet<()> {
    let config = Arc::clone(&machine.release().config);
    let unasked = |check: &Check| Checked {
        name: check.name.clone(),
        service: check.service,
        status: Verdict::Warning,
        output: "not checked yet".to_owned(),
    };
    machine.checks.send_replace(config.checks.iter().map(unasked).collect());
    let mut running = JoinSet::new();
    for (number, check) in config.checks.iter().cloned().enumerate() {
        let machine = Arc::clone(machine);
        running.spawn(async move {
            let mut order = machine.order.subscribe();
            tokio::select! {
                _ = order.wait_for(|order| *order != Order::Run) => {}
                () = again_and_again(&machine, number, &check) => {}
            }
        });
    }
    running
}

async fn again_and_again(machine: &Machine, number: usize, check: &Check) {
    let Pace { boot, .. } = machine.pace;
    time::sleep(boot + machine.pace.scaled(check.grace)).await;
    let timeout = machine.pace.scaled(check.timeout).max(SHORTEST_TIMEOUT.min(check.timeout));
    let address = SocketAddr::from((machine.address, check.port));
    loop {
        if machine.state() == State::Started {
            let answer = match time::timeout(timeout, ask(address, &check.probe)).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("no answer in {timeout:?}")),
            };
            record(machine, number, answer);
        }
        time::sleep(machine.pace.scaled(check.interval)).await;
    }
}

fn record(machine: &Machine, number: usize, answer: Result<String, String>) {
    let (status, output) = match answer {
        Ok(output) => (Verdict::Passing, output),
        Err(output) => (Verdict::Critical, output),
    };
    machine.checks.send_modify(|all| {
        let Some(checked) = all.get_mut(number) else { return };
        if checked.status != status {
            let (name, passing) = (checked.name.clone(), status == Verdict::Passing);
            machine.note(What::Checked { name, passing });
        }
        (checked.status, checked.output) = (status, output);
    });
}

async fn ask(address: SocketAddr, probe: &Probe) -> Result<String, String> {
    match probe {
        Probe::Tcp => match TcpStream::connect(address).await {
            Ok(_) => Ok("connected".to_owned()),
            Err(error) => Err(format!("connect to {address}: {error}")),
        },
        Probe::Http { method, path, headers } => {
            match status(address, method, path, headers).await {
                Ok(code @ 200..=299) => Ok(format!("status {code}")),
                Ok(code) => Err(format!("status {code}")),
                Err(error) => Err(format!("{method} http://{address}{path}: {error}")),
            }
        }
    }
}

/// The status of a plain request: HTTP/1, no redirects.
pub(crate) async fn status(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(String, String)],
) -> std::io::Result<u16> {
    let mut socket = TcpStream::connect(address).await?;
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    socket.write_all((request + "\r\n").as_bytes()).await?;
    let mut head = [0; 12]; // `HTTP/1.1 200`
    socket.read_exact(&mut head).await?;
    let code = std::str::from_utf8(&head[9..]).ok().and_then(|code| code.parse().ok());
    code.ok_or_else(|| std::io::Error::other("no HTTP/1 answer"))
}
