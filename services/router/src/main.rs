//! Reads the configuration, opens the world, serves, says why it stopped.
#![expect(clippy::print_stderr, reason = "what is wrong before telemetry is up goes to stderr")]

use mesh::{World, config::Sources, telemetry::Telemetry};
use router::Config;
use std::{error::Error, process::ExitCode};

#[tokio::main]
async fn main() -> ExitCode {
    match start().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("router: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn start() -> Result<(), Box<dyn Error>> {
    let (config, settings) = Config::read(&Sources::from_process()?)?;
    let telemetry = Telemetry::init(&config.common)?;
    let world = World::open(&config.common, settings).await?;
    let outcome = router::run(config, world).await;
    telemetry.shutdown().await; // last: after the last span
    Ok(outcome?)
}
