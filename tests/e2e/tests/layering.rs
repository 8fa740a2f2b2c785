//! The folders are the architecture: `proto ← mesh ← each service ← tests`.

#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

use serde_json::Value;
use std::{collections::BTreeMap, process::Command};

const SERVICES: [&str; 5] = ["gateway", "router", "model-proxy", "retrieval", "skein-cli"];

/// Our own crates, each with those of ours it needs outside of tests.
fn own_dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(e2e::workspace())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let names: Vec<_> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    let of = |package: &Value| {
        let shipped = |dependency: &&Value| dependency["kind"] != "dev";
        let needed = package["dependencies"].as_array().unwrap().iter().filter(shipped);
        let needed = needed.filter_map(|dependency| dependency["name"].as_str());
        needed.filter(|name| names.contains(name)).map(str::to_owned).collect()
    };
    packages.iter().map(|p| (p["name"].as_str().unwrap().to_owned(), of(p))).collect()
}

#[test]
fn services_meet_only_in_the_contract_and_the_mesh() {
    let all = own_dependencies();
    for service in SERVICES {
        let needed = &all[service];
        let allowed = |name: &String| ["skein-proto", "mesh"].contains(&name.as_str());
        assert!(needed.iter().all(allowed), "{service} depends on {needed:?}");
    }
    assert_eq!(all["mesh"], ["skein-proto"]);
    assert_eq!(all["skein-proto"], Vec::<String>::new());
}
