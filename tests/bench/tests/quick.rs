//! The short run: does everything start, answer and get written down?

use std::{path::Path, process::Command};

#[test]
fn the_quick_run_answers_every_call_and_writes_a_whole_report() {
    let bench = Path::new(env!("CARGO_BIN_EXE_bench"));
    let programs = bench.parent().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("overhead.json");
    let mut command = Command::new(bench);
    command.arg("--quick").arg("--bin-dir").arg(programs).arg("--out").arg(&out);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).unwrap();
    let list = |name: &str| report[name].as_array().unwrap().clone();
    for row in list("calls") {
        assert_eq!(row["failed"], 0, "{row}");
        assert!(row["ok"].as_u64().unwrap() > 0, "{row}");
    }
    let measured = |target: &str, kind: &str| {
        list("calls").iter().any(|row| row["target"] == target && row["kind"] == kind)
    };
    for target in ["skein bare", "skein full", "skein bare, TLS"] {
        for kind in ["chat", "chat stream", "grpc Generate"] {
            assert!(measured(target, kind), "{target}: no {kind}");
        }
    }
    assert!(measured("echo x3 threads", "echo") && measured("echo x3 one thread", "echo"));
    assert!(measured("provider", "chat"));
    let peer = measured("tensorzero", "chat");
    assert!(peer || !list("not_measured").is_empty(), "what is missing is named");
    assert_eq!(list("starts").len(), 4);
    for held in list("readers") {
        assert_eq!((&held["lost"], &held["others_failed"]), (&0.into(), &0.into()), "{held}");
    }
    assert_eq!(list("readers").len(), 3);
    for target in ["provider", "skein bare", "skein bare, TLS"] {
        let chunks = list("chunks");
        let mut rows = chunks.iter().filter(|row| row["target"] == target);
        assert!(rows.all(|row| row["chunks"].as_u64().unwrap() > 0), "{target}");
        assert_eq!(chunks.iter().filter(|row| row["target"] == target).count(), 2);
    }
    let soak = &report["soak"];
    assert_eq!((&soak["streams"], &soak["lost"]), (&100.into(), &0.into()), "{soak}");
    assert!(soak["tokens"].as_u64().unwrap() >= 100, "{soak}");
    for (gauge, left) in soak["gauges_after"].as_object().unwrap() {
        let in_flight = gauge.ends_with("in_flight") || gauge.ends_with("streams");
        assert!(!in_flight || left == 0.0, "{gauge} is {left} when all have left");
    }
    assert!(list("memory").len() >= 4 && report["machine"]["cores"].as_u64().unwrap() > 0);
}
