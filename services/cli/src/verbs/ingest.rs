//! `skein ingest`: files, folders and JSONL into a collection.
//!
//! Invariants:
//! - A file whose text is stored already is not sent.
//! - One bad document never keeps another from being stored; each is named on
//!   stderr, and the exit code is 1.
//! - What would fail for every document (a wrong key, a mesh that is gone, a
//!   spent budget) ends the command at once.

mod files;
mod records;
mod send;

use crate::{args::Ingest, connect::Gateway, errors::Error, terminal::Terminal};
use files::{Entry, Found};
use futures_util::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use records::Read;
use send::{Outcome, Uploader};
use serde_json::json;
use std::collections::HashSet;

/// Documents on their way at the same time.
const CONCURRENCY: usize = 4;
/// Documents between two lines of progress where there is no terminal.
const LINE_EVERY: u64 = 100;

#[derive(Default)]
struct Summary {
    new: u64,
    changed: u64,
    unchanged: u64,
    failed: Vec<(String, String)>,
}

pub(crate) async fn run(
    gateway: &Gateway,
    wanted: &Ingest,
    json: bool,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let Found { entries, failed } = files::find(&wanted.paths);
    let mut summary = Summary::default();
    for (name, why) in failed {
        summary.fail(terminal, name, why);
    }
    if entries.is_empty() && summary.failed.is_empty() {
        return Err(Error::failed(format!(
            "nothing to ingest: no {} file in {}",
            files::KINDS.join(" "),
            wanted
                .paths
                .iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
                .join(" ")
        )));
    }
    let prefix = wanted.prefix.as_deref().map(|prefix| prefix.trim_end_matches('/'));
    let uploader =
        Uploader::open(gateway, &wanted.collection, &common_prefix(&entries, prefix)).await?;
    let outcome = upload(&uploader, entries, prefix, &mut summary, terminal).await;
    summary.print(&wanted.collection, json, terminal)?;
    outcome?;
    match summary.failed.len() {
        0 => Ok(()),
        1 => Err(Error::failed("1 document failed")),
        many => Err(Error::failed(format!("{many} documents failed"))),
    }
}

async fn upload(
    uploader: &Uploader<'_>,
    entries: Vec<Entry>,
    prefix: Option<&str>,
    summary: &mut Summary,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let mut progress = Progress::new(entries.iter().map(Entry::documents).sum(), terminal);
    let mut ids = HashSet::new();
    let documents = entries.iter().flat_map(Entry::read).map(|read| read.prefixed(prefix)).map(
        |read| match read {
            Read::Document(document, _) if !ids.insert(document.id.clone()) => {
                let why = "another document of this call has the same id; use --prefix".to_owned();
                Read::Unusable(document.id, why)
            }
            read => read,
        },
    );
    let mut sent = stream::iter(documents)
        .map(|read| async {
            match read {
                Read::Document(document, skip) => uploader.put(document, skip).await,
                Read::Unusable(name, why) => Ok((name, Outcome::Failed(why))),
            }
        })
        .buffer_unordered(CONCURRENCY);
    while let Some(outcome) = sent.next().await {
        match outcome? {
            (_, Outcome::New) => summary.new += 1,
            (_, Outcome::Changed) => summary.changed += 1,
            (_, Outcome::Unchanged) => summary.unchanged += 1,
            (name, Outcome::Failed(why)) => {
                progress.bar.suspend(|| summary.fail(terminal, name, why));
            }
        }
        progress.step(terminal);
    }
    Ok(())
}

/// What every id begins with: the part of the collection worth asking about.
fn common_prefix(entries: &[Entry], prefix: Option<&str>) -> String {
    let start = prefix.map(|prefix| format!("{prefix}/")).unwrap_or_default();
    let mut ids = entries.iter().map(Entry::id);
    let Some(Some(first)) = ids.next() else { return start };
    let mut common = first;
    for id in ids {
        let Some(id) = id else { return start };
        let shared = common.char_indices().zip(id.chars()).find(|((_, a), b)| a != b);
        let end = shared.map_or_else(|| common.len().min(id.len()), |((at, _), _)| at);
        common = &common[..end];
    }
    start + common
}

impl Summary {
    fn fail(&mut self, terminal: &mut Terminal, name: String, why: String) {
        terminal.note(&format!("failed: {name}: {why}"));
        self.failed.push((name, why));
    }

    fn print(&self, collection: &str, json: bool, terminal: &mut Terminal) -> Result<(), Error> {
        let Self { new, changed, unchanged, failed } = self;
        if json {
            let failures: Vec<_> = failed
                .iter()
                .map(|(name, why)| json!({ "document": name, "error": why }))
                .collect();
            return terminal.json(
                &json!({
                    "collection": collection, "new": new, "changed": changed,
                    "unchanged": unchanged, "failed": failed.len(), "failures": failures,
                }),
                true,
            );
        }
        terminal.line(&format!(
            "{new} new, {changed} changed, {unchanged} unchanged, {} failed",
            failed.len()
        ))
    }
}

/// A bar on a terminal, a line now and then elsewhere.
struct Progress {
    bar: ProgressBar,
    done: u64,
    total: u64,
}

impl Progress {
    fn new(total: u64, terminal: &Terminal) -> Self {
        let bar =
            if terminal.err_is_terminal { ProgressBar::new(total) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} documents, {eta} left");
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, done: 0, total }
    }

    fn step(&mut self, terminal: &mut Terminal) {
        self.done += 1;
        self.bar.inc(1);
        if !terminal.err_is_terminal && self.done.is_multiple_of(LINE_EVERY) {
            terminal.note(&format!("{} of {} documents", self.done, self.total));
        }
        if self.done == self.total {
            self.bar.finish_and_clear();
        }
    }
}
