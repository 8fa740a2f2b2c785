//! The process of a machine.
//!
//! Invariants:
//! - It never outlives flynet, however flynet ends. The kernel kills it with the
//!   *thread* that forked it, so everything here runs on the network's one
//!   thread; and the shell between checks that the parent still lived when the
//!   kernel was told.
//! - Each start finds a wiped directory and a clean environment.

use crate::{error::Error, events::What, layout, machine::Machine};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
};
use tokio::process::{Child, Command};

/// Exits at once when flynet died before the kernel knew; else becomes the program.
/// Whatever flynet's own caller ignores (a shell's background jobs ignore SIGINT),
/// a machine starts as Fly's init would start it.
const GUARD: &str = r#"[ "$PPID" = "$1" ] || exit 1; shift
exec env --default-signal=INT,QUIT,TERM,HUP "$@""#;

/// How a program ended.
pub(crate) struct Exit {
    pub(crate) text: String,
    pub(crate) clean: bool,
}

pub(crate) fn start(machine: &Machine) -> Result<Child, Error> {
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
    if let Some(pid) = child.id() {
        machine.note(What::Booted { pid });
    }
    Ok(child)
}

pub(crate) fn ended(machine: &Machine, status: ExitStatus) -> Exit {
    machine.note(What::Exited { code: status.code(), signal: status.signal() });
    let text = format!("{status}").replace("exit status: ", "exited with code ");
    note(machine, &text, status.success())
}

/// Leaves a line in the machine's log, where people look.
pub(crate) fn note(machine: &Machine, text: &str, clean: bool) -> Exit {
    if let Ok(mut log) = OpenOptions::new().create(true).append(true).open(&machine.log) {
        // a full disk must not keep a machine from being stopped
        let _unwritten = writeln!(log, "[flynet] machine {}: {text}", machine.id);
    }
    Exit { text: text.to_owned(), clean }
}

pub(crate) fn pid(child: &Child) -> Option<Pid> {
    child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw)
}

/// To the program alone, as Fly's init does.
pub(crate) fn signal(pid: Option<Pid>, signal: Signal) {
    // gone already: what was wanted
    let _gone = pid.map(|pid| signal::kill(pid, signal));
}

/// Also to what it has started itself.
pub(crate) fn signal_all(pid: Option<Pid>, signal: Signal) {
    let _gone = pid.map(|pid| signal::killpg(pid, signal));
}
