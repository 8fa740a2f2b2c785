//! Cuts a document into chunks: pieces that are found, shown and cited as one.
//!
//! Markdown is first taken apart at its headings, so that a chunk never mixes
//! sections and carries the path of headings above it; then the splitter cuts
//! at the largest units that fit: paragraphs, sentences, words.
//!
//! Invariants:
//! - a chunk is the bytes of its span: a citation can be checked;
//! - spans grow, lie on character boundaries and cover all that is not blank;
//! - a chunk with what is embedded before it fits the model ([`LIMIT`]);
//! - time is linear in the document, whatever is in it: the splitter, which
//!   looks at everything that remains for each chunk, gets `WINDOW` at most.

use crate::tokens::{self, Tokens};
use std::ops::Range;
use text_splitter::{ChunkCapacity, ChunkConfig, ChunkConfigError, MarkdownSplitter, TextSplitter};

/// What all-MiniLM-L6-v2 reads; the smallest of the models in use.
pub const LIMIT: usize = 256;
/// Begin and end marks, and the blank line after the prefix.
const RESERVED: usize = 4;
/// For title and headings.
const PREFIX: usize = 48;
const MOST: usize = LIMIT - RESERVED - PREFIX;
/// Enough; a little more is taken to end at a better place.
const ENOUGH: usize = 150;
/// A sentence or so, said again in the next chunk: an answer across the cut is
/// found whole.
const OVERLAP: usize = 24;
const WINDOW: usize = 8 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    Plain,
    Markdown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes of the document's text.
    pub span: Range<usize>,
    /// Headings above, outermost first: `Guide > Install > Linux`.
    pub heading: String,
}

/// The chunks of `text`, in order; none if it is blank.
pub fn cut(text: &str, structure: Structure) -> Result<Vec<Chunk>, ChunkConfigError> {
    let mut chunks = Vec::new();
    for section in sections(text, structure) {
        for window in windows(text, section.span) {
            let piece = &text[window.clone()];
            for (at, part) in split(piece, structure)? {
                let start = window.start + at;
                let span = start..start + part.len();
                chunks.push(Chunk { span, heading: section.heading.clone() });
            }
        }
    }
    Ok(chunks)
}

/// What is embedded for a chunk: where it stands, then what it says.
pub fn passage(title: &str, heading: &str, text: &str) -> String {
    let place = match (title.trim(), heading) {
        ("", heading) => heading.to_owned(),
        (title, "") => title.to_owned(),
        (title, heading) if heading.starts_with(title) => heading.to_owned(),
        (title, heading) => format!("{title} > {heading}"),
    };
    // What a text says itself at once need not stand before it.
    if place.is_empty() || text.starts_with(&place) {
        return text.to_owned();
    }
    format!("{}\n\n{text}", tokens::head(&place, PREFIX))
}

fn split(piece: &str, structure: Structure) -> Result<Vec<(usize, &str)>, ChunkConfigError> {
    if tokens::estimate(piece) <= MOST {
        let text = piece.trim();
        let at = piece.len() - piece.trim_start().len();
        return Ok(if text.is_empty() { Vec::new() } else { vec![(at, text)] });
    }
    if piece.chars().all(|c| !c.is_whitespace() && tokens::joins(c)) {
        return Ok(slices(piece));
    }
    let capacity = ChunkCapacity::from(ENOUGH..=MOST);
    let config = ChunkConfig::new(capacity).with_sizer(Tokens).with_overlap(OVERLAP)?;
    Ok(match structure {
        Structure::Plain => TextSplitter::new(config).chunk_indices(piece).collect(),
        Structure::Markdown => MarkdownSplitter::new(config).chunk_indices(piece).collect(),
    })
}

/// A word longer than any chunk has no better place to be cut than any other.
fn slices(word: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut rest = word;
    while !rest.is_empty() {
        let end = rest.char_indices().nth(MOST).map_or(rest.len(), |(at, _)| at);
        let (slice, after) = rest.split_at(end);
        found.push((word.len() - rest.len(), slice));
        rest = after;
    }
    found
}

struct Section {
    span: Range<usize>,
    heading: String,
}

/// From heading to heading. A heading with nothing below it but the next one
/// opens that one's section.
fn sections(text: &str, structure: Structure) -> Vec<Section> {
    if structure == Structure::Plain {
        return vec![Section { span: 0..text.len(), heading: String::new() }];
    }
    let mut found: Vec<Section> = Vec::new();
    let mut path: Vec<(usize, String)> = Vec::new();
    let (mut start, mut at, mut bare, mut fenced) = (0, 0, true, None);
    for line in text.split_inclusive('\n') {
        let marks = fence(line);
        match (fenced, marks) {
            (None, Some(mark)) => fenced = Some(mark),
            (Some(open), Some(mark)) if open == mark => fenced = None,
            _ => {}
        }
        match heading(line).filter(|_| fenced.is_none()) {
            Some((level, title)) => {
                if !bare {
                    found.push(Section { span: start..at, heading: joined(&path) });
                    (start, bare) = (at, true);
                }
                path.retain(|(above, _)| *above < level);
                path.push((level, title.to_owned()));
            }
            None => bare &= line.trim().is_empty(),
        }
        at += line.len();
    }
    found.push(Section { span: start..text.len(), heading: joined(&path) });
    found
}

