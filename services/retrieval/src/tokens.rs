//! How many tokens an embedding model will see, counted without its vocabulary.
//!
//! Retrieval does not hold the model, so it counts on the safe side of BERT's
//! word pieces: a chunk that the model refuses as too long is left to keyword
//! search alone. Measured with MiniLM's own tokenizer on Cranfield and CMRC: a
//! chunk meant to stay within 256 has 176 and 213 pieces at most.
//!
//! Invariants:
//! - blank text counts nothing, everything else at least one;
//! - the count of a text is at most that of any text it is part of;
//! - time is linear in the text.

use text_splitter::ChunkSizer;

/// Word pieces that `text` has at most, without the model's two special tokens.
pub fn estimate(text: &str) -> usize {
    let mut total = 0;
    let mut word = Word::default();
    for c in text.chars() {
        if c.is_alphanumeric() && own(c) == 0 {
            word.push(c);
            continue;
        }
        total += word.end();
        if !c.is_whitespace() && !c.is_control() {
            total += own(c).max(1);
        }
    }
    total + word.end()
}

/// What a character costs that no word piece joins to its neighbours; 0 if it
/// may be joined.
const fn own(c: char) -> usize {
    match c {
        // Taken apart into two or three letters before it is looked up.
        '\u{AC00}'..='\u{D7A3}' => 3,
        '\u{2E80}'..='\u{ABFF}' | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}' => 1,
        _ => 0,
    }
}

/// Whether a character costs one token at most, alone or with its neighbours.
pub const fn joins(c: char) -> bool {
    own(c) == 0
}

/// A run of letters and digits.
#[derive(Default)]
struct Word {
    length: usize,
    /// Anything but lower-case ASCII after the first letter: names, numbers,
    /// hashes and other languages break into far more pieces than English does.
    strange: bool,
}

impl Word {
    const fn push(&mut self, c: char) {
        let plain = c.is_ascii_lowercase() || (self.length == 0 && c.is_ascii_uppercase());
        self.strange |= !plain;
        self.length += 1;
    }

    fn end(&mut self) -> usize {
        let Self { length, strange } = std::mem::take(self);
        if length == 0 {
            0
        } else if strange || length > 15 {
            length
        } else {
            1 + (length - 1) / 4
        }
    }
}

/// [`estimate`] as the splitter's measure.
#[derive(Clone, Copy, Debug)]
pub struct Tokens;

impl ChunkSizer for Tokens {
    fn size(&self, chunk: &str) -> usize {
        estimate(chunk)
    }
}

/// The longest beginning of `text` that counts at most `limit`, on a character
/// boundary and without trailing blanks.
pub fn head(text: &str, limit: usize) -> &str {
    if estimate(text) <= limit {
        return text.trim_end();
    }
    let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).take(limit * 16).collect();
    let fit = ends.partition_point(|&end| estimate(&text[..end]) <= limit);
    text[..ends.get(fit.saturating_sub(1)).copied().unwrap_or_default()].trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_signs_and_scripts_are_counted_on_the_safe_side() {
        for (text, tokens) in [
            ("", 0),
            (" \n\t", 0),
            ("the cat", 2),
            ("aerodynamics", 3),
            ("e3b0c442", 8),
            ("don't", 3),
            ("今天天气", 4),
            ("한국", 6),
            ("привет", 6),
            ("🦆🦆", 2),
        ] {
            assert_eq!(estimate(text), tokens, "{text:?}");
        }
        assert_eq!(estimate(&"x".repeat(1_000_000)), 1_000_000);
    }

    #[test]
    fn a_head_fits_its_limit() {
        for text in ["one two three four five", "今天天气很好", "🦆🦆🦆🦆", &"x".repeat(5000)]
        {
            let head = head(text, 3);
            assert!(text.starts_with(head) && !head.is_empty() && estimate(head) <= 3, "{head:?}");
        }
        assert_eq!(head("short ", 10), "short");
    }
}
