//! A server that speaks OpenAI's dialect on a port of the loopback interface;
//! see `providers::openai` for what the models do.

use clap::Parser;
use std::{net::SocketAddr, process::ExitCode};

#[derive(Parser)]
struct Arguments {
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

#[tokio::main]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the address is the output")]
async fn main() -> ExitCode {
    let port = Arguments::parse().port;
    match providers::openai::start_on(SocketAddr::from(([127, 0, 0, 1], port))).await {
        Ok(fake) => {
            println!("OPENAI_BASE_URL={}", fake.url);
            let stopped = tokio::signal::ctrl_c().await;
            if stopped.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("cannot listen on port {port}: {error}");
            ExitCode::FAILURE
        }
    }
}
