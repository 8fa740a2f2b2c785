//! Answers made only of the passages' own sentences, quoted byte for byte.
//!
//! Invariants:
//! - Every quote is a range of its passage; with the passage's span known, the
//!   citation's span holds exactly the quoted bytes of the document.
//! - No word of the answer is invented: without a match it says so plainly.
//!
//! A sentence scores by the rare words it shares with the question; words of
//! its heading, title and predecessor count less. Similarity of meaning is
//! added by the embedding model when that is at hand.

use super::{
    sentences::{self, Kind, is_cjk},
    terms::Terms,
};
use crate::{estimate, provider::Event};
use skein_proto::model::v1::{
    Choice, Citation, Delta, FinishReason, Finished, GenerateRequest, Passage, Role, Span, Usage,
    content_part::Part, delta::Piece,
};
use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::Arc,
};

/// What a word of the heading, the title or the sentence before is worth.
const CONTEXT: f64 = 0.4;
/// How much closeness of meaning may add to a full match of words.
const SIMILARITY: f64 = 0.6;
/// A best sentence below both of these does not answer.
const ENOUGH_WORDS: f64 = 0.2;
const ENOUGH_SIMILARITY: f32 = 0.5;
/// How near the best a further sentence has to come, and how many there may be.
const NEAR_BEST: f64 = 0.4;
/// What a word of the question loses when a quote before had it.
const AGAIN: f64 = 0.6;
const MOST: usize = 3;
/// Characters of a question's beginning and of its end that count.
const ASKED: usize = 2_000;
/// Sentences whose meaning is compared: a tenth of a second of computing.
const SHORTLIST: usize = 12;
const SHORTLIST_TOKENS: i64 = 240;
/// Tokens of one of them; far enough below what the model takes.
const LONGEST: i64 = 96;

pub struct Search {
    request: Arc<GenerateRequest>,
    question: String,
    /// Of the question's words.
    weights: Vec<f64>,
    candidates: Vec<Candidate>,
}

struct Candidate {
    passage: usize,
    range: Range<usize>,
    /// Words of the question that are in it.
    hits: Vec<usize>,
    /// What its words and those around it weigh; nothing without one of its own.
    fit: f64,
    score: f64,
    similarity: f32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    pub passage: usize,
    pub range: Range<usize>,
}

impl Search {
    /// Takes time in proportion to the passages: not for a thread that serves.
    pub fn new(request: Arc<GenerateRequest>) -> Self {
        let terms = Terms::default();
        let question = question(&request, &terms);
        let units: Vec<Unit> = request
            .passages
            .iter()
            .enumerate()
            .flat_map(|(at, passage)| units(at, passage, &terms))
            .collect();
        let weights = weights(&terms.of(&question), &units);
        let mut candidates: Vec<_> =
            units.iter().map(|unit| unit.candidate(&weights, &question)).collect();
        candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
        let weights = weights.into_iter().map(|(_, weight)| weight).collect();
        Self { request, question, weights, candidates }
    }

    /// The question, and the sentences whose meaning is worth comparing with
    /// their places; none for Chinese, which the embedded model does not know.
    pub fn shortlist(&self) -> Option<(&str, Vec<(usize, &str)>)> {
        let mut room = SHORTLIST_TOKENS;
        let texts: Vec<_> = self
            .candidates
            .iter()
            .enumerate()
            .map(|(at, candidate)| (at, self.text(candidate)))
            .filter(|(_, text)| {
                let tokens = estimate::text(text);
                let fits = tokens <= LONGEST && tokens <= room;
                room -= if fits { tokens } else { 0 };
                fits
            })
            .take(SHORTLIST)
            .collect();
        let ask = !texts.is_empty()
            && !chinese(&self.question)
            && estimate::text(&self.question) <= LONGEST;
        ask.then_some((self.question.as_str(), texts))
    }

    /// The quotes, best first; `similarity` belongs to places of the shortlist.
    pub fn choose(mut self, similarity: &[(usize, f32)]) -> Vec<Quote> {
        for (at, similarity) in similarity {
            if let Some(candidate) = self.candidates.get_mut(*at) {
                candidate.similarity = *similarity;
                candidate.score += SIMILARITY * f64::from(similarity.max(0.0));
            }
        }
        let mut quotes: Vec<Quote> = Vec::new();
        let mut said = vec![false; self.weights.len()];
        let mut best = 0.0;
        while quotes.len() < MOST {
            let gain = |candidate: &Candidate| self.gain(candidate, &said);
            let next = self.candidates.iter().enumerate().map(|(at, c)| (at, gain(c)));
            let Some((at, gain)) = next.max_by(|a, b| a.1.total_cmp(&b.1)) else { break };
            if gain < best * NEAR_BEST {
                break;
            }
            let candidate = self.candidates.swap_remove(at);
            let answers =
                candidate.fit >= ENOUGH_WORDS || candidate.similarity >= ENOUGH_SIMILARITY;
            if !answers || quotes.iter().any(|quote| self.same(quote, &candidate)) {
                continue;
            }
            best = f64::max(best, gain);
            candidate.hits.iter().for_each(|hit| said[*hit] = true);
            quotes.push(Quote { passage: candidate.passage, range: candidate.range });
        }
        quotes
    }

