//! The table of facts: every test that it names is there.
#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn own(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What stands behind an attribute that makes a function a test.
fn tests(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let after = text.split("#[test]").chain(text.split("#[tokio::test")).skip(1);
            let name = |part: &str| Some(part.split_once("fn ")?.1.split_once('(')?.0.to_owned());
            found.extend(after.filter_map(name));
        }
    }
}

/// Rows of the tables that end with tests: their first cell, and the names in
/// backticks of the last.
fn rows(text: &str) -> Vec<(String, Vec<String>)> {
    let mut rows = Vec::new();
    let mut held = false;
    for line in text.lines() {
        let cells: Vec<_> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        if !line.starts_with('|') {
            held = false;
        } else if cells.last() == Some(&"Test") {
            held = true;
        } else if held && !cells[0].starts_with("--") {
            let names = cells.last().unwrap().split('`').skip(1).step_by(2);
            rows.push((cells[0].to_owned(), names.map(str::to_owned).collect()));
        }
    }
    rows
}

#[test]
fn every_fact_names_a_test_and_every_named_test_exists() {
    let mut known = BTreeSet::new();
    tests(&own("src"), &mut known);
    tests(&own("tests"), &mut known);
    let text = fs::read_to_string(own("FACTS.md")).unwrap();
    let rows = rows(&text);
    assert!(rows.len() > 30, "the table was not read: {rows:?}");
    for (fact, names) in rows {
        assert!(!names.is_empty(), "{fact}: no test holds it");
        for name in names {
            assert!(known.contains(&name), "{fact}: there is no test {name}");
        }
    }
}
