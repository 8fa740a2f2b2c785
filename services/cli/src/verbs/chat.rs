//! `skein chat`: one thread, a line a turn, typed or piped.
//!
//! Invariants:
//! - A turn that fails is reported and the next line is read; the exit code is
//!   that of the first failure.
//! - Ctrl-C stops the answer that is coming; at the prompt it ends the chat.
//! - With `--json` every turn is one line of JSON.

use crate::{args::Conversation, connect::Gateway, errors::Error, terminal::Terminal};
use std::{io, thread};
use tokio::{signal, sync::mpsc};

pub(crate) async fn run(
    gateway: &Gateway,
    mut wanted: Conversation,
    json: bool,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let mut lines = lines();
    let mut first_failure = None;
    if terminal.interactive {
        terminal.note("one question a line; Ctrl-D or /exit ends");
    }
    loop {
        if terminal.interactive {
            terminal.text("› ")?;
        }
        let line = tokio::select! {
            line = lines.recv() => line,
            _ = signal::ctrl_c() => return Err(Error::Interrupted),
        };
        let question = match line {
            Some(Ok(line)) => line.trim().to_owned(),
            Some(Err(error)) => return Err(Error::failed(format!("cannot read stdin: {error}"))),
            None => break,
        };
        match question.as_str() {
            "" => continue,
            "/exit" | "/quit" => break,
            _ => {}
        }
        let message = super::ask::request(&wanted, question);
        match super::ask::turn(gateway, message, json, false, terminal).await {
            Ok(thread) => wanted.thread = Some(thread),
            Err(Error::Interrupted) if terminal.interactive => {}
            Err(error @ (Error::Closed | Error::Interrupted)) => return Err(error),
            Err(error) => {
                terminal.complain(&error);
                first_failure.get_or_insert(error);
            }
        }
    }
    match first_failure {
        Some(error) if !terminal.interactive => {
            let (message, code) = ("a question failed".to_owned(), error.exit_code());
            Err(Error::Said { message, code })
        }
        Some(_) | None => Ok(()),
    }
}

/// Lines of stdin, read by a thread of their own: the runtime would wait at
/// its end for a read that nobody can stop.
fn lines() -> mpsc::Receiver<io::Result<String>> {
    let (send, lines) = mpsc::channel(1);
    thread::spawn(move || {
        for line in io::stdin().lines() {
            if send.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}
