//! `make bench`: what the mesh costs, measured beside what it could cost.
//!
//! One program in several roles: the measuring one (`bench run`, and nothing
//! else by default) starts the others as processes of their own: a provider
//! that answers at once ([`provider`]), the bare gRPC hops that are the floor
//! ([`echo`]), a collector of traces ([`sink`]), and the real services on an
//! emulated network ([`mesh`]) without its edge proxy in the path.
//!
//! Invariants:
//! - Every figure says what it is the time *of*, and of how many calls.
//! - What is compared was measured in the same run, in turns.
//! - What could not be measured is named in the output, never left out.

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]
#![expect(clippy::print_stderr, reason = "progress and failures of a command line program")]

mod call;
mod child;
mod chunks;
mod cold;
mod compare;
mod echo;
mod gauges;
mod load;
mod mesh;
mod plan;
mod proc;
mod provider;
mod report;
mod run;
mod sink;
mod slow;
mod soak;
mod stamp;
mod stats;
mod subject;
mod table;
mod tensorzero;
mod tls;
mod upstream;

use clap::{Parser, Subcommand};
use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whatever goes wrong ends the run and is printed.
type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "Measures what the mesh adds to a model call, beside bare gRPC hops")]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    run: plan::Options,
}

#[derive(Subcommand)]
enum Role {
    /// An OpenAI-compatible provider that answers at once
    Provider {
        /// Speak HTTP/2 over TLS, and put the certificate to trust here
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
    },
    /// One bare gRPC hop
    Echo {
        /// Where the next hop listens; without it this is the last
        #[arg(long)]
        next: Option<SocketAddr>,
        /// One thread for everything, instead of one per core
        #[arg(long)]
        single: bool,
    },
    /// A collector of OTLP traces that throws them away
    Sink,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.role {
        Some(Role::Provider { ca }) => child::serve(true, provider::serve(ca.as_deref())),
        Some(Role::Echo { next, single }) => child::serve(single, echo::serve(next)),
        Some(Role::Sink) => child::serve(true, sink::serve()),
        None => child::runtime(true).and_then(|runtime| runtime.block_on(run::run(arguments.run))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
