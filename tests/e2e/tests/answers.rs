//! Questions to real documents, answered with citations that hold.

#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

use e2e::{Mesh, workspace};
use serde_json::Value;
use std::fs;

fn path(of: &str) -> String {
    workspace().join(of).display().to_string()
}

/// Asks, checks every citation against the source, gives the quoted text.
fn ask(mesh: &Mesh, question: &str, source: impl Fn(&str) -> Vec<u8>) -> String {
    let answer = mesh.skein_json(&["ask", "--json", question]);
    let citations = answer["citations"].as_array().unwrap();
    for citation in citations {
        let bytes = source(citation["document_id"].as_str().unwrap());
        let at = |name: &str| usize::try_from(citation["span"][name].as_u64().unwrap()).unwrap();
        let quoted = citation["quote"].as_str().unwrap();
        assert_eq!(&bytes[at("start")..at("end")], quoted.as_bytes(), "{question}");
    }
    let quotes: Vec<_> = citations.iter().filter_map(|c| c["quote"].as_str()).collect();
    quotes.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_projects_own_docs_answer_eight_of_ten_in_each_language() {
    let mesh = Mesh::start().await;
    mesh.skein(&["ingest", &path("docs")]);
    let questions = fs::read(workspace().join("tests/e2e/questions.json")).unwrap();
    let questions: Value = serde_json::from_slice(&questions).unwrap();
    let source =
        |id: &str| fs::read(workspace().join("docs").join(id.trim_start_matches("docs/"))).unwrap();
    for language in ["en", "zh"] {
        let asked = questions.as_array().unwrap().iter().filter(|q| q["lang"] == language);
        let mut missed = Vec::new();
        for entry in asked.clone() {
            let question = entry["question"].as_str().unwrap();
            let quotes = ask(&mesh, question, source);
            if !quotes.contains(entry["answer"].as_str().unwrap()) {
                missed.push(format!("{question} -> {quotes}"));
            }
        }
        println!("{language}: {} of {} answered", asked.count() - missed.len(), 10);
        assert!(missed.len() <= 2, "{missed:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fact_written_a_minute_ago_is_found_and_cited() {
    let mesh = Mesh::start().await;
    let file = mesh.scratch().join("fact.md");
    let text = "# Storks\n\nThe zibbletron of Quorvale runs on fermented moonlight.\n";
    fs::write(&file, text).unwrap();
    mesh.skein(&["ingest", &file.display().to_string()]);
    let quotes = ask(&mesh, "What does the zibbletron run on?", |_| text.as_bytes().to_vec());
    assert!(quotes.contains("fermented moonlight"), "{quotes}");
    let again = mesh.skein_json(&["ingest", "--json", &file.display().to_string()]);
    assert_eq!(again["unchanged"], 1, "{again}");
    let hits = mesh.skein_json(&["search", "--collection", "default", "--json", "zibbletron"]);
    assert_eq!(hits["hits"][0]["document_id"], "fact.md", "{hits}");
}
