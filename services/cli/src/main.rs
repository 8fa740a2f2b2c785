//! `skein`: talk to a mesh from a terminal.
//!
//! In reading order: what was typed ([`args`]), which gateway with which key
//! ([`access`], [`connect`]), what to do ([`verbs`]), how it looks ([`render`],
//! [`terminal`]) and how it ends ([`errors`]).
//!
//! Invariants:
//! - stdout holds the answer and nothing else; everything about the way to it
//!   goes to stderr.
//! - The exit code says who has to act: 0 nobody, 1 it failed, 2 the command
//!   line, 3 the key, 4 the mesh, 5 a limit or budget, 130 stopped by Ctrl-C.

mod access;
mod args;
mod connect;
mod errors;
mod follow;
mod render;
mod retry;
mod terminal;
mod verbs;

use std::process::ExitCode;
use terminal::Terminal;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let (args, sources) = match args::read() {
        Ok(read) => read,
        Err(error) => return args::complain(&error),
    };
    let mut terminal = Terminal::of_process();
    match Box::pin(verbs::run(args, &sources, &mut terminal)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal.complain(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
