//! Search: by words, by meaning, or by both fused.
//!
//! Invariants:
//! - an arm that cannot take part is named in `degraded`, and the other answers;
//! - `min(top_k, matches)` hits, unless one was deleted meanwhile: then the
//!   answer says it is truncated;
//! - the query and what is found are in no log.

use crate::chunk::LIMIT;
use crate::error::Error;
use crate::fusion::{self, Arm, Fused};
use crate::index::{Index, Match};
use crate::knowledge::Knowledge;
use crate::model::{Head, Passage, Place};
use crate::{tokens, words};
use mesh::call::Call;
use skein_proto::model::v1::Usage;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Keyword,
    Dense,
    Hybrid,
}

/// A search with every rule already checked.
#[derive(Clone, Debug)]
pub struct Search {
    pub query: String,
    pub top_k: usize,
    pub mode: Mode,
    pub min_version: i64,
    /// Instead of the query's own.
    pub vector: Option<Vec<f32>>,
}

#[derive(Debug)]
pub struct Found {
    pub hits: Vec<(Fused<u32>, Passage)>,
    pub version: i64,
    pub truncated: bool,
    pub degraded: String,
    pub plan: String,
    pub usage: Option<Usage>,
    pub embedded_by: String,
}

/// Candidates of each arm: deep enough that fusion sees what both found.
const DEEPER: usize = 4;
const LEAST: usize = 50;

const KEYWORD_WEIGHT: f64 = 1.0;
/// Measured on Cranfield with all-MiniLM-L6-v2: words alone 0.510, meaning alone
/// 0.519, fused 0.556; anything from 0.5 to 1 does as well, on either half of
/// the queries.
const DENSE_WEIGHT: f64 = 0.7;
/// A model that reads English alone has no word pieces for most of another
/// script's characters, so its ranking there says next to nothing: its arm may
/// settle ties but not move what words have found.
const BLIND_WEIGHT: f64 = 0.05;

/// The vector to compare with, where there is one, and how it came about.
#[derive(Default)]
struct Sight {
    vector: Option<Vec<f32>>,
    degraded: String,
    usage: Option<Usage>,
    by: String,
}

impl Knowledge {
    pub async fn search(&self, call: &Call, place: &Place, search: Search) -> Result<Found, Error> {
        let gone = || Error::NoCollection(place.collection.to_string());
        let head = self.store.head(place).await?.ok_or_else(gone)?;
        if search.min_version > head.version {
            return Err(Error::NotYet(head.version));
        }
        let sight = self.sight(call, place, &head, &search).await?;
        let ranked = self.rank(place, &head, &search, sight.vector).await?;
        let Ranked { fused, chunks, version, plan } = ranked;
        let mut passages = self.store.passages(place, &chunks).await?;
        let wanted = fused.len();
        let hits: Vec<_> = fused
            .into_iter()
            .zip(&chunks)
            .filter_map(|(hit, chunk)| Some((hit, passages.remove(chunk)?)))
            .collect();
        Ok(Found {
            truncated: hits.len() < wanted,
            hits,
            version,
            degraded: sight.degraded,
            plan,
            usage: sight.usage,
            embedded_by: sight.by,
        })
    }

    async fn sight(
        &self,
        call: &Call,
        place: &Place,
        head: &Head,
        search: &Search,
    ) -> Result<Sight, Error> {
        if search.mode == Mode::Keyword {
            return Ok(Sight::default());
        }
        if let Some(vector) = &search.vector {
            check(head, vector.len())?;
            return Ok(Sight { vector: Some(vector.clone()), ..Sight::default() });
        }
        match self.embed_query(call, place, head, search).await {
            Ok(sight) => Ok(sight),
            Err(cause) if search.mode == Mode::Hybrid => {
                metrics::counter!("skein_retrieval_degraded_total").increment(1);
                Ok(Sight { degraded: format!("dense: {cause}"), ..Sight::default() })
            }
            Err(cause) => Err(Error::NoEmbedding { model: head.model.clone(), cause }),
        }
    }

    async fn embed_query(
        &self,
        call: &Call,
        place: &Place,
        head: &Head,
        search: &Search,
    ) -> Result<Sight, String> {
        let Some(stored) = &head.vectors else {
            return Err("no chunk has a vector yet".to_owned());
        };
        if search.mode == Mode::Hybrid && self.embedder.is_away() {
            return Err("the embedding model was away a moment ago".to_owned());
        }
        let call = call.with_timeout(self.limits.query_wait);
        // The model's limit holds for queries too; a question that long has said
        // what it is about.
        let query = tokens::head(&search.query, LIMIT - 2);
        let mut done = match self.embedder.query(&call, &head.model, query).await {
            Ok(done) => done,
            Err(error) => {
                tracing::warn!(
                    collection = &*place.collection, model = head.model, %error, "embed a query"
                );
                return Err(error.to_string());
            }
        };
        if done.of != *stored {
            return Err(format!(
                "the collection holds vectors of {stored}, the query's is of {}",
                done.of
            ));
        }
        Ok(Sight {
            vector: done.vectors.pop(),
            degraded: String::new(),
            usage: done.usage,
            by: done.by,
        })
    }

