//! The fakes of all providers on ports of the loopback interface, for trying
//! things by hand; see the crate's documentation for what the models do.

use clap::Parser;
use providers::{Options, anthropic, openai, replicate};
use std::{io, net::SocketAddr, process::ExitCode};

#[derive(Parser)]
struct Arguments {
    /// First of the three ports to listen on; 0 takes free ones.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

#[tokio::main]
#[expect(clippy::print_stderr, reason = "the reason is for the terminal")]
async fn main() -> ExitCode {
    match run(Arguments::parse().port).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot listen: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the addresses are the output")]
async fn run(port: u16) -> io::Result<()> {
    let on = |offset: u16| {
        let port = if port == 0 { 0 } else { port.saturating_add(offset) };
        Options { address: SocketAddr::from(([127, 0, 0, 1], port)), ..Options::default() }
    };
    let openai = openai::start_with(on(0)).await?;
    let anthropic = anthropic::start_with(on(1)).await?;
    let replicate = replicate::start_with(on(2)).await?;
    println!("export OPENAI_BASE_URL={} OPENAI_API_KEY=sk-fake", openai.url);
    println!("export ANTHROPIC_BASE_URL={} ANTHROPIC_API_KEY=sk-fake", anthropic.url);
    println!("export REPLICATE_BASE_URL={} REPLICATE_API_TOKEN=r8_fake", replicate.url);
    tokio::signal::ctrl_c().await
}
