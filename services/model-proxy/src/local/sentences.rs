//! Passages to sentences, as ranges of bytes.
//!
//! Invariants:
//! - A range begins and ends on a character, holds no outer white space, and
//!   ranges follow each other without overlap: quoting one quotes the document.
//! - A heading, a list item, a table row and a line of code are units of their
//!   own; nothing is glued across them.

use std::ops::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Prose,
    Heading,
    Item,
    Row,
    Code,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    pub range: Range<usize>,
    pub kind: Kind,
    /// Counts blocks of the passage: sentences of one paragraph share it.
    pub block: usize,
}

/// Words that end with a full stop in mid-sentence.
const ABBREVIATIONS: [&str; 17] = [
    "e.g", "i.e", "etc", "vs", "cf", "mr", "mrs", "ms", "dr", "prof", "st", "no", "fig", "approx",
    "inc", "ltd", "jr",
];

pub fn split(text: &str) -> Vec<Sentence> {
    let mut out = Vec::new();
    let mut open: Option<(Range<usize>, Kind)> = None;
    let (mut fenced, mut block, mut start) = (false, 0, 0);
    for line in text.split_inclusive('\n') {
        let range = start..start + line.len();
        start = range.end;
        let trimmed = line.trim();
        let fence = trimmed.starts_with("```") || trimmed.starts_with("~~~");
        let kind = kind(trimmed, fenced);
        // A hard-wrapped line goes on with the paragraph or item before it.
        if kind == Kind::Prose && !fence && !trimmed.is_empty() {
            match &mut open {
                Some((range, _)) => range.end = start,
                None => open = Some((range, Kind::Prose)),
            }
            continue;
        }
        if let Some((range, kind)) = open.take() {
            prose(text, range, kind, block, &mut out);
            block += 1;
        }
        if fence {
            fenced = !fenced;
        } else if kind == Kind::Item {
            open = Some((range, kind));
        } else if !trimmed.is_empty() && !is_rule(trimmed) {
            push(text, range, kind, block, &mut out);
            block += 1;
        }
    }
    if let Some((range, kind)) = open {
        prose(text, range, kind, block, &mut out);
    }
    out
}

fn kind(line: &str, fenced: bool) -> Kind {
    if fenced {
        return Kind::Code;
    }
    if line.starts_with('|') {
        return Kind::Row;
    }
    let hashes = line.bytes().take_while(|byte| *byte == b'#').count();
    if (1..=6).contains(&hashes) && line[hashes..].starts_with(' ') {
        return Kind::Heading;
    }
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let numbered =
        digits > 0 && (line[digits..].starts_with(". ") || line[digits..].starts_with(") "));
    let bullet = ["- ", "* ", "+ ", "• "].iter().any(|mark| line.starts_with(mark));
    if numbered || bullet || line.starts_with("> ") { Kind::Item } else { Kind::Prose }
}

/// Lines that only draw: `---`, `===`, `|---|---|`.
fn is_rule(line: &str) -> bool {
    line.chars().all(|character| matches!(character, '-' | '=' | '|' | ':' | '*' | '_' | ' ' | '+'))
}

fn prose(text: &str, range: Range<usize>, kind: Kind, block: usize, out: &mut Vec<Sentence>) {
    let mut start = range.start;
    let body = &text[range.clone()];
    let mut ticks = 0_usize;
    for (at, character) in body.char_indices() {
        ticks += usize::from(character == '`');
        let end = range.start + at + character.len_utf8();
        // An odd count: inside `code`, where a full stop ends nothing.
        if ticks.is_multiple_of(2) && ends_sentence(text, start, end, character, range.end) {
            let end = after_closers(text, end, range.end);
            if end > start {
                push(text, start..end, kind, block, out);
                start = end;
            }
        }
    }
    push(text, start..range.end, kind, block, out);
}

