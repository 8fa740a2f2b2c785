//! The built command against a gateway made of a few answers.
//!
//! Invariants:
//! - Every test runs the binary as a person would, with an empty environment
//!   and a folder of its own.

#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

mod access;
mod answers;
mod fakes;
mod ingestion;
mod operating;

use fakes::{Fake, KEY};
use serde_json::Value;
use std::{path::Path, process::Stdio};
use tokio::{io::AsyncWriteExt as _, process::Command};

/// How the command ended.
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

/// The command with nothing around it.
fn bare(args: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skein"));
    command.args(args).env_clear().current_dir(folder).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn end(mut command: Command) -> Ended {
    let output = command.output().await.unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Fake {
    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn command(&self, args: &[&str], folder: &Path) -> Command {
        let mut command = bare(args, folder);
        command.env("SKEIN_URL", self.url()).env("SKEIN_API_KEY", KEY);
        command
    }

    async fn skein(&self, args: &[&str]) -> Ended {
        let folder = tempfile::tempdir().unwrap();
        end(self.command(args, folder.path())).await
    }

    async fn typed(&self, args: &[&str], input: &str) -> Ended {
        let folder = tempfile::tempdir().unwrap();
        let mut command = self.command(args, folder.path());
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        Ended {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
