//! Between the contract's messages and our own: parsed once, on receipt.
//!
//! Invariants:
//! - what leaves here keeps every rule of the contract; what breaks one is an
//!   error that names the field;
//! - a text that one backend could not store is refused by all.

use crate::error::Error;
use crate::fusion::{Fused, Seen};
use crate::knowledge::Put;
use crate::model::{Collection, Document, Format, Passage, Summary};
use crate::search::{Found, Mode, Search};
use prost_types::Timestamp;
use skein_proto::model::v1::Span;
use skein_proto::retrieval::v1 as wire;

const LONGEST_ID: usize = 512;
const LONGEST_TEXT: usize = 32 * 1024 * 1024;
const LONGEST_LINE: usize = 4 * 1024;
const LONGEST_METADATA: usize = 64 * 1024;
const LONGEST_QUERY: usize = 64 * 1024;
const MOST_HITS: i32 = 1000;
const MOST_IDS: usize = 1000;

/// A collection's name.
pub fn name(field: &'static str, name: String) -> Result<String, Error> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let allowed = |byte: u8| plain(byte) || byte == b'-' || byte == b'_';
    let good =
        name.len() <= 63 && name.bytes().next().is_some_and(plain) && name.bytes().all(allowed);
    if good {
        return Ok(name);
    }
    let rule = "must be 1 to 63 of a-z, 0-9, - and _, and start with a letter or digit";
    Err(Error::invalid(field, if name.is_empty() { "is required" } else { rule }))
}

pub fn id(field: &'static str, id: String) -> Result<String, Error> {
    let fault = if id.is_empty() {
        "is required"
    } else if id.len() > LONGEST_ID {
        "is longer than 512 bytes"
    } else if id.starts_with('/') {
        "must not start with /"
    } else if id.split(['/', '\\']).any(|segment| segment == "..") {
        "must not hold the path segment .."
    } else if id.chars().any(char::is_control) {
        "must not hold control characters"
    } else {
        return Ok(id);
    };
    Err(Error::invalid(field, fault))
}

pub fn document(sent: Option<wire::Document>) -> Result<Document, Error> {
    let sent = sent.ok_or_else(|| Error::invalid("document", "is required"))?;
    let format = match wire::Format::try_from(sent.format) {
        Ok(wire::Format::Unspecified | wire::Format::Text) => Format::Text,
        Ok(wire::Format::Markdown) => Format::Markdown,
        Ok(wire::Format::Html) => Format::Html,
        Ok(wire::Format::Pdf) => {
            let message = "PDF cannot be read yet; send its text";
            return Err(Error::Unserved { field: "document.format", message });
        }
        Err(_) => return Err(Error::invalid("document.format", "is not a known format")),
    };
    if sent.text.trim().is_empty() {
        return Err(Error::invalid("document.text", "is empty"));
    }
    within("document.text", &sent.text, LONGEST_TEXT)?;
    within("document.title", &sent.title, LONGEST_LINE)?;
    within("document.source", &sent.source, LONGEST_LINE)?;
    metadata(&sent.metadata_json)?;
    Ok(Document {
        id: id("document.id", sent.id)?,
        title: sent.title,
        text: sent.text,
        format,
        metadata: sent.metadata_json,
        source: sent.source,
    })
}

fn within(field: &'static str, text: &str, limit: usize) -> Result<(), Error> {
    if text.len() > limit {
        return Err(Error::invalid(
            field,
            format!("is {} bytes, at most {limit} are taken", text.len()),
        ));
    }
    // Postgres stores no such text.
    if text.contains('\0') {
        return Err(Error::invalid(field, "holds a NUL character"));
    }
    Ok(())
}

/// A flat object: string, number, bool, list of strings.
fn metadata(json: &str) -> Result<(), Error> {
    use serde_json::Value;
    const FIELD: &str = "document.metadata_json";
    within(FIELD, json, LONGEST_METADATA)?;
    if json.is_empty() {
        return Ok(());
    }
    let object: serde_json::Map<String, Value> = serde_json::from_str(json)
        .map_err(|error| Error::invalid(FIELD, format!("is no JSON object: {error}")))?;
    for (name, value) in object {
        let flat = match &value {
            Value::String(_) | Value::Number(_) | Value::Bool(_) => true,
            Value::Array(items) => items.iter().all(Value::is_string),
            Value::Null | Value::Object(_) => false,
        };
        if !flat {
            let message = format!("{name:?} is neither string, number, bool nor a list of strings");
            return Err(Error::invalid(FIELD, message));
        }
    }
    Ok(())
}

pub fn version(version: i64) -> Result<i64, Error> {
    if version < 0 {
        return Err(Error::invalid("version", format!("must not be negative, is {version}")));
    }
    Ok(version)
}