fn ends_sentence(text: &str, start: usize, end: usize, character: char, limit: usize) -> bool {
    if end <= start {
        return false;
    }
    match character {
        '。' | '！' | '？' | '；' => true,
        '!' | '?' => next_is_space(text, end, limit),
        '.' => {
            let before = &text[start..end - 1];
            let word = before.rsplit(|c: char| c.is_whitespace() || c == '(').next().unwrap_or("");
            let initial = word.chars().count() == 1 && word.chars().all(char::is_uppercase);
            let short = ABBREVIATIONS.contains(&word.to_lowercase().as_str());
            let number = before.trim_start().bytes().all(|byte| byte.is_ascii_digit());
            next_is_space(text, end, limit) && !initial && !short && !number
        }
        _ => false,
    }
}

/// Whether a sentence may end here: white space, a closing mark, or the end.
fn next_is_space(text: &str, end: usize, limit: usize) -> bool {
    let end = after_closers(text, end, limit);
    text[end..limit].chars().next().is_none_or(|next| next.is_whitespace() || is_cjk(next))
}

fn after_closers(text: &str, end: usize, limit: usize) -> usize {
    let closers = text[end..limit].chars().take_while(|next| "\"'”’」』）)]*_".contains(*next));
    end + closers.map(char::len_utf8).sum::<usize>()
}

pub fn is_cjk(character: char) -> bool {
    matches!(character as u32,
        0x3040..=0x30FF | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xAC00..=0xD7AF | 0xF900..=0xFAFF | 0x20000..=0x3134F)
}

fn push(text: &str, range: Range<usize>, kind: Kind, block: usize, out: &mut Vec<Sentence>) {
    let body = &text[range.clone()];
    let start = range.start + (body.len() - body.trim_start().len());
    let end = range.end - (body.len() - body.trim_end().len());
    // A sentence has a letter or a digit in it.
    if start < end && text[start..end].chars().any(char::is_alphanumeric) {
        out.push(Sentence { range: start..end, kind, block });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<(&str, Kind)> {
        split(text).into_iter().map(|s| (&text[s.range], s.kind)).collect()
    }

    #[test]
    fn prose_ends_where_a_reader_says_it_ends() {
        let text = "Use tonic 0.14, e.g. for `a. b`. It works! \"Does it?\" Yes (it\ndoes). 是的。很好！完了";
        let expected = [
            "Use tonic 0.14, e.g. for `a. b`.",
            "It works!",
            "\"Does it?\"",
            "Yes (it\ndoes).",
            "是的。",
            "很好！",
            "完了",
        ];
        assert_eq!(texts(text), expected.map(|text| (text, Kind::Prose)));
    }

    #[test]
    fn markdown_units_stay_apart() {
        let text = "# Ports\nThe gateway listens\non 8080.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n- one\n  goes on\n- two\n1. first\n```sh\nmake up\nmake demo\n```\nEnd.";
        let expected = [
            ("# Ports", Kind::Heading),
            ("The gateway listens\non 8080.", Kind::Prose),
            ("| a | b |", Kind::Row),
            ("| 1 | 2 |", Kind::Row),
            ("- one\n  goes on", Kind::Item),
            ("- two", Kind::Item),
            ("1. first", Kind::Item),
            ("make up", Kind::Code),
            ("make demo", Kind::Code),
            ("End.", Kind::Prose),
        ];
        assert_eq!(texts(text), expected);
    }

    #[test]
    fn any_text_gives_ordered_ranges_on_characters() {
        let samples = [
            "",
            "...",
            "。。。",
            "a.\u{200b}b",
            "😀!😀?",
            "- ",
            "```",
            "| |",
            "1.",
            "\r\n\r\nx. Y",
        ];
        for text in samples {
            let mut last = 0;
            for sentence in split(text) {
                assert!(sentence.range.start >= last && text.get(sentence.range.clone()).is_some());
                last = sentence.range.end;
            }
        }
    }
}