fn joined(path: &[(usize, String)]) -> String {
    let titles: Vec<&str> =
        path.iter().map(|(_, title)| title.as_str()).filter(|title| !title.is_empty()).collect();
    titles.join(" > ")
}

/// Level and title of a line such as `## Install`.
fn heading(line: &str) -> Option<(usize, &str)> {
    let text = line.trim_end();
    let hashes = text.bytes().take_while(|&byte| byte == b'#').count();
    let title = text.get(hashes..)?;
    let is_heading =
        (1..=6).contains(&hashes) && (title.is_empty() || title.starts_with([' ', '\t']));
    is_heading.then(|| (hashes, title.trim().trim_end_matches('#').trim_end()))
}

/// The character of a line that opens or closes a block of code.
fn fence(line: &str) -> Option<char> {
    let line = line.trim_start();
    ['`', '~'].into_iter().find(|&mark| line.chars().take_while(|&c| c == mark).count() >= 3)
}

/// Cuts `span` into windows, each at the best place in its second half.
fn windows(text: &str, span: Range<usize>) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = span.start;
    while span.end - start > WINDOW {
        let end = text.floor_char_boundary(start + WINDOW);
        let middle = text.ceil_char_boundary(start + WINDOW / 2);
        let half = &text[middle..end];
        let best = ["\n\n", "\n", ". ", "。", " "]
            .iter()
            .find_map(|mark| half.rfind(mark).map(|at| middle + at + mark.len()));
        let cut = best.unwrap_or(end);
        found.push(start..cut);
        start = cut;
    }
    found.push(start..span.end);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nasty() -> Vec<String> {
        let mut texts: Vec<String> = [
            "",
            " \r\n\t ",
            "one",
            "# Only a heading",
            "# A\n\n## B\n\ntext\n\n# C\r\n\r\nmore\r\n",
            "```\n# no heading\n```\n# heading\nbody",
            "~~~\nnever closed\n# still code",
            "\u{feff}bom and \u{0}nul",
        ]
        .map(str::to_owned)
        .to_vec();
        for unit in [
            "今天天气很好。我们去公园散步，",
            "مرحبا بالعالم ",
            "🦆👩‍👩‍👧‍👦🇩🇪 ",
            "e\u{301}\u{323}a\u{308} ",
            "line one\r\nline two\r\n\r\n",
            "The quick brown fox jumps over the lazy dog. ",
            "| a | b |\n",
            "- item\n  - nested\n",
            "> quote\n",
            "e3b0c44298fc1c14",
            "[link](http://example.com/a_b*c) **bold _both_** ",
            "\u{300}",
            "# h\n",
            "한국어 텍스트 ",
        ] {
            texts.push(unit.repeat(700));
        }
        texts
    }

    #[test]
    fn chunks_are_their_spans_and_leave_nothing_out() {
        for text in nasty() {
            for structure in [Structure::Plain, Structure::Markdown] {
                let chunks = cut(&text, structure).unwrap();
                let start: String = text.chars().take(20).collect();
                let mut covered = 0;
                let mut last = 0;
                for chunk in &chunks {
                    let part = &text[chunk.span.clone()];
                    assert!(!part.trim().is_empty(), "{start:?}");
                    assert!(chunk.span.end > covered && chunk.span.start >= last, "{start:?}");
                    if chunk.span.start > covered {
                        let gap = &text[covered..chunk.span.start];
                        assert!(gap.trim().is_empty(), "{start:?} {gap:?}");
                    }
                    let embedded = passage("A title", &chunk.heading, part);
                    assert!(tokens::estimate(&embedded) <= LIMIT - 2, "{start:?}");
                    (covered, last) = (chunk.span.end, chunk.span.start);
                }
                assert!(text[covered..].trim().is_empty(), "{start:?}");
            }
        }
    }

    #[test]
    fn a_million_letters_are_cut_at_once() {
        let text = "x".repeat(1_000_000);
        let chunks = cut(&text, Structure::Markdown).unwrap();
        assert!(chunks.len() >= 1_000_000 / MOST);
        assert_eq!(chunks.last().unwrap().span.end, text.len());
    }

    #[test]
    fn a_chunk_knows_the_headings_above_it() {
        let text = "# Guide\n\nIntro.\n\n## Install\n\n### Linux\n\nUse apt.\n\n## Run ##\n\nGo.\n";
        let chunks = cut(text, Structure::Markdown).unwrap();
        let seen: Vec<_> =
            chunks.iter().map(|c| (c.heading.as_str(), &text[c.span.clone()])).collect();
        assert_eq!(
            seen,
            [
                ("Guide", "# Guide\n\nIntro."),
                ("Guide > Install > Linux", "## Install\n\n### Linux\n\nUse apt."),
                ("Guide > Run", "## Run ##\n\nGo."),
            ]
        );
    }

    #[test]
    fn the_place_stands_before_the_text_once() {
        assert_eq!(passage("", "", "text"), "text");
        assert_eq!(passage("Guide", "Guide > Run", "text"), "Guide > Run\n\ntext");
        assert_eq!(passage("A", "B", "text"), "A > B\n\ntext");
        assert_eq!(passage("same words", "", "same words and more"), "same words and more");
    }
}