    async fn rank(
        &self,
        place: &Place,
        head: &Head,
        search: &Search,
        vector: Option<Vec<f32>>,
    ) -> Result<Ranked, Error> {
        let weight = dense_weight(&head.model, &search.query);
        let task = Task {
            terms: if search.mode == Mode::Dense {
                Vec::new()
            } else {
                words::of_query(&search.query)
            },
            keyword: search.mode != Mode::Dense,
            vector,
            weight,
            top_k: search.top_k,
        };
        let task = Arc::new(task);
        loop {
            let entry = self.indexes.current(&self.store, place, head).await?;
            let task = Arc::clone(&task);
            let look = move || entry.read(|index| task.run(index));
            // Let go between the two steps: loaded again.
            if let Some((ranked, version)) = tokio::task::spawn_blocking(look).await? {
                return Ok(Ranked { version, ..ranked });
            }
        }
    }
}

struct Ranked {
    fused: Vec<Fused<u32>>,
    chunks: Vec<String>,
    version: i64,
    plan: String,
}

struct Task {
    keyword: bool,
    terms: Vec<String>,
    vector: Option<Vec<f32>>,
    weight: f64,
    top_k: usize,
}

impl Task {
    fn run(&self, index: &Index) -> Ranked {
        let depth = (DEEPER * self.top_k).max(LEAST);
        let mut arms: Vec<Arm<u32>> = Vec::new();
        let mut plan = Vec::new();
        let mut arm = |name, weight, ranked: Vec<Match>, how: &str| {
            plan.push(format!("{name}: {} of {how}, weight {weight}", ranked.len()));
            arms.push(Arm { name, weight, ranked });
        };
        if self.keyword {
            let how = format!("{} chunks by BM25", index.len());
            arm("keyword", KEYWORD_WEIGHT, index.keyword(&self.terms, depth), &how);
        }
        if let Some(vector) = &self.vector {
            let how = format!("{} vectors compared exactly", index.embedded());
            let weight = if self.keyword {
                weight_of_part(self.weight, index.embedded(), index.len())
            } else {
                self.weight
            };
            arm("dense", weight, index.dense(vector, depth), &how);
        }
        let mut fused = fusion::fuse(&arms);
        fused.truncate(self.top_k);
        let chunks = fused.iter().map(|hit| index.chunk(hit.key).to_owned()).collect();
        Ranked { fused, chunks, version: 0, plan: plan.join("; ") }
    }
}

/// Refuses a caller's vector of another length than the stored ones.
fn check(head: &Head, sent: usize) -> Result<(), Error> {
    match &head.vectors {
        Some(stored) if stored.dimensions != sent => Err(Error::invalid(
            "embedding",
            format!("has {sent} dimensions, the collection's vectors are of {stored}"),
        )),
        _ => Ok(()),
    }
}

fn dense_weight(model: &str, query: &str) -> f64 {
    let english_only = model.contains("minilm") && !model.contains("multilingual");
    if english_only && words::foreign_share(query) > 0.5 { BLIND_WEIGHT } else { DENSE_WEIGHT }
}

/// While a collection is still being embedded, the dense arm has seen a part of
/// it: whatever it ranks would beat all that it could not see, so until nine in
/// ten chunks have vectors it settles ties and no more.
fn weight_of_part(weight: f64, embedded: usize, chunks: usize) -> f64 {
    if embedded * 10 < chunks * 9 { weight.min(BLIND_WEIGHT) } else { weight }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arm_that_saw_a_part_does_not_outvote_words() {
        assert_eq!(weight_of_part(DENSE_WEIGHT, 40, 100), BLIND_WEIGHT);
        assert_eq!(weight_of_part(DENSE_WEIGHT, 90, 100), DENSE_WEIGHT);
        assert_eq!(weight_of_part(DENSE_WEIGHT, 0, 0), DENSE_WEIGHT);
        let better = |rank: f64, dense: f64| 1.0 / (60.0 + rank) + dense / 61.0;
        assert!(better(1.0, 0.0) > better(5.0, weight_of_part(DENSE_WEIGHT, 40, 100)));
    }

    #[test]
    fn an_english_model_has_little_say_about_chinese() {
        assert!(dense_weight("local/minilm", "如何重试？") < 0.1);
        assert!(dense_weight("local/minilm", "how to retry?") > 0.5);
        assert!(dense_weight("openai/text-embedding-3-small", "如何重试？") > 0.5);
    }
}
