//! One collection in memory: inverted lists and vectors.
//!
//! The store holds the truth; this is what answers fast. A replaced document's
//! chunks are marked dead and new ones appended, so that writing costs nothing
//! that grows with the collection.
//!
//! Invariants:
//! - what is dead is in no answer and in no statistic;
//! - both searches are exact: no match that is better is left out;
//! - equal scores keep the order in which chunks were added.

use crate::{bm25, model::NewChunk, words::Counted};
use std::collections::HashMap;

#[derive(Debug, Default)]
pub struct Index {
    slots: Vec<Slot>,
    documents: HashMap<Box<str>, Vec<u32>>,
    postings: HashMap<Box<str>, Vec<Posting>>,
    live: usize,
    embedded: usize,
    /// Of the live chunks, in terms.
    length: u64,
    dimensions: usize,
    /// One after the other, zeros where there is none.
    vectors: Vec<f32>,
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    chunk: Box<str>,
    length: u32,
    live: bool,
    embedded: bool,
}

#[derive(Clone, Copy, Debug)]
struct Posting {
    slot: u32,
    count: u32,
}

/// A match: the chunk's number here, and how well it matches.
pub type Match = (u32, f32);

impl Index {
    /// Replaces a document's chunks.
    pub fn put(&mut self, document: &str, chunks: &[NewChunk]) {
        self.remove(document);
        for chunk in chunks {
            self.add(document, &chunk.id, &chunk.terms, chunk.vector.as_deref());
        }
    }

    pub fn add(&mut self, document: &str, chunk: &str, terms: &Counted, vector: Option<&[f32]>) {
        let Ok(slot) = u32::try_from(self.slots.len()) else { return };
        for (term, &count) in &terms.terms {
            let posting = Posting { slot, count };
            if let Some(list) = self.postings.get_mut(term.as_str()) {
                list.push(posting);
            } else {
                self.postings.insert(term.as_str().into(), vec![posting]);
                self.bytes += term.len() + 64;
            }
        }
        self.bytes += terms.terms.len() * size_of::<Posting>() + chunk.len() + 64;
        self.slots.push(Slot {
            chunk: chunk.into(),
            length: terms.length,
            live: true,
            embedded: false,
        });
        self.live += 1;
        self.length += u64::from(terms.length);
        self.vectors.resize(self.slots.len() * self.dimensions, 0.0);
        if let Some(list) = self.documents.get_mut(document) {
            list.push(slot);
        } else {
            self.documents.insert(document.into(), vec![slot]);
        }
        if let Some(vector) = vector {
            self.set_vector(slot, vector);
        }
    }

    pub fn remove(&mut self, document: &str) {
        for slot in self.documents.remove(document).unwrap_or_default() {
            let slot = &mut self.slots[slot as usize];
            slot.live = false;
            self.live -= 1;
            self.embedded -= usize::from(slot.embedded);
            self.length -= u64::from(slot.length);
        }
    }

    /// Adds the vector of a chunk of `document`, if it is still there.
    pub fn embed(&mut self, document: &str, chunk: &str, vector: &[f32]) {
        let slots = self.documents.get(document).map_or(&[][..], Vec::as_slice);
        let found = slots.iter().find(|&&slot| &*self.slots[slot as usize].chunk == chunk);
        if let Some(&slot) = found {
            self.set_vector(slot, vector);
        }
    }

    fn set_vector(&mut self, slot: u32, vector: &[f32]) {
        if self.dimensions == 0 {
            self.dimensions = vector.len();
            self.vectors.resize(self.slots.len() * self.dimensions, 0.0);
        }
        let start = slot as usize * self.dimensions;
        let Some(place) = self.vectors.get_mut(start..start + self.dimensions) else { return };
        if place.len() == vector.len() {
            place.copy_from_slice(vector);
            let slot = &mut self.slots[slot as usize];
            self.embedded += usize::from(!slot.embedded);
            slot.embedded = true;
        }
    }

    /// The best `n` chunks that hold any of the terms.
    pub fn keyword(&self, terms: &[String], n: usize) -> Vec<Match> {
        let mut scores = vec![0.0_f32; self.slots.len()];
        let mut touched = Vec::new();
        #[expect(clippy::cast_precision_loss, reason = "a mean")]
        let mean = self.length as f32 / self.live.max(1) as f32;
        for term in terms {
            let Some(list) = self.postings.get(term.as_str()) else { continue };
            let live = || list.iter().filter(|posting| self.slots[posting.slot as usize].live);
            let rarity = bm25::rarity(self.live, live().count());
            for posting in live() {
                let slot = posting.slot as usize;
                if scores[slot] == 0.0 {
                    touched.push(posting.slot);
                }
                scores[slot] += bm25::score(rarity, posting.count, self.slots[slot].length, mean);
            }
        }
        best(touched.into_iter().map(|slot| (slot, scores[slot as usize])).collect(), n)
    }

