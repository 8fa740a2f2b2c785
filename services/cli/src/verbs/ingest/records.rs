//! Documents out of files: one a file, or one a line of JSONL.
//!
//! Invariants:
//! - A document is UTF-8 or is refused with the place of the first wrong byte.
//! - One line of a JSONL file is in memory at a time; a bad line is named by
//!   its number and the next one is read.

use super::files::is_kind;
use serde::Deserialize;
use serde_json::{Map, Value};
use skein_proto::retrieval::v1::{Document, Format};
use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    path::Path,
};

/// Largest text of a document, as the contract says, in bytes.
const LARGEST: u64 = 32 << 20;

pub(super) enum Read {
    /// With whether the same text is the same document: not so where fields
    /// beside the text may have changed.
    Document(Document, bool),
    /// A name and what is wrong.
    Unusable(String, String),
}

impl Read {
    pub(super) fn prefixed(self, prefix: Option<&str>) -> Self {
        match (self, prefix) {
            (Self::Document(document, skip), Some(prefix)) => {
                let id = format!("{prefix}/{}", document.id);
                Self::Document(Document { id, ..document }, skip)
            }
            (read, _) => read,
        }
    }
}

/// The file as one document.
pub(super) fn whole(path: &Path, id: &str) -> Read {
    let source = path.display().to_string();
    match text(path) {
        Ok(text) => {
            let format = format(path);
            let title = title(&text, format).unwrap_or_else(|| stem(path));
            let format = format.into();
            let id = id.to_owned();
            let metadata_json = String::new();
            Read::Document(Document { id, title, text, format, metadata_json, source }, true)
        }
        Err(why) => Read::Unusable(source, why),
    }
}

fn text(path: &Path) -> Result<String, String> {
    let found = fs::metadata(path).map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("not a file or folder; a device or pipe has no end to wait for".to_owned());
    }
    let size = found.len();
    if size > LARGEST {
        return Err(format!("{size} bytes; a document has at most {LARGEST}"));
    }
    utf8(fs::read(path).map_err(|error| error.to_string())?)
}

fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes)
        .map_err(|error| format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to()))
}

fn format(path: &Path) -> Format {
    if is_kind(path, &["md", "markdown"]) {
        Format::Markdown
    } else if is_kind(path, &["html", "htm"]) {
        Format::Html
    } else {
        Format::Text
    }
}

/// What the document calls itself.
fn title(text: &str, format: Format) -> Option<String> {
    let found = match format {
        Format::Markdown => text.lines().find_map(|line| line.strip_prefix("# "))?,
        Format::Html => {
            let lower = text.to_ascii_lowercase();
            let start = lower.find("<title>")? + "<title>".len();
            let length = lower.get(start..)?.find("</title>")?;
            text.get(start..start + length)?
        }
        _ => return None,
    };
    let flat = found.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(flat).filter(|title| !title.is_empty())
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// A line of a JSONL file. Fields of other names are none of our business.
#[derive(Deserialize)]
struct Record {
    id: Id,
    #[serde(default)]
    title: Option<String>,
    text: String,
    #[serde(default)]
    metadata: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(i64),
}

/// Lines that hold something.
pub(super) fn count(path: &Path) -> io::Result<u64> {
    let mut lines = BufReader::new(File::open(path)?).split(b'\n');
    lines.try_fold(0, |count, line| Ok(count + u64::from(!line?.trim_ascii().is_empty())))
}

/// The documents of a JSONL file.
pub(super) fn lines(path: &Path) -> Box<dyn Iterator<Item = Read> + '_> {
    let source = path.display().to_string();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return Box::new(std::iter::once(Read::Unusable(source, error.to_string()))),
    };
    let lines = BufReader::new(file).split(b'\n').enumerate();
    Box::new(lines.filter_map(move |(at, line)| {
        let name = format!("{source}:{}", at + 1);
        match line {
            Ok(line) if line.trim_ascii().is_empty() => None,
            Ok(line) => Some(match record(line, &source) {
                Ok(document) => Read::Document(document, false),
                Err(why) => Read::Unusable(name, why),
            }),
            Err(error) => Some(Read::Unusable(name, error.to_string())),
        }
    }))
}

fn record(line: Vec<u8>, source: &str) -> Result<Document, String> {
    let line = utf8(line)?;
    let Record { id, title, text, metadata } = serde_json::from_str(&line).map_err(|error| {
        format!("not a JSON object with a string or number `id` and a string `text`: {error}")
    })?;
    let metadata_json = metadata.map(|fields| Value::Object(fields).to_string());
    Ok(Document {
        id: match id {
            Id::Text(id) => id,
            Id::Number(id) => id.to_string(),
        },
        title: title.unwrap_or_default(),
        text,
        format: Format::Text.into(),
        metadata_json: metadata_json.unwrap_or_default(),
        source: source.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_called_what_it_calls_itself() {
        assert_eq!(title("intro\n# The  Net \n", Format::Markdown).as_deref(), Some("The Net"));
        assert_eq!(title("## Not\n", Format::Markdown), None);
        let html = "<HTML><Title>\n A\n B</Title>";
        assert_eq!(title(html, Format::Html).as_deref(), Some("A B"));
        assert_eq!(title("<title>endless", Format::Html), None);
    }

    #[test]
    fn the_first_wrong_byte_is_named() {
        assert_eq!(utf8(b"ab\xff".to_vec()).unwrap_err(), "not UTF-8 at byte 2");
    }

    #[test]
    fn a_line_needs_an_id_and_a_text() {
        let read = |line: &str| record(line.as_bytes().to_vec(), "f");
        let full =
            read(r#"{"id":7,"title":"T","text":"x","metadata":{"a":[1]},"more":1}"#).unwrap();
        assert_eq!((full.id.as_str(), full.metadata_json.as_str()), ("7", r#"{"a":[1]}"#));
        for wrong in [r#"{"id":"a"}"#, r#"{"text":"x"}"#, "[]", r#"{"id":null,"text":"x"}"#] {
            assert!(read(wrong).unwrap_err().contains("`id`"), "{wrong}");
        }
    }
}