    /// What a sentence adds: words that were quoted already count for little.
    fn gain(&self, candidate: &Candidate, said: &[bool]) -> f64 {
        let again: f64 =
            candidate.hits.iter().filter(|hit| said[**hit]).map(|hit| self.weights[*hit]).sum();
        candidate.score - AGAIN * again
    }

    /// Chunks overlap, so one sentence may come twice.
    fn same(&self, quote: &Quote, candidate: &Candidate) -> bool {
        self.request.passages[quote.passage].text[quote.range.clone()] == *self.text(candidate)
    }

    fn text(&self, candidate: &Candidate) -> &str {
        &self.request.passages[candidate.passage].text[candidate.range.clone()]
    }
}

/// One sentence with its terms and those of what stands around it.
struct Unit {
    passage: usize,
    range: Range<usize>,
    kind: Kind,
    asks: bool,
    digits: bool,
    terms: Vec<String>,
    around: HashSet<String>,
}

fn units(at: usize, passage: &Passage, terms: &Terms) -> Vec<Unit> {
    let mut title: HashSet<String> = terms.of(&passage.title).into_iter().collect();
    let (mut heading, mut header): (HashSet<String>, HashSet<String>) = Default::default();
    let mut before: (usize, HashSet<String>) = Default::default();
    let mut out: Vec<Unit> = Vec::new();
    for sentence in sentences::split(&passage.text) {
        let text = &passage.text[sentence.range.clone()];
        let own = terms.of(text);
        let mut around: HashSet<String> = title.union(&heading).cloned().collect();
        // A paragraph's sentences lean on each other, an item on its lead-in.
        if before.0 == sentence.block || matches!(sentence.kind, Kind::Item | Kind::Code) {
            around.extend(before.1.iter().cloned());
        }
        match sentence.kind {
            Kind::Heading => heading = own.iter().cloned().collect(),
            Kind::Row if out.last().is_none_or(|last| last.kind != Kind::Row) => {
                header = own.iter().cloned().collect();
            }
            Kind::Row => around.extend(header.iter().cloned()),
            Kind::Prose | Kind::Item | Kind::Code => {}
        }
        // What a passage begins with is what it is about.
        if out.is_empty() {
            title.extend(own.iter().cloned());
        }
        // A list keeps its lead-in for all of its items.
        if sentence.kind != Kind::Item || before.1.is_empty() {
            before = (sentence.block, own.iter().cloned().collect());
        }
        out.push(Unit {
            passage: at,
            kind: sentence.kind,
            asks: text.ends_with(['?', '？']),
            digits: text.chars().any(char::is_numeric),
            range: sentence.range,
            terms: own,
            around,
        });
    }
    out
}

/// Each word of the question with its rarity among the sentences, summing to 1.
fn weights(question: &[String], units: &[Unit]) -> Vec<(String, f64)> {
    let mut frequency: HashMap<&str, u32> = HashMap::new();
    for unit in units {
        for term in unit.terms.iter().collect::<HashSet<_>>() {
            *frequency.entry(term).or_default() += 1;
        }
    }
    let total = f64::from(u32::try_from(units.len()).unwrap_or(u32::MAX));
    let mut seen = HashSet::new();
    let mut weights: Vec<(String, f64)> = question
        .iter()
        .filter(|term| seen.insert(term.as_str()))
        .map(|term| {
            let count = f64::from(frequency.get(term.as_str()).copied().unwrap_or_default());
            let rarity = (1.0 + (total - count + 0.5) / (count + 0.5)).ln();
            // A word that is nowhere tells sentences apart no more.
            (term.clone(), if count > 0.0 { rarity } else { rarity * 0.2 })
        })
        .collect();
    let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
    weights.iter_mut().for_each(|(_, weight)| *weight /= sum.max(f64::MIN_POSITIVE));
    weights
}

impl Unit {
    fn candidate(&self, weights: &[(String, f64)], question: &str) -> Candidate {
        let (mut words, mut around, mut hits) = (0.0, 0.0, Vec::new());
        for (at, (term, weight)) in weights.iter().enumerate() {
            if self.terms.contains(term) {
                words += weight;
                hits.push(at);
            } else if self.around.contains(term) {
                around += weight;
            }
        }
        let length = f64::from(u32::try_from(self.terms.len()).unwrap_or(u32::MAX));
        let mut score = (words + CONTEXT * around) / (0.9 + 0.1 * (length / 20.0).max(0.5));
        if words > 0.0 && self.digits && asks_for_number(question) {
            score += 0.12;
        }
        score += 0.05 / f64::from(u32::try_from(self.passage + 1).unwrap_or(u32::MAX));
        score *= match self.kind {
            Kind::Heading => 0.35,
            Kind::Code => 0.85,
            Kind::Prose | Kind::Item | Kind::Row => 1.0,
        };
        if self.asks || self.terms.len() < 3 {
            score *= 0.6;
        }
        Candidate {
            passage: self.passage,
            range: self.range.clone(),
            hits,
            fit: if words > 0.0 { words + CONTEXT * around } else { 0.0 },
            score,
            similarity: 0.0,
        }
    }
}

