//! `chaos`: the scenarios in their long form, for people; `make chaos`.
//!
//! Invariants:
//! - Figures go to stdout and, as JSON, to the folder given; exit code 1 when
//!   anything is that must not be.
#![expect(clippy::print_stdout, reason = "figures are the output")]

use chaos::{
    scenarios::ALL,
    scene::{Report, Scale},
};
use clap::Parser;
use serde_json::json;
use std::{fs, io, path::PathBuf, process::ExitCode};

#[derive(Parser)]
#[command(about = "What must be seen of the mesh while it is disturbed")]
struct Arguments {
    /// Scenarios to run [default: all]
    scenarios: Vec<String>,
    /// The form that runs with the tests
    #[arg(long)]
    short: bool,
    /// Folder of the figures
    #[arg(long, default_value = "target/chaos", value_name = "DIR")]
    out: PathBuf,
}

#[tokio::main]
async fn main() -> io::Result<ExitCode> {
    let arguments = Arguments::parse();
    let scale = if arguments.short { Scale::Short } else { Scale::Long };
    let mut problems = 0;
    for (name, scenario) in ALL {
        if !arguments.scenarios.is_empty() && !arguments.scenarios.iter().any(|one| one == name) {
            continue;
        }
        println!("== {name}");
        let report = scenario(scale).await;
        problems += report.problems.len();
        show(&report);
        fs::create_dir_all(&arguments.out)?;
        let told = json!({
            "scenario": name, "skipped": report.skipped, "problems": report.problems,
            "figures": report.figures,
        });
        fs::write(arguments.out.join(format!("{name}.json")), format!("{told:#}\n"))?;
    }
    Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(report: &Report) {
    if let Some(why) = report.skipped {
        println!("SKIPPED: {why}");
    }
    report.lines.iter().for_each(|line| println!("{line}"));
    report.problems.iter().for_each(|what| println!("MUST NOT BE: {what}"));
    println!();
}
