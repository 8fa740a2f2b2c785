//! Runs one machine: starts its process, restarts it by policy, ends it.
//!
//! Invariants:
//! - A machine's process never outlives flynet, however flynet ends. The kernel
//!   kills it with the *thread* that forked it, so everything here runs on the
//!   network's one thread; and the shell between checks that the parent still
//!   lived when the kernel was told.
//! - Each start finds a wiped directory and a clean environment.
//! - An ordered stop is never undone by the restart policy.
//! - Nothing of a machine is left when its state says stopped.

use crate::{
    error::Error,
    fly_toml::Restart,
    layout,
    machine::{Machine, Order, State},
};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use std::{
    fs::OpenOptions,
    io::Write as _,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::process::{Child, Command};

/// Exits at once when flynet died before the kernel knew; else becomes the program.
const GUARD: &str = r#"[ "$PPID" = "$1" ] || exit 1; shift; exec "$@""#;
/// Fly gives `on-failure` this many restarts in five minutes.
const RESTARTS: u32 = 10;
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// Until the machine is stopped, by order or by its policy.
pub(crate) async fn run(machine: Arc<Machine>) {
    let mut backoff = FIRST_BACKOFF;
    for restarts in 0.. {
        let exit = match start(&machine) {
            Ok(child) => until_exit(&machine, child).await,
            Err(error) => note(&machine, &error.to_string(), false),
        };
        let ordered = *machine.order.borrow() != Order::Run;
        let again = match machine.release().config.restart {
            Restart::Always => true,
            Restart::OnFailure => !exit.clean && restarts < RESTARTS,
            Restart::Never => false,
        };
        machine.status.send_modify(|status| {
            status.pid = None;
            status.exit = Some(exit.text);
            if ordered || !again {
                status.state = State::Stopped;
            }
        });
        if ordered || !again {
            return;
        }
        let mut order = machine.order.subscribe();
        let told = order.wait_for(|order| *order != Order::Run);
        if tokio::time::timeout(backoff, told).await.is_ok() {
            machine.status.send_modify(|status| status.state = State::Stopped);
            return;
        }
        backoff = (backoff * 2).min(LONGEST_BACKOFF);
    }
}

struct Exit {
    text: String,
    clean: bool,
}

fn start(machine: &Machine) -> Result<Child, Error> {
    layout::wipe(machine)?;
    let release = machine.release();
    let log = OpenOptions::new().create(true).append(true).open(&machine.log);
    let log = log.map_err(Error::io("open", &machine.log))?;
    let errors = log.try_clone().map_err(Error::io("open", &machine.log))?;
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "sh", "-c", GUARD, "sh"])
        .arg(std::process::id().to_string())
        .arg(&release.program)
        .env_clear()
        .envs(&release.env)
        .current_dir(&machine.directory)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::io("start (is setpriv, of util-linux, installed?)", &release.program))?;
    machine.status.send_modify(|status| {
        status.pid = child.id();
        status.starts += 1;
    });
    Ok(child)
}

async fn until_exit(machine: &Machine, mut child: Child) -> Exit {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let mut order = machine.order.subscribe();
    let ordered = tokio::select! {
        outcome = child.wait() => Err(outcome),
        told = order.wait_for(|order| *order != Order::Run) => Ok(told.map(|order| *order)),
    };
    let outcome = match ordered {
        Err(outcome) => outcome,
        Ok(told) => {
            if !matches!(told, Ok(Order::Kill)) {
                let release = machine.release();
                tell(pid, release.config.kill_signal);
                let killed = order.wait_for(|order| *order == Order::Kill);
                tokio::select! {
                    _ = child.wait() => {}
                    _ = tokio::time::timeout(release.kill_timeout, killed) => {}
                }
            }
            kill_all(pid);
            child.wait().await
        }
    };
    kill_all(pid); // what it may have started itself
    match outcome {
        Ok(status) => note(machine, &describe(status), status.success()),
        Err(error) => note(machine, &error.to_string(), false),
    }
}

/// Leaves a line in the machine's log, where people look.
fn note(machine: &Machine, text: &str, clean: bool) -> Exit {
    if let Ok(mut log) = OpenOptions::new().create(true).append(true).open(&machine.log) {
        // a full disk must not keep a machine from being stopped
        let _unwritten = writeln!(log, "[flynet] machine {}: {text}", machine.id);
    }
    Exit { text: text.to_owned(), clean }
}

fn describe(status: ExitStatus) -> String {
    format!("{status}").replace("exit status: ", "exited with code ")
}

fn tell(pid: Option<Pid>, signal: Signal) {
    // gone already: what was wanted
    let _gone = pid.map(|pid| signal::kill(pid, signal));
}

fn kill_all(pid: Option<Pid>) {
    let _gone = pid.map(|pid| signal::killpg(pid, Signal::SIGKILL));
}
