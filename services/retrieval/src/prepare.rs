//! From a document as it was sent to one that can be stored: pure computing.
//!
//! Invariants:
//! - the same document gives the same ids and hashes on every machine;
//! - the fingerprint changes with anything that what is stored depends on.

use crate::chunk::{self, Structure};
use crate::error::Error;
use crate::html;
use crate::model::{Document, Format, NewChunk, Prepared};
use crate::words;
use sha2::{Digest as _, Sha256};

/// To be raised when the same text would be cut or indexed in another way.
const WAY_OF_CUTTING: &str = "1";

pub fn prepare(mut document: Document, model: &str) -> Result<Prepared, Error> {
    let sha256 = hex::encode(Sha256::digest(&document.text));
    let Document { title, format, metadata, source, .. } = &document;
    let fingerprint =
        hash(&[WAY_OF_CUTTING, model, format.name(), title, metadata, source, &sha256]);
    if document.format == Format::Html {
        document.text = html::to_text(&document.text)
            .map_err(|error| Error::invalid("document.text", error.to_string()))?;
    }
    let structure = match document.format {
        Format::Text => Structure::Plain,
        Format::Markdown | Format::Html => Structure::Markdown,
    };
    let cut = chunk::cut(&document.text, structure)?;
    if cut.is_empty() {
        return Err(Error::invalid("document.text", "has no text to find"));
    }
    let chunks = cut
        .into_iter()
        .map(|chunk| {
            let text = document.text[chunk.span.clone()].to_owned();
            let passage = chunk::passage(&document.title, &chunk.heading, &text);
            let content = hash(&[model, &passage]);
            let (start, end) = (chunk.span.start.to_string(), chunk.span.end.to_string());
            let mut id = hash(&[&document.id, &start, &end, &content]);
            id.truncate(24);
            NewChunk {
                id: format!("chk_{id}"),
                terms: words::of_passage(&passage),
                span: chunk.span,
                heading: chunk.heading,
                text,
                passage,
                content,
                vector: None,
            }
        })
        .collect();
    Ok(Prepared { document, sha256, fingerprint, chunks })
}

/// Of the parts with their lengths, so that none runs into the next.
fn hash(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str, format: Format) -> Document {
        Document {
            id: "a".to_owned(),
            title: "T".to_owned(),
            text: text.to_owned(),
            format,
            metadata: String::new(),
            source: String::new(),
        }
    }

    #[test]
    fn html_is_stored_as_its_text_and_hashed_as_it_was_sent() {
        let html = "<h1>One</h1><p>Two &amp; three</p>";
        let prepared = prepare(document(html, Format::Html), "m").unwrap();
        assert_eq!(prepared.document.text, "# One\n\nTwo & three");
        assert_eq!(prepared.sha256, hex::encode(Sha256::digest(html)));
        let chunk = &prepared.chunks[0];
        assert_eq!(chunk.text, prepared.document.text[chunk.span.clone()]);
    }

    #[test]
    fn ids_are_stable_and_depend_on_the_model() {
        let ids = |model| {
            let prepared = prepare(document("some text", Format::Text), model).unwrap();
            (prepared.chunks[0].id.clone(), prepared.fingerprint)
        };
        assert_eq!(ids("m"), ids("m"));
        assert_ne!(ids("m"), ids("n"));
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
    }

    #[test]
    fn a_document_without_a_word_is_refused() {
        for (text, format) in [("<script>x</script>", Format::Html), (" \n", Format::Text)] {
            assert!(matches!(prepare(document(text, format), "m"), Err(Error::Invalid { .. })));
        }
    }
}
