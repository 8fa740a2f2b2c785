//! Search quality on judged collections, printed and held above a floor.
//!
//! The collections are not part of the repository: where they are absent the
//! tests say so and end.
#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use retrieval::index::Index;
use retrieval::model::{Document, Format};
use retrieval::{prepare, words};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;

fn folder(name: &str) -> Option<PathBuf> {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let found = manifest.ancestors().map(|above| above.join("shared/data").join(name));
    let found = found.into_iter().find(|path| path.is_dir());
    if found.is_none() {
        println!("SKIPPED: the judged collection {name} is not here");
    }
    found
}

fn lines(path: PathBuf) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Mean nDCG@10 with gain 1, documents ranked by their best chunk.
fn ndcg(name: &str, every: usize) -> Option<f64> {
    let folder = folder(name)?;
    let mut index = Index::default();
    let mut owner = HashMap::new();
    for document in lines(folder.join("docs.jsonl")) {
        let id = text(&document, "id");
        let document = Document {
            id: id.clone(),
            title: text(&document, "title"),
            text: text(&document, "text"),
            format: Format::Text,
            metadata: String::new(),
            source: String::new(),
        };
        // Two of Cranfield's documents are empty.
        let Ok(prepared) = prepare::prepare(document, "none") else { continue };
        for chunk in &prepared.chunks {
            owner.insert(chunk.id.clone(), id.clone());
        }
        index.put(&id, &prepared.chunks);
    }
    let mut relevant: HashMap<String, HashSet<String>> = HashMap::new();
    for line in fs::read_to_string(folder.join("qrels.tsv")).unwrap().lines().skip(1) {
        let mut fields = line.split('\t').map(str::to_owned);
        let (query, document) = (fields.next().unwrap(), fields.next().unwrap());
        relevant.entry(query).or_default().insert(document);
    }
    let queries = lines(folder.join("queries.jsonl"));
    let (mut sum, mut count) = (0.0, 0.0);
    for query in queries.iter().step_by(every) {
        let Some(relevant) = relevant.get(&text(query, "id")) else { continue };
        let mut ranked: Vec<&String> = Vec::new();
        for (slot, _) in index.keyword(&words::of_query(&text(query, "text")), 100) {
            let document = &owner[index.chunk(slot)];
            if !ranked.contains(&document) {
                ranked.push(document);
            }
        }
        let discount = |rank: usize| 1.0 / f64::from(u32::try_from(rank).unwrap() + 2).log2();
        let got: f64 = (0..)
            .zip(ranked.iter().take(10))
            .filter(|(_, d)| relevant.contains(**d))
            .map(|(rank, _)| discount(rank))
            .sum();
        let ideal: f64 = (0..relevant.len().min(10)).map(discount).sum();
        sum += got / ideal;
        count += 1.0;
    }
    let mean = sum / count;
    println!("{name}: {} chunks, {count} queries, keyword nDCG@10 {mean:.3}", index.len());
    Some(mean)
}

#[test]
fn english_abstracts_are_found_by_their_words() {
    let Some(mean) = ndcg("cranfield", 1) else { return };
    assert!(mean >= 0.49, "{mean}");
}

#[test]
fn chinese_passages_are_found_by_their_characters() {
    let Some(mean) = ndcg("cmrc2018-zh", 10) else { return };
    assert!(mean >= 0.97, "{mean}");
}