fn asks_for_number(question: &str) -> bool {
    let lower = question.to_lowercase();
    [
        "how many",
        "how long",
        "how much",
        "how often",
        "how large",
        "how big",
        "how old",
        "port",
        "when ",
        "which year",
        "number",
    ]
    .iter()
    .any(|words| lower.contains(words))
        || ["几", "多少", "多久", "多长", "多大", "哪年", "何时", "什么时候", "端口", "时间"]
            .iter()
            .any(|words| lower.contains(words))
}

/// The last user message; one that says almost nothing leans on the one before.
fn question(request: &GenerateRequest, terms: &Terms) -> String {
    let mut asked = request.messages.iter().rev().filter(|message| message.role() == Role::User);
    let text = |message: &skein_proto::model::v1::Message| -> String {
        let texts = message.content.iter().filter_map(|part| match &part.part {
            Some(Part::Text(text)) => Some(text.as_str()),
            _ => None,
        });
        ends(&texts.collect::<Vec<_>>().join("\n"))
    };
    let last = asked.next().map(text).unwrap_or_default();
    if terms.of(&last).len() >= 2 {
        return last;
    }
    match asked.next().map(text) {
        Some(earlier) => format!("{last}\n{earlier}"),
        None => last,
    }
}

/// The beginning and the end of what was asked: somebody who pastes a book asks
/// before it or after it.
fn ends(text: &str) -> String {
    let Some((head, _)) = text.char_indices().nth(ASKED) else { return text.to_owned() };
    let (tail, _) = text.char_indices().nth_back(ASKED).unwrap_or_default();
    if tail <= head {
        return text.to_owned();
    }
    format!("{}\n{}", &text[..head], &text[tail..])
}

fn chinese(text: &str) -> bool {
    text.chars().filter(|character| is_cjk(*character)).count() * 4 > text.chars().count()
}

/// The answer as the events of a call.
pub fn events(request: &GenerateRequest, quotes: &[Quote]) -> Vec<Event> {
    let limit = request.sampling.as_ref().and_then(|sampling| sampling.max_tokens);
    let mut events = Vec::new();
    let (mut output, mut reason) = (0, FinishReason::Stop);
    let plain = quotes.is_empty().then(|| (no_answer(request), None));
    let quoted = quotes.iter().enumerate().map(|(at, quote)| {
        let citation = cite(request, quote);
        let line = if at == 0 { "" } else { "\n" };
        (format!("{line}\"{}\" [{}]", citation.quote, quote.passage + 1), Some(citation))
    });
    for (text, citation) in plain.into_iter().chain(quoted) {
        let tokens = estimate::text(&text);
        // A sentence that does not fit is left out, never cut.
        if limit.is_some_and(|limit| output + tokens > limit) {
            reason = FinishReason::Length;
            break;
        }
        output += tokens;
        let pieces = std::iter::once(Piece::Text(text)).chain(citation.map(Piece::Citation));
        events.extend(
            pieces.map(|piece| Event::Delta(Delta { piece: Some(piece), ..Delta::default() })),
        );
    }
    let usage = Usage {
        input_uncached: estimate::request(request).rough(),
        output,
        estimated: true,
        ..Usage::default()
    };
    let choices = vec![Choice { finish_reason: reason.into(), ..Choice::default() }];
    let extra_json = r#"{"extractive":true}"#.to_owned();
    events.push(Event::Finished(Finished { choices, usage: Some(usage), extra_json }));
    events
}

fn cite(request: &GenerateRequest, quote: &Quote) -> Citation {
    let passage = &request.passages[quote.passage];
    // A span that does not fit its text would point at other bytes.
    let span = passage
        .span
        .filter(|span| span.end.checked_sub(span.start) == Some(passage.text.len() as u64));
    Citation {
        passage: u32::try_from(quote.passage).unwrap_or(u32::MAX),
        collection: passage.collection.clone(),
        document_id: passage.document_id.clone(),
        chunk_id: passage.chunk_id.clone(),
        title: passage.title.clone(),
        span: span.map(|span| Span {
            start: span.start + quote.range.start as u64,
            end: span.start + quote.range.end as u64,
        }),
        quote: passage.text[quote.range.clone()].to_owned(),
    }
}

fn no_answer(request: &GenerateRequest) -> String {
    let chinese = chinese(&question(request, &Terms::default()));
    match (request.passages.len(), chinese) {
        (0, false) => "No passages were given: local/extractive only quotes documents, so there is nothing to answer from.".to_owned(),
        (0, true) => "没有给出任何段落：local/extractive 只引用文档，因此无法回答。".to_owned(),
        (count, false) => format!("None of the {count} passages found answers this."),
        (count, true) => format!("找到的 {count} 个段落都没有回答这个问题。"),
    }
}

#[cfg(test)]
#[path = "extractive_tests.rs"]
mod tests;
