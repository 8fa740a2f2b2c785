//! A server as an operator would run it for others: its data outlives it, an
//! address, a password.
//!
//! Invariants:
//! - one server per directory: a new one waits until the one before has let go of
//!   the data, which may still be shutting down;
//! - the password is made once, and readable by its owner alone;
//! - where `nobody` may not enter the directory (root's home is closed to others)
//!   the data lies elsewhere, a link in the directory leads there, and it is
//!   removed after the directory has gone.

use crate::server::{Access, Server};
use crate::wheel;
use nix::unistd::Uid;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{Error, ErrorKind, Read as _, Result, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// As Fly's Managed Postgres calls them.
const USER: &str = "fly-user";
const DATABASE: &str = "fly-db";
const ELSEWHERE: &str = "/var/tmp/skein-postgres";
/// How often, and how many times, the server before is asked for.
const EVERY: Duration = Duration::from_millis(10);
const TIMES: u32 = 2_000;

/// Stopped when dropped.
pub struct Managed {
    server: Server,
}

impl Managed {
    /// `directory` is made if absent; `log` gets what the server says.
    pub fn start(directory: &Path, address: SocketAddr, log: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let directory = directory.canonicalize()?;
        let root = wheel::unpacked()?;
        let password = password(&directory.join("password"))?;
        let home = home(&directory)?;
        wait_for_the_one_before(&home)?;
        let access = Access::Tcp { address, user: USER.to_owned(), password };
        let log = File::create(log)?;
        let server = Server::start(&root, &home, access, &[], Some(log))?;
        match server.create(DATABASE) {
            Err(error) if !error.to_string().contains("already exists") => Err(error),
            _ => Ok(Self { server }),
        }
    }

    /// What `fly mpg attach` would set as `DATABASE_URL`.
    pub fn url(&self) -> String {
        self.server.url(DATABASE)
    }

    pub fn stop(&mut self) {
        self.server.stop();
    }
}

fn password(path: &Path) -> Result<String> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            let mut random = [0; 20];
            File::open("/dev/urandom")?.read_exact(&mut random)?;
            let password = hex::encode(random);
            file.write_all(password.as_bytes())?;
            Ok(password)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => fs::read_to_string(path),
        Err(error) => Err(error),
    }
}

/// Where the data can lie: below `directory` if `nobody` gets there.
fn home(directory: &Path) -> Result<PathBuf> {
    let link = directory.join("server");
    if !Uid::effective().is_root() || wheel::is_open(directory)? {
        fs::create_dir_all(&link)?;
        return Ok(link);
    }
    remove_what_no_directory_leads_to()?;
    let name = hex::encode(&Sha256::digest(directory.as_os_str().as_encoded_bytes())[..8]);
    let parent = Path::new(ELSEWHERE).join(name);
    let home = parent.join("server");
    fs::create_dir_all(&home)?;
    make_link(directory, &parent.join("of"))?;
    make_link(&home, &link)?;
    Ok(home)
}

fn make_link(to: &Path, link: &Path) -> Result<()> {
    match symlink(to, link) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn remove_what_no_directory_leads_to() -> Result<()> {
    let Ok(entries) = fs::read_dir(ELSEWHERE) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        let of = path.join("of");
        if of.is_symlink() && !of.exists() {
            // Two may clean up at once.
            let _gone = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}

fn wait_for_the_one_before(home: &Path) -> Result<()> {
    let lock = home.join("data/postmaster.pid");
    for _ in 0..TIMES {
        if !is_held(&lock, home) {
            return Ok(());
        }
        thread::sleep(EVERY);
    }
    Err(Error::other(format!("another Postgres still serves {}; stop it", home.display())))
}

/// Whether the process that the lock names is a server of this home.
fn is_held(lock: &Path, home: &Path) -> bool {
    let pid = fs::read_to_string(lock).ok().and_then(|text| text.lines().next()?.parse().ok());
    let Some(pid): Option<u32> = pid else { return false };
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&command).contains(&home.display().to_string())
}
