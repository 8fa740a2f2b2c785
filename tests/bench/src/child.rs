//! The roles of this program as processes: started, told apart by where they
//! listen, gone when the measuring process is gone.
//!
//! Invariants:
//! - A child says its address on stdout, once, when it listens.
//! - A child ends when its stdin does: however its parent ended, none is left.

use crate::Failure;
use std::{
    net::SocketAddr,
    path::Path,
    process::{Child as Process, Command, Stdio},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::TcpListener,
    process,
    runtime::Runtime,
    time,
};

/// The longest a child takes to listen; Python has to load a gateway.
const START: std::time::Duration = std::time::Duration::from_secs(60);

pub(crate) fn runtime(single: bool) -> Result<Runtime, Failure> {
    let mut builder = if single {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    Ok(builder.enable_all().build()?)
}

/// Runs a role until the parent goes.
pub(crate) fn serve(
    single: bool,
    role: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    runtime(single)?.block_on(async {
        tokio::select! {
            ended = role => ended,
            () = orphaned() => Ok(()),
        }
    })
}

async fn orphaned() {
    let mut sunk = [0; 64];
    let mut stdin = tokio::io::stdin();
    while !matches!(stdin.read(&mut sunk).await, Ok(0) | Err(_)) {}
}

/// A listener on a free port, announced to the parent.
pub(crate) async fn listen() -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    Ok(listener)
}

/// A running child.
pub(crate) struct Child {
    /// What it said: its address, or for a foreign program its URL.
    pub(crate) said: String,
    pub(crate) pid: u32,
    _process: process::Child,
}

impl Child {
    pub(crate) async fn own(arguments: &[&str]) -> Result<Self, Failure> {
        let mut command = process::Command::new(std::env::current_exe()?);
        command.args(arguments);
        Self::start(command).await
    }

    pub(crate) async fn start(mut command: process::Command) -> Result<Self, Failure> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn()?;
        let stdout = process.stdout.take().ok_or("a child without stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let listening = async {
            while let Some(line) = lines.next_line().await? {
                // A foreign program may log before.
                if line.starts_with("http://") || line.parse::<SocketAddr>().is_ok() {
                    return Ok(line);
                }
            }
            Err(Failure::from("a child ended before it listened"))
        };
        let said = time::timeout(START, listening).await;
        let said = said.map_err(|_| "a child did not listen in time")??;
        let pid = process.id().ok_or("a child ended at once")?;
        // What else it says is thrown away, so that it never waits for a reader.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { said, pid, _process: process })
    }

    pub(crate) fn addr(&self) -> Result<SocketAddr, Failure> {
        Ok(self.said.parse()?)
    }
}

/// A program that is started to be timed, and ended by force.
pub(crate) struct Timed(Process);

impl Timed {
    pub(crate) fn start(
        program: &Path,
        directory: &Path,
        variables: &[(String, String)],
    ) -> Result<Self, Failure> {
        let mut command = Command::new(program);
        command.current_dir(directory).env_clear().envs(variables.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn()?))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}
