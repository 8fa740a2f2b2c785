//! One Postgres server and its data directory.
//!
//! Invariants:
//! - `start` returns when the server accepts connections: it waits for the line
//!   in its log, not for a while;
//! - the server is a child of a thread that lives as long as the process, and the
//!   kernel stops it (SIGQUIT: at once, shared memory given back) when that thread
//!   is gone;
//! - a data directory that is there is whole: it is made elsewhere and renamed.

use crate::run;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Error, Result, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

/// Postgres refuses to run as root: `nobody` does.
pub(crate) const NOBODY: u32 = 65534;

/// How clients reach it.
#[derive(Clone, Debug)]
pub(crate) enum Access {
    /// A Unix socket in its home, for whoever can open that.
    Socket,
    /// An address, with a password.
    Tcp { address: SocketAddr, user: String, password: String },
}

pub(crate) struct Server {
    bin: PathBuf,
    home: PathBuf,
    access: Access,
    process: Option<Process>,
}

struct Process {
    pid: Pid,
    keeper: JoinHandle<()>,
}

impl Server {
    /// `root`: what holds `bin`; `home`: an existing directory, where data of
    /// earlier runs is used again; `settings`: like `fsync=off`.
    pub(crate) fn start(
        root: &Path,
        home: &Path,
        access: Access,
        settings: &[&str],
        log: Option<File>,
    ) -> Result<Self> {
        if Uid::effective().is_root() {
            chown(home, Some(NOBODY), Some(NOBODY))?;
        }
        let mut server =
            Self { bin: root.join("bin"), home: home.to_owned(), access, process: None };
        if !server.data().exists() {
            server.init()?;
        }
        server.process = Some(server.serve(settings, log)?);
        Ok(server)
    }

    pub(crate) fn create(&self, database: &str) -> Result<()> {
        let mut command = Command::new(self.bin.join("createdb"));
        match &self.access {
            Access::Socket => command.arg("--username=postgres").arg("--host").arg(&self.home),
            Access::Tcp { address, user, password } => command
                .arg(format!("--username={user}"))
                .arg(format!("--host={}", address.ip()))
                .arg(format!("--port={}", address.port()))
                .env("PGPASSWORD", password),
        };
        run(command.arg(database))
    }

    pub(crate) fn url(&self, database: &str) -> String {
        match &self.access {
            Access::Socket => {
                format!("postgres://postgres@localhost/{database}?host={}", self.home.display())
            }
            Access::Tcp { address, user, password } => {
                format!("postgres://{user}:{password}@{address}/{database}")
            }
        }
    }

    /// Ends its sessions and stops it; what was committed is there at the next start.
    pub(crate) fn stop(&mut self) {
        let Some(Process { pid, keeper }) = self.process.take() else { return };
        if !keeper.is_finished() {
            // Gone already: what was wanted.
            let _gone = kill(pid, Signal::SIGINT);
        }
        let _ended = keeper.join();
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    fn init(&self) -> Result<()> {
        let new = self.home.join("data.new");
        if new.exists() {
            fs::remove_dir_all(&new)?;
        }
        let mut command = self.stepped_down("initdb");
        command.args(["--no-sync", "--locale=C", "--encoding=UTF8", "--pgdata"]).arg(&new);
        match &self.access {
            Access::Socket => run(command.args(["--username=postgres", "--auth=trust"]))?,
            Access::Tcp { user, password, .. } => {
                command.arg(format!("--username={user}")).arg("--auth=scram-sha-256");
                let file = self.home.join("pwfile");
                let mut options = OpenOptions::new();
                let opened =
                    options.write(true).create(true).truncate(true).mode(0o600).open(&file);
                writeln!(opened?, "{password}")?;
                if Uid::effective().is_root() {
                    chown(&file, Some(NOBODY), Some(NOBODY))?;
                }
                let made = run(command.arg("--pwfile").arg(&file));
                fs::remove_file(&file)?;
                made?;
            }
        }
        fs::rename(&new, self.data())
    }

    fn serve(&self, settings: &[&str], log: Option<File>) -> Result<Process> {
        let mut command = self.stepped_down("postgres");
        command.arg("-D").arg(self.data());
        match &self.access {
            Access::Socket => command.arg("-k").arg(&self.home).args(["-c", "listen_addresses="]),
            Access::Tcp { address, .. } => command
                .args(["-c", "unix_socket_directories="])
                .args(["-c", &format!("listen_addresses={}", address.ip())])
                .args(["-c", &format!("port={}", address.port())]),
        };
        for setting in ["max_connections=200", "dynamic_shared_memory_type=mmap"] {
            command.args(["-c", setting]);
        }
        for setting in settings {
            command.args(["-c", setting]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let (ready, started) = channel();
        let keeper = thread::Builder::new().name("postgres".into());
        let keeper = keeper.spawn(move || keep(command, &ready, log))?;
        let pid = started.recv().map_err(|_gone| Error::other("no answer"))??;
        Ok(Process { pid, keeper })
    }

    fn stepped_down(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig=QUIT").current_dir(&self.home);
        if Uid::effective().is_root() {
            command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]);
            command.arg("--clear-groups");
        }
        command.arg("--").arg(self.bin.join(program));
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts the server and reads its log to the end, which is its end.
fn keep(mut command: Command, ready: &Sender<Result<Pid>>, log: Option<File>) {
    let outcome = command.spawn().and_then(|mut child| follow(&mut child, ready, log));
    // Nobody listens any more unless it never became ready.
    let _unheard = ready.send(outcome);
}

fn follow(child: &mut Child, ready: &Sender<Result<Pid>>, mut log: Option<File>) -> Result<Pid> {
    let pid = i32::try_from(child.id()).map(Pid::from_raw).map_err(Error::other)?;
    let errors = child.stderr.take().ok_or_else(|| Error::other("no log"))?;
    let mut last = String::new();
    for line in BufReader::new(errors).lines() {
        last = line?;
        if let Some(log) = &mut log {
            // A full disk must not stop the reading, which would stop the server.
            let _unwritten = writeln!(log, "{last}");
        }
        if last.contains("ready to accept connections") {
            let _first = ready.send(Ok(pid));
        }
    }
    Err(Error::other(format!("postgres ended ({}): {last}", child.wait()?)))
}