    /// The `n` chunks whose vectors point most nearly where `query` does.
    pub fn dense(&self, query: &[f32], n: usize) -> Vec<Match> {
        if self.dimensions == 0 || query.len() != self.dimensions {
            return Vec::new();
        }
        let vectors = self.vectors.chunks_exact(self.dimensions);
        let slots = (0_u32..).zip(&self.slots).zip(vectors);
        let scored = slots
            .filter(|((_, slot), _)| slot.live && slot.embedded)
            .map(|((at, _), vector)| (at, dot(query, vector)));
        best(scored.collect(), n)
    }

    pub fn chunk(&self, slot: u32) -> &str {
        self.slots.get(slot as usize).map_or("", |slot| &slot.chunk)
    }

    pub const fn len(&self) -> usize {
        self.live
    }

    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }

    pub const fn embedded(&self) -> usize {
        self.embedded
    }

    /// Whether so much is dead that loading it anew is better.
    pub const fn is_worn(&self) -> bool {
        self.slots.len() > 2 * self.live + 1024
    }

    /// Memory in use, about.
    pub const fn bytes(&self) -> usize {
        self.bytes + self.vectors.len() * size_of::<f32>()
    }
}

fn best(mut matches: Vec<Match>, n: usize) -> Vec<Match> {
    let order = |a: &Match, b: &Match| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0));
    if n == 0 {
        return Vec::new();
    }
    if matches.len() > n {
        matches.select_nth_unstable_by(n - 1, order);
        matches.truncate(n);
    }
    matches.sort_unstable_by(order);
    matches
}

/// Eight sums side by side: what the compiler turns into vector instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (left, right) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = left.remainder().iter().zip(right.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in left.zip(right) {
        for lane in 0..8 {
            sums[lane] = x[lane].mul_add(y[lane], sums[lane]);
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words;

    fn add(index: &mut Index, document: &str, text: &str, vector: Option<&[f32]>) {
        index.add(document, &format!("{document}-1"), &words::of_passage(text), vector);
    }

    fn found(index: &Index, query: &str) -> Vec<String> {
        let matches = index.keyword(&words::of_query(query), 10);
        matches.iter().map(|&(slot, _)| index.chunk(slot).to_owned()).collect()
    }

    #[test]
    fn any_term_matches_and_the_rarer_decides() {
        let mut index = Index::default();
        add(&mut index, "a", "common words about wings", None);
        add(&mut index, "b", "common words about propellers", None);
        add(&mut index, "c", "common words about wings and propellers", None);
        assert_eq!(found(&index, "propellers of common wings")[0], "c-1");
        assert_eq!(found(&index, "propellers").len(), 2);
        assert_eq!(found(&index, "nothing of the kind"), Vec::<String>::new());
    }

    #[test]
    fn what_is_removed_is_gone_from_answers_and_statistics() {
        let mut index = Index::default();
        add(&mut index, "a", "wing", Some(&[1.0, 0.0]));
        add(&mut index, "b", "wing", Some(&[0.0, 1.0]));
        let before = index.keyword(&["wing".to_owned()], 10)[0].1;
        add(&mut index, "x", "wing wing propeller", Some(&[0.6, 0.8]));
        index.remove("x");
        assert_eq!((index.len(), index.embedded()), (2, 2));
        assert_eq!(index.dense(&[0.6, 0.8], 10).len(), 2);
        let after = index.keyword(&["wing".to_owned()], 10);
        assert_eq!((after.len(), after[0].1), (2, before));
    }

    #[test]
    fn the_nearest_vectors_come_first_and_missing_ones_never() {
        let mut index = Index::default();
        add(&mut index, "none", "x", None);
        add(&mut index, "up", "x", Some(&[0.0, 1.0]));
        add(&mut index, "right", "x", Some(&[1.0, 0.0]));
        index.embed("none", "gone", &[1.0, 0.0]);
        let near = index.dense(&[0.8, 0.6], 10);
        assert_eq!(
            near.iter().map(|&(slot, _)| index.chunk(slot)).collect::<Vec<_>>(),
            ["right-1", "up-1"]
        );
        index.embed("none", "none-1", &[0.8, 0.6]);
        assert_eq!(index.chunk(index.dense(&[0.8, 0.6], 1)[0].0), "none-1");
        assert_eq!(index.dense(&[1.0], 10), []);
    }

    #[test]
    fn a_dot_product_of_any_length_is_whole() {
        for length in [1, 7, 8, 9, 384] {
            let ones = vec![1.0; length];
            assert!((dot(&ones, &ones) - length as f32).abs() < 1e-3);
        }
    }
}
