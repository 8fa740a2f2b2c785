//! One Postgres server for the life of this process.
//!
//! Invariants:
//! - `start` returns when the server accepts connections: it waits for the line
//!   in its log, not for a while;
//! - the server is a child of a thread that lives as long as the process, and the
//!   kernel stops it (SIGQUIT: at once, shared memory given back) when that thread
//!   is gone; folders of dead servers are removed by the next start.

use crate::run;
use std::io::{BufRead as _, BufReader, Error, Result};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::{env, fs, process, thread};

/// Postgres refuses to run as root: `nobody` does.
const NOBODY: u32 = 65534;

pub(crate) struct Server {
    bin: PathBuf,
    home: PathBuf,
}

impl Server {
    pub(crate) fn start(root: &Path) -> Result<Self> {
        remove_homes_of_the_dead()?;
        let home = env::temp_dir().join(format!("skein-pg-{}", process::id()));
        fs::create_dir(&home)?;
        if nix::unistd::Uid::effective().is_root() {
            std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY))?;
        }
        let server = Self { bin: root.join("bin"), home };
        run(server
            .stepped_down("initdb")
            .args(["--username=postgres", "--auth=trust", "--no-sync", "--locale=C"])
            .args(["--encoding=UTF8", "--pgdata"])
            .arg(server.home.join("data")))?;
        server.serve()?;
        Ok(server)
    }

    pub(crate) fn create(&self, database: &str) -> Result<()> {
        run(Command::new(self.bin.join("createdb"))
            .args(["--username=postgres", "--host"])
            .arg(&self.home)
            .arg(database))
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@localhost/{database}?host={}", self.home.display())
    }

    fn serve(&self) -> Result<()> {
        let mut command = self.stepped_down("postgres");
        command
            .arg("-D")
            .arg(self.home.join("data"))
            .arg("-k")
            .arg(&self.home)
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200"])
            .args(["-c", "dynamic_shared_memory_type=mmap"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let (ready, started) = channel();
        thread::Builder::new().name("postgres".into()).spawn(move || keep(command, &ready))?;
        started.recv().map_err(|_gone| Error::other("no answer"))?
    }

    fn stepped_down(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig=QUIT").current_dir(&self.home);
        if nix::unistd::Uid::effective().is_root() {
            command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]);
            command.arg("--clear-groups");
        }
        command.arg("--").arg(self.bin.join(program));
        command
    }
}

/// Starts the server and reads its log to the end, which is its end.
fn keep(mut command: Command, ready: &Sender<Result<()>>) {
    let outcome = command.spawn().and_then(|mut child| follow(&mut child, ready));
    // Nobody listens any more unless it never became ready.
    let _unheard = ready.send(outcome);
}

fn follow(child: &mut Child, ready: &Sender<Result<()>>) -> Result<()> {
    let log = child.stderr.take().ok_or_else(|| Error::other("no log"))?;
    let mut last = String::new();
    for line in BufReader::new(log).lines() {
        last = line?;
        if last.contains("ready to accept connections") {
            let _first = ready.send(Ok(()));
        }
    }
    Err(Error::other(format!("postgres ended ({}): {last}", child.wait()?)))
}

fn remove_homes_of_the_dead() -> Result<()> {
    for entry in fs::read_dir(env::temp_dir())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let owner = name.strip_prefix("skein-pg-").and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Two test binaries may clean up at once.
            let _gone = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}
