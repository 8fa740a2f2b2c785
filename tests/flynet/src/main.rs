//! `flynet`: Fly.io on one machine, from a terminal.
//!
//! Invariants:
//! - Exit codes: 0 ok, 1 failed, 2 usage, 4 no flynet runs there.
//! - The environment is read here and nowhere else.
#![expect(clippy::print_stderr, reason = "a command says there what went wrong")]

mod cli;

use clap::Parser as _;
use std::process::ExitCode;

/// Variables of the caller that machines may see; every other stays here.
#[expect(clippy::disallowed_methods, reason = "the one place where this program reads them")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::new(
        variable("FLYNET_LOG").as_deref().unwrap_or("warn,hickory_server=error"),
    );
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("flynet: cannot start a runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cli::run(arguments, &variable)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                eprintln!("flynet: {}", failure.text);
            }
            ExitCode::from(failure.code)
        }
    }
}
