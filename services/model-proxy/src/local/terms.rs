//! Text to the terms that two texts can have in common.
//!
//! Invariants:
//! - English words are lower-cased and stemmed, Chinese is cut into pairs of
//!   characters; words that every question has are left out.
//! - Identifiers match whole and in their parts: `max_tokens` is also `max`.

use super::sentences::is_cjk;
use rust_stemmers::{Algorithm, Stemmer};
use unicode_segmentation::UnicodeSegmentation as _;

const STOP_WORDS: &str = " a an and any are as at be been but by can could did do does for from had \
has have how i if in into is it its may me my of on or our shall should so than that the their them \
then there these they this those to tell us was we were what when where which who whom whose why will \
with would you your please about explain describe ";

/// Pairs and single characters that ask, and say nothing of what is asked.
const STOP_CHARACTERS: &str = "的了是在和与或吗呢吧啊有为以及于之其这那哪些什么怎样如何请问谁几多少個个能给我你他她它们么介绍说下该此";

pub struct Terms {
    stemmer: Stemmer,
}

impl Default for Terms {
    fn default() -> Self {
        Self { stemmer: Stemmer::create(Algorithm::English) }
    }
}

impl Terms {
    /// In the order of the text, with repetitions.
    pub fn of(&self, text: &str) -> Vec<String> {
        let mut terms = Vec::new();
        let mut run = Vec::new();
        for word in text.unicode_words() {
            if word.chars().all(is_cjk) {
                run.extend(word.chars());
                continue;
            }
            pairs(&mut run, &mut terms);
            self.word(word, &mut terms);
        }
        pairs(&mut run, &mut terms);
        terms
    }

    fn word(&self, word: &str, terms: &mut Vec<String>) {
        let word = word.to_lowercase();
        let parts: Vec<_> =
            word.split(['_', '.', '\'', ':']).filter(|part| !part.is_empty()).collect();
        if parts.len() > 1 && !word.contains('\'') {
            terms.push(word.clone());
        }
        for part in parts {
            let stop = STOP_WORDS.contains(&format!(" {part} "));
            if !stop && (part.len() > 1 || part.bytes().all(|byte| byte.is_ascii_digit())) {
                terms.push(self.stemmer.stem(part).into_owned());
            }
        }
    }
}

/// Neighbours in pairs; a lone character stands for itself.
fn pairs(run: &mut Vec<char>, terms: &mut Vec<String>) {
    let asks = |character: &char| STOP_CHARACTERS.contains(*character);
    if let [one] = run.as_slice() {
        terms.extend((!asks(one)).then(|| one.to_string()));
    }
    for pair in run.windows(2) {
        if !pair.iter().all(asks) {
            terms.push(pair.iter().collect());
        }
    }
    run.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_stemmed_and_identifiers_match_in_parts() {
        let terms = Terms::default();
        assert_eq!(terms.of("What are the listening ports?"), terms.of("listen port"));
        assert_eq!(terms.of("max_tokens"), ["max_tokens", "max", "token"]);
        assert_eq!(terms.of("0.14"), ["0.14", "0", "14"]);
    }

    #[test]
    fn chinese_is_cut_into_pairs_that_say_something() {
        let terms = Terms::default();
        assert_eq!(terms.of("网关端口"), ["网关", "关端", "端口"]);
        assert_eq!(terms.of("什么"), Vec::<String>::new());
    }
}
