//! Reads the configuration, opens the world, serves, says why it stopped.
#![expect(clippy::print_stderr, reason = "what is wrong before telemetry is up goes to stderr")]

use mesh::{
    World,
    config::{Setting, Sources},
    runtime,
    telemetry::Telemetry,
};
use mimalloc::MiMalloc;
use model_proxy::Config;
use std::{error::Error, process::ExitCode};

/// See `mesh::runtime` and `make bench` for what this and the threads are worth.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("model-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), Box<dyn Error>> {
    let (config, settings) = Config::read(&Sources::from_process()?)?;
    runtime::run(config.common.threads, serve(config, settings))?
}

async fn serve(config: Config, settings: Vec<Setting>) -> Result<(), Box<dyn Error>> {
    let telemetry = Telemetry::init(&config.common)?;
    let world = World::open(&config.common, settings).await?;
    let outcome = model_proxy::run(&config, world).await;
    telemetry.shutdown().await; // last: after the last span
    Ok(outcome?)
}
