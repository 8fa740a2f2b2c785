//! The things retrieval keeps.
//!
//! Invariants:
//! - a [`Place`] names tenant and collection together: no query of the store can
//!   be made without a tenant.

use crate::words::Counted;
use std::{ops::Range, sync::Arc};

/// Where something is kept; the first part of every primary key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub tenant: Arc<str>,
    pub collection: Arc<str>,
}

impl Place {
    pub fn new(tenant: impl Into<Arc<str>>, collection: impl Into<Arc<str>>) -> Self {
        Self { tenant: tenant.into(), collection: collection.into() }
    }
}

/// What identifies a state of a collection and the vectors it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub model: String,
    /// Of the collection's first vector; `None` until then.
    pub vectors: Option<Vectors>,
    /// Microseconds; tells a collection from a deleted one of the same name.
    pub created_at: i64,
    pub version: i64,
}

/// Vectors are comparable if model and length are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vectors {
    /// What the configured name led to: `<provider>/<id>`.
    pub model: String,
    pub dimensions: usize,
}

impl std::fmt::Display for Vectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} dimensions)", self.model, self.dimensions)
    }
}

#[derive(Clone, Debug)]
pub struct Collection {
    pub name: String,
    pub head: Head,
    pub documents: i64,
    pub chunks: i64,
    pub pending: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Markdown,
    Html,
}

impl Format {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Markdown => "markdown",
            Self::Html => "html",
        }
    }

    pub fn of(name: &str) -> Option<Self> {
        [Self::Text, Self::Markdown, Self::Html].into_iter().find(|format| format.name() == name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub id: String,
    pub title: String,
    /// As sent; once stored, HTML is its plain text.
    pub text: String,
    pub format: Format,
    /// A flat JSON object, or empty.
    pub metadata: String,
    pub source: String,
}

/// A document ready to be stored.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub document: Document,
    /// Lower-case hex over the text as it was sent.
    pub sha256: String,
    /// Over everything that what is stored depends on.
    pub fingerprint: String,
    pub chunks: Vec<NewChunk>,
}

#[derive(Clone, Debug)]
pub struct NewChunk {
    pub id: String,
    pub span: Range<usize>,
    pub heading: String,
    pub text: String,
    /// What is embedded.
    pub passage: String,
    /// Hash of model and passage: equal ones share a vector.
    pub content: String,
    pub terms: Counted,
    pub vector: Option<Vec<f32>>,
}

/// A document as it is listed.
#[derive(Clone, Debug)]
pub struct Summary {
    pub id: String,
    pub title: String,
    /// The writer's.
    pub version: i64,
    pub chunks: i64,
    pub sha256: String,
    pub updated_at: i64,
}

/// A chunk as it is shown.
#[derive(Clone, Debug)]
pub struct Passage {
    pub chunk: String,
    pub document: String,
    pub title: String,
    pub text: String,
    pub span: Range<u64>,
    pub heading: String,
    pub metadata: String,
    pub source: String,
}

/// Scaled to length one, so that a dot product is the cosine; a vector of zeros
/// stays as it is and matches nothing.
pub fn normalised(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        #[expect(clippy::cast_possible_truncation, reason = "a quotient of at most one")]
        for value in &mut vector {
            *value = (f64::from(*value) / length) as f32;
        }
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::normalised;

    #[test]
    fn a_vector_gets_length_one_unless_it_is_zero() {
        assert_eq!(normalised(vec![3.0, 4.0]), [0.6, 0.8]);
        assert_eq!(normalised(vec![0.0, 0.0]), [0.0, 0.0]);
        assert_eq!(normalised(vec![1e-30, 0.0]), [1.0, 0.0]);
        assert_eq!(normalised(vec![f32::MAX, 0.0]), [1.0, 0.0]);
    }
}