pub fn ids(ids: Vec<String>) -> Result<Vec<String>, Error> {
    if ids.len() > MOST_IDS {
        return Err(Error::invalid("ids", format!("holds {}, at most {MOST_IDS}", ids.len())));
    }
    ids.into_iter().map(|one| id("ids", one)).collect()
}

pub fn search(sent: wire::SearchRequest) -> Result<Search, Error> {
    let mode = match wire::Mode::try_from(sent.mode) {
        Ok(wire::Mode::Unspecified | wire::Mode::Hybrid) => Mode::Hybrid,
        Ok(wire::Mode::Keyword) => Mode::Keyword,
        Ok(wire::Mode::Dense) => Mode::Dense,
        Err(_) => return Err(Error::invalid("mode", "is not a known mode")),
    };
    if !sent.filter_json.is_empty() {
        return Err(Error::Unserved { field: "filter_json", message: "search without a filter" });
    }
    if !sent.rerank_model.is_empty() {
        return Err(Error::Unserved { field: "rerank_model", message: "leave it empty" });
    }
    if sent.embedding.iter().any(|value| !value.is_finite()) {
        return Err(Error::invalid("embedding", "holds a value that is not a finite number"));
    }
    let vector = (!sent.embedding.is_empty()).then_some(sent.embedding);
    if vector.as_ref().is_some_and(|vector| vector.iter().all(|value| *value == 0.0)) {
        return Err(Error::invalid("embedding", "is zero and points nowhere"));
    }
    let by_vector_alone = mode == Mode::Dense && vector.is_some();
    if sent.query.trim().is_empty() && !by_vector_alone {
        return Err(Error::invalid("query", "is empty"));
    }
    within("query", &sent.query, LONGEST_QUERY)?;
    if sent.min_version < 0 {
        return Err(Error::invalid("min_version", "must not be negative"));
    }
    Ok(Search {
        query: sent.query,
        top_k: count("top_k", sent.top_k, 10)?,
        mode,
        min_version: sent.min_version,
        vector: vector.map(crate::model::normalised),
    })
}

/// A number from 1 to 1000; 0 stands for `default`.
pub fn count(field: &'static str, sent: i32, default: usize) -> Result<usize, Error> {
    match usize::try_from(sent) {
        Ok(0) => Ok(default),
        Ok(count) if sent <= MOST_HITS => Ok(count),
        _ => Err(Error::invalid(field, format!("must be 1 to {MOST_HITS}, is {sent}"))),
    }
}

/// The id a page begins after.
pub fn page(token: &str) -> Result<String, Error> {
    let bytes = hex::decode(token).ok();
    let id = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    id.ok_or_else(|| Error::invalid("page_token", "was not given by this service"))
}

pub fn page_token(after: &str) -> String {
    hex::encode(after)
}

pub fn collection(own: Collection) -> wire::Collection {
    let dimensions = own.head.vectors.map_or(0, |vectors| vectors.dimensions);
    wire::Collection {
        name: own.name,
        embedding_model: own.head.model,
        dimensions: small(dimensions),
        documents: own.documents,
        chunks: own.chunks,
        pending_chunks: own.pending,
        created_at: Some(timestamp(own.head.created_at)),
        version: own.head.version,
    }
}

pub fn put(own: Put) -> wire::PutDocumentResponse {
    wire::PutDocumentResponse {
        version: own.version,
        chunks: small(own.chunks),
        embedded: small(own.embedded),
        unchanged: own.unchanged,
        duplicate_of: own.duplicate_of.unwrap_or_default(),
    }
}

pub fn found(own: Found, explain: bool) -> wire::SearchResponse {
    wire::SearchResponse {
        hits: own.hits.into_iter().map(|(fused, passage)| hit(&fused, passage, explain)).collect(),
        version: own.version,
        truncated: own.truncated,
        degraded: own.degraded,
        plan: if explain { own.plan } else { String::new() },
        usage: own.usage,
        embedded_by: own.embedded_by,
    }
}

fn hit(fused: &Fused<u32>, own: Passage, explain: bool) -> wire::Hit {
    let arm = |seen: &Seen| wire::Arm {
        name: seen.arm.to_owned(),
        rank: seen.rank,
        score: f64::from(seen.score),
    };
    wire::Hit {
        document_id: own.document,
        chunk_id: own.chunk,
        score: fused.score,
        text: own.text,
        span: Some(Span { start: own.span.start, end: own.span.end }),
        title: own.title,
        heading: own.heading,
        metadata_json: own.metadata,
        source: own.source,
        arms: if explain { fused.seen.iter().map(arm).collect() } else { Vec::new() },
    }
}

