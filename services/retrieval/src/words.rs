//! Text as the terms that keyword search compares, in any language.
//!
//! Chinese, Japanese and Korean are not separated by blanks: there a term is a
//! pair of neighbouring characters. Single characters are stored too, for
//! queries of one character, but never asked for beside pairs.
//!
//! Invariants:
//! - the same words give the same terms in a passage and in a query;
//! - case, English inflection and full-width forms make no difference;
//! - a term has at most `LONGEST` characters.

use rust_stemmers::{Algorithm, Stemmer};
use std::collections::{BTreeMap, HashSet};
use unicode_segmentation::UnicodeSegmentation as _;

const LONGEST: usize = 64;

/// Words that are in every English sentence and tell nothing.
const STOP: [&str; 33] = [
    "a", "an", "and", "are", "as", "at", "be", "by", "can", "do", "does", "for", "from", "has",
    "have", "how", "in", "is", "it", "of", "on", "or", "that", "the", "this", "to", "was", "were",
    "what", "when", "which", "with", "will",
];

/// Terms with how often each occurs, and the length of the passage in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub terms: BTreeMap<String, u32>,
    pub length: u32,
}

/// What is stored of a passage.
pub fn of_passage(text: &str) -> Counted {
    let mut counted = Counted::default();
    walk(text, |term| {
        let (term, counts) = match term {
            Term::Word(term) | Term::Pair(term) | Term::Alone(term) => (term, 1),
            Term::Single(term) => (term, 0),
        };
        counted.length += counts;
        *counted.terms.entry(term).or_default() += 1;
    });
    counted
}

/// What a query asks for: each term once, since a question that repeats itself
/// does not mean it more.
pub fn of_query(text: &str) -> Vec<String> {
    let mut terms = Vec::new();
    let mut seen = HashSet::new();
    walk(text, |term| {
        if let Term::Word(term) | Term::Pair(term) | Term::Alone(term) = term
            && seen.insert(term.clone())
        {
            terms.push(term);
        }
    });
    terms
}

/// The share of letters that are of no Latin script.
pub fn foreign_share(text: &str) -> f64 {
    let (mut all, mut foreign) = (0_u32, 0_u32);
    for letter in text.chars().filter(|c| c.is_alphanumeric()) {
        all += 1;
        foreign += u32::from(letter > '\u{24F}');
    }
    if all == 0 { 0.0 } else { f64::from(foreign) / f64::from(all) }
}

enum Term {
    Word(String),
    /// Two neighbours.
    Pair(String),
    /// One character that has neighbours.
    Single(String),
    /// One character that has none.
    Alone(String),
}

fn walk(text: &str, mut found: impl FnMut(Term)) {
    let stemmer = Stemmer::create(Algorithm::English);
    let mut run: Vec<char> = Vec::new();
    let mut run_end = 0;
    for (at, word) in text.unicode_word_indices() {
        if word.chars().all(is_cjk) {
            if at != run_end {
                pairs(&mut run, &mut found);
            }
            run.extend(word.chars());
            run_end = at + word.len();
            continue;
        }
        pairs(&mut run, &mut found);
        let term = normal(word, &stemmer);
        if !STOP.contains(&term.as_str()) {
            found(Term::Word(term));
        }
    }
    pairs(&mut run, &mut found);
}

fn pairs(run: &mut Vec<char>, found: &mut impl FnMut(Term)) {
    if let [alone] = run.as_slice() {
        found(Term::Alone(alone.to_string()));
    } else {
        for &single in run.iter() {
            found(Term::Single(single.to_string()));
        }
        for pair in run.windows(2) {
            found(Term::Pair(pair.iter().collect()));
        }
    }
    run.clear();
}

fn normal(word: &str, stemmer: &Stemmer) -> String {
    let lower: String =
        word.chars().map(narrow).flat_map(char::to_lowercase).take(LONGEST).collect();
    if lower.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'\'') {
        let word = lower.strip_suffix("'s").unwrap_or(&lower);
        if STOP.contains(&word) { word.to_owned() } else { stemmer.stem(word).into_owned() }
    } else {
        lower
    }
}

/// `Ａ` as `A`: Chinese and Japanese texts mix both.
fn narrow(c: char) -> char {
    match c {
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(u32::from(c) - 0xFEE0).unwrap_or(c),
        other => other,
    }
}

const fn is_cjk(c: char) -> bool {
    matches!(c,
        '\u{2E80}'..='\u{2FDF}'     // radicals
        | '\u{3005}'..='\u{3007}'
        | '\u{3040}'..='\u{30FF}'   // kana
        | '\u{3100}'..='\u{318F}'
        | '\u{31A0}'..='\u{31FF}'
        | '\u{3400}'..='\u{4DBF}'
        | '\u{4E00}'..='\u{9FFF}'
        | '\u{1100}'..='\u{11FF}'   // Hangul
        | '\u{A960}'..='\u{A97F}'
        | '\u{AC00}'..='\u{D7FF}'
        | '\u{F900}'..='\u{FAFF}'
        | '\u{FF66}'..='\u{FFDC}'
        | '\u{20000}'..='\u{3FFFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_terms_in_every_language() {
        for (query, terms) in [
            ("What are the Retries?", vec!["retri"]),
            ("retry retries", vec!["retri"]),
            ("Fly's machines", vec!["fli", "machin"]),
            ("超时重试", vec!["超时", "时重", "重试"]),
            ("茶", vec!["茶"]),
            ("用Rust写", vec!["用", "rust", "写"]),
            ("Ａｐｐ １２", vec!["app", "12"]),
            ("ラーメンを食べる", vec!["ラー", "ーメ", "メン", "ンを", "を食", "食べ", "べる"]),
            ("한국어 검색", vec!["한국", "국어", "검색"]),
            ("größe café", vec!["größe", "café"]),
            ("привет мир", vec!["привет", "мир"]),
            ("!?", vec![]),
        ] {
            assert_eq!(of_query(query), terms, "{query}");
        }
    }

    #[test]
    fn a_passage_answers_queries_of_one_character() {
        let passage = of_passage("喝茶");
        assert_eq!(passage.terms.keys().collect::<Vec<_>>(), ["喝", "喝茶", "茶"]);
        assert_eq!(passage.length, 1);
    }

    #[test]
    fn a_term_is_never_long() {
        let terms = of_query(&"x".repeat(100_000));
        assert!(terms.iter().all(|term| term.chars().count() <= LONGEST));
    }

    #[test]
    fn the_script_of_a_query_is_seen() {
        assert!(foreign_share("如何重试 Rust 调用？") > 0.5);
        assert!(foreign_share("how to say 茶 in Zürich") < 0.1);
        assert!(foreign_share("?!").abs() < f64::EPSILON);
    }
}
