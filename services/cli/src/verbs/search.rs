//! `skein search`: the passages of a collection that fit best.
//!
//! Invariants:
//! - What a search had to do without is said: on stderr, and in the JSON.

use crate::{
    args::{Mode, Search},
    connect::{Gateway, QUICK},
    errors::Error,
    render,
    retry::{self, OnLimit},
    terminal::Terminal,
};
use serde_json::{Value, json};
use skein_proto::retrieval::v1::{self as wire, Hit, SearchRequest};

pub(crate) async fn run(
    gateway: &Gateway,
    wanted: Search,
    json: bool,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let message = SearchRequest {
        collection: wanted.collection,
        query: wanted.query.join(" "),
        top_k: wanted.top_k,
        mode: match wanted.mode {
            Mode::Keyword => wire::Mode::Keyword,
            Mode::Dense => wire::Mode::Dense,
            Mode::Hybrid => wire::Mode::Hybrid,
        }
        .into(),
        ..SearchRequest::default()
    };
    let answer = retry::idempotent(OnLimit::Fail, async || {
        gateway.retrieval().search(gateway.request(message.clone(), QUICK)).await
    })
    .await
    .map_err(|status| gateway.explain(&format!("search {}", message.collection), &status))?;

    if !answer.degraded.is_empty() {
        terminal.note(&format!("degraded: {}", answer.degraded));
    }
    if json {
        let hits: Vec<_> = answer.hits.iter().map(as_json).collect();
        return terminal
            .json(&json!({ "hits": hits, "degraded": render::present(&answer.degraded) }), true);
    }
    if answer.hits.is_empty() {
        terminal.note(&format!("nothing found in collection {}", message.collection));
    }
    for (rank, hit) in answer.hits.iter().enumerate() {
        print(rank + 1, hit, terminal)?;
    }
    Ok(())
}

fn as_json(hit: &Hit) -> Value {
    let metadata = serde_json::from_str(&hit.metadata_json).unwrap_or_else(|_| json!({}));
    json!({
        "document_id": hit.document_id,
        "chunk_id": hit.chunk_id,
        "score": hit.score,
        "text": hit.text,
        "span": render::span_json(hit.span.as_ref()),
        "title": hit.title,
        "heading": hit.heading,
        "source": hit.source,
        "metadata": metadata,
    })
}

fn print(rank: usize, hit: &Hit, terminal: &mut Terminal) -> Result<(), Error> {
    let name = if hit.title.is_empty() { &hit.document_id } else { &hit.title };
    let heading =
        if hit.heading.is_empty() { String::new() } else { format!(" › {}", hit.heading) };
    terminal.line(&format!("{rank}. {name}{heading}  ({:.4})", hit.score))?;
    let span = render::span(hit.span.as_ref());
    terminal.line(&format!("   {} {span}", hit.document_id))?;
    terminal.line(&format!("   {}\n", render::shorten(&hit.text, 300)))
}