pub fn stored((own, about): (Document, Summary)) -> wire::GetDocumentResponse {
    let format = match own.format {
        Format::Text => wire::Format::Text,
        Format::Markdown => wire::Format::Markdown,
        Format::Html => wire::Format::Html,
    };
    wire::GetDocumentResponse {
        document: Some(wire::Document {
            id: own.id,
            title: own.title,
            text: own.text,
            format: format.into(),
            metadata_json: own.metadata,
            source: own.source,
        }),
        version: about.version,
        chunks: i32::try_from(about.chunks).unwrap_or(i32::MAX),
        updated_at: Some(timestamp(about.updated_at)),
        content_sha256: about.sha256,
    }
}

pub fn summary(own: Summary) -> wire::DocumentSummary {
    wire::DocumentSummary {
        id: own.id,
        title: own.title,
        version: own.version,
        chunks: i32::try_from(own.chunks).unwrap_or(i32::MAX),
        content_sha256: own.sha256,
        updated_at: Some(timestamp(own.updated_at)),
    }
}

pub fn small(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn timestamp(micros: i64) -> Timestamp {
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or(0);
    Timestamp { seconds: micros.div_euclid(1_000_000), nanos }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::error::ServiceError as _;

    fn sent() -> wire::Document {
        wire::Document { id: "a".to_owned(), text: "text".to_owned(), ..wire::Document::default() }
    }

    fn field<T: std::fmt::Debug>(outcome: Result<T, Error>) -> String {
        outcome.unwrap_err().field().unwrap_or_default().to_owned()
    }

    #[test]
    fn ids_that_could_lead_elsewhere_are_refused() {
        for bad in
            ["", "/etc", "../x", "a/../b", "a\\..\\b", "..", "a\nb", "a\u{0}", &"x".repeat(513)]
        {
            let document = wire::Document { id: bad.to_owned(), ..sent() };
            assert_eq!(field(super::document(Some(document))), "document.id", "{bad:?}");
        }
        for good in ["a", "docs/a..b.md", "..hidden", "中文/说明.md", "https://x/y?z=1"] {
            assert_eq!(id("id", good.to_owned()).unwrap(), good);
        }
    }

    #[test]
    fn each_bad_field_is_named() {
        let with = |change: fn(&mut wire::Document)| {
            let mut document = sent();
            change(&mut document);
            field(super::document(Some(document)))
        };
        assert_eq!(with(|d| d.text = " \n".to_owned()), "document.text");
        assert_eq!(with(|d| d.text = "a\0b".to_owned()), "document.text");
        assert_eq!(with(|d| d.format = 99), "document.format");
        assert_eq!(with(|d| d.format = wire::Format::Pdf.into()), "document.format");
        for bad in ["[]", "{", "1", r#"{"a":{}}"#, r#"{"a":null}"#, r#"{"a":[1]}"#] {
            let document = wire::Document { metadata_json: bad.to_owned(), ..sent() };
            assert_eq!(field(super::document(Some(document))), "document.metadata_json", "{bad}");
        }
        let good = r#"{"a":"x","b":1.5,"c":true,"d":["x"]}"#;
        let document = wire::Document { metadata_json: good.to_owned(), ..sent() };
        assert!(super::document(Some(document)).is_ok());
        assert_eq!(field(super::document(None)), "document");
        for bad in ["", "Upper", "-a", "a b", "é", &"a".repeat(64)] {
            assert_eq!(field(name("collection", bad.to_owned())), "collection", "{bad:?}");
        }
    }

    #[test]
    fn each_bad_search_is_named() {
        let with = |change: fn(&mut wire::SearchRequest)| {
            let mut request =
                wire::SearchRequest { query: "q".to_owned(), ..wire::SearchRequest::default() };
            change(&mut request);
            field(search(request))
        };
        assert_eq!(with(|s| s.query = " ".to_owned()), "query");
        assert_eq!(with(|s| s.top_k = -1), "top_k");
        assert_eq!(with(|s| s.top_k = 1_000_000_000), "top_k");
        assert_eq!(with(|s| s.mode = 9), "mode");
        assert_eq!(with(|s| s.embedding = vec![f32::NAN]), "embedding");
        assert_eq!(with(|s| s.embedding = vec![0.0, 0.0]), "embedding");
        assert_eq!(with(|s| s.filter_json = "{}".to_owned()), "filter_json");
        assert_eq!(with(|s| s.rerank_model = "m".to_owned()), "rerank_model");
        assert_eq!(with(|s| s.min_version = -1), "min_version");
    }

    #[test]
    fn a_page_token_comes_back() {
        assert_eq!(page(&page_token("中/文")).unwrap(), "中/文");
        assert_eq!(field(page("zz")), "page_token");
    }
}
