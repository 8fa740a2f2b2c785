//! Chunks: written with their document, given vectors later, loaded to search.
//!
//! Invariants:
//! - a vector is stored only for a chunk that still waits for one, so that a
//!   slow embedding never lands on a replaced document;
//! - what is read back as a vector or as terms is what was written.

use super::collections::{accept, advance, demand};
use super::schema::{EMBEDDED, PENDING, REFUSED};
use super::{Replaced, Store, number, size};
use crate::error::Error;
use crate::model::{NewChunk, Passage, Place, Vectors};
use crate::words::Counted;
use futures_util::TryStreamExt as _;
use mesh::database::DatabaseError;
use sqlx::AnyConnection;
use sqlx::Row as _;
use sqlx::any::AnyRow;
use std::collections::HashMap;
use std::fmt::Write as _;

/// A chunk as the index needs it.
#[derive(Debug)]
pub struct Loaded {
    pub document: String,
    pub chunk: String,
    pub terms: Counted,
    pub vector: Option<Vec<f32>>,
}

/// A chunk that waits for its vector.
#[derive(Clone, Debug)]
pub struct Unembedded {
    pub document: String,
    pub chunk: String,
    pub title: String,
    pub heading: String,
    pub text: String,
}

/// Ids in one statement: below every database's limit.
const AT_ONCE: usize = 200;

impl Store {
    /// The vectors of a document's chunks, by what was embedded.
    pub async fn vectors(
        &self,
        place: &Place,
        document: &str,
    ) -> Result<HashMap<String, Vec<f32>>, Error> {
        let rows = sqlx::query(
            "SELECT content, vector FROM retrieval_chunks \
             WHERE tenant = $1 AND collection = $2 AND document = $3 AND state = 1",
        )
        .bind(&*place.tenant)
        .bind(&*place.collection)
        .bind(document)
        .fetch_all(self.database.read())
        .await?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in &rows {
            if let Some(vector) = vector(row)? {
                found.insert(row.try_get("content")?, vector);
            }
        }
        Ok(found)
    }

    /// Everything of a collection that the index needs.
    pub async fn load(
        &self,
        place: &Place,
        mut each: impl FnMut(&Loaded) + Send,
    ) -> Result<(), Error> {
        let mut rows = sqlx::query(
            "SELECT document, id, terms, length, vector FROM retrieval_chunks \
             WHERE tenant = $1 AND collection = $2 ORDER BY document, ordinal",
        )
        .bind(&*place.tenant)
        .bind(&*place.collection)
        .fetch(self.database.read());
        while let Some(row) = rows.try_next().await? {
            each(&loaded(&row)?);
        }
        Ok(())
    }

    /// Chunks by id, without those that are gone.
    pub async fn passages(
        &self,
        place: &Place,
        ids: &[String],
    ) -> Result<HashMap<String, Passage>, Error> {
        let mut found = HashMap::with_capacity(ids.len());
        for ids in ids.chunks(AT_ONCE) {
            let mut sql = String::from(
                "SELECT k.id, k.document, k.text, k.span_start, k.span_end, k.heading, \
                 d.title, d.metadata, d.source \
                 FROM retrieval_chunks k JOIN retrieval_documents d \
                 ON d.tenant = k.tenant AND d.collection = k.collection AND d.id = k.document \
                 WHERE k.tenant = $1 AND k.collection = $2 AND k.id IN (",
            );
            for at in 0..ids.len() {
                let comma = if at == 0 { "" } else { ", " };
                let _ = write!(sql, "{comma}${}", at + 3);
            }
            sql.push(')');
            let mut query =
                sqlx::query(sqlx::AssertSqlSafe(sql)).bind(&*place.tenant).bind(&*place.collection);
            for id in ids {
                query = query.bind(id.as_str());
            }
            for row in query.fetch_all(self.database.read()).await? {
                let passage = passage(&row)?;
                found.insert(passage.chunk.clone(), passage);
            }
        }
        Ok(found)
    }

    /// Collections with chunks that wait for vectors, and the model to use.
    pub async fn waiting(&self) -> Result<Vec<(Place, String)>, Error> {
        let rows = sqlx::query(
            "SELECT DISTINCT k.tenant, k.collection, c.model \
             FROM retrieval_chunks k JOIN retrieval_collections c \
             ON c.tenant = k.tenant AND c.name = k.collection WHERE k.state = 0",
        )
        .fetch_all(self.database.read())
        .await?;
        rows.iter()
            .map(|row| {
                let (tenant, name): (String, String) =
                    (row.try_get("tenant")?, row.try_get("collection")?);
                Ok((Place::new(tenant, name), row.try_get("model")?))
            })
            .collect()
    }

    pub async fn unembedded(&self, place: &Place, limit: usize) -> Result<Vec<Unembedded>, Error> {
        let rows = sqlx::query(
            "SELECT k.document, k.id, k.heading, k.text, d.title \
             FROM retrieval_chunks k JOIN retrieval_documents d \
             ON d.tenant = k.tenant AND d.collection = k.collection AND d.id = k.document \
             WHERE k.state = 0 AND k.tenant = $1 AND k.collection = $2 \
             ORDER BY k.document, k.ordinal LIMIT $3",
        )
        .bind(&*place.tenant)
        .bind(&*place.collection)
        .bind(number(limit))
        .fetch_all(self.database.read())
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Unembedded {
                    document: row.try_get("document")?,
                    chunk: row.try_get("id")?,
                    title: row.try_get("title")?,
                    heading: row.try_get("heading")?,
                    text: row.try_get("text")?,
                })
            })
            .collect()
    }

    /// Gives vectors to chunks that wait for them.
    pub async fn embed(
        &self,
        place: &Place,
        vectors: Vec<(String, Vec<f32>)>,
        of: Vectors,
    ) -> Result<Replaced, Error> {
        let place = place.clone();
        self.database
            .write(move |connection| {
                Box::pin(async move {
                    let head = demand(connection, &place).await?;
                    accept(connection, &place, &head, &of).await?;
                    for (chunk, vector) in &vectors {
                        let bytes = Some(encode(vector));
                        settle(connection, &place, chunk, EMBEDDED, bytes).await?;
                    }
                    let version = advance(connection, &place).await?;
                    Ok(Replaced { version, created_at: head.created_at })
                })
            })
            .await
    }

    /// Leaves a chunk to keyword search: its model will never take it.
    pub async fn refuse(&self, place: &Place, chunk: &str) -> Result<(), Error> {
        let (place, chunk) = (place.clone(), chunk.to_owned());
        self.database
            .write(move |connection| {
                Box::pin(async move { settle(connection, &place, &chunk, REFUSED, None).await })
            })
            .await
    }
}

pub(super) async fn insert(
    connection: &mut AnyConnection,
    place: &Place,
    document: &str,
    ordinal: usize,
    chunk: &NewChunk,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO retrieval_chunks (tenant, collection, id, document, ordinal, span_start, \
         span_end, heading, text, content, terms, length, state, vector) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(&*place.tenant)
    .bind(&*place.collection)
    .bind(chunk.id.as_str())
    .bind(document)
    .bind(number(ordinal))
    .bind(number(chunk.span.start))
    .bind(number(chunk.span.end))
    .bind(chunk.heading.as_str())
    .bind(chunk.text.as_str())
    .bind(chunk.content.as_str())
    .bind(lines(&chunk.terms))
    .bind(i64::from(chunk.terms.length))
    .bind(if chunk.vector.is_some() { EMBEDDED } else { PENDING })
    .bind(chunk.vector.as_deref().map(encode))
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn delete(
    connection: &mut AnyConnection,
    place: &Place,
    document: &str,
) -> Result<(), Error> {
    sqlx::query(
        "DELETE FROM retrieval_chunks WHERE tenant = $1 AND collection = $2 AND document = $3",
    )
    .bind(&*place.tenant)
    .bind(&*place.collection)
    .bind(document)
    .execute(connection)
    .await?;
    Ok(())
}

async fn settle(
    connection: &mut AnyConnection,
    place: &Place,
    chunk: &str,
    state: i64,
    vector: Option<Vec<u8>>,
) -> Result<(), Error> {
    sqlx::query(
        "UPDATE retrieval_chunks SET state = $1, vector = $2 \
         WHERE tenant = $3 AND collection = $4 AND id = $5 AND state = 0",
    )
    .bind(state)
    .bind(vector)
    .bind(&*place.tenant)
    .bind(&*place.collection)
    .bind(chunk)
    .execute(connection)
    .await?;
    Ok(())
}

fn loaded(row: &AnyRow) -> Result<Loaded, Error> {
    let terms: String = row.try_get("terms")?;
    let length: i64 = row.try_get("length")?;
    Ok(Loaded {
        document: row.try_get("document")?,
        chunk: row.try_get("id")?,
        terms: counted(&terms, length)?,
        vector: vector(row)?,
    })
}

fn passage(row: &AnyRow) -> Result<Passage, Error> {
    let start = size(row.try_get("span_start")?)? as u64;
    let end = size(row.try_get("span_end")?)? as u64;
    Ok(Passage {
        chunk: row.try_get("id")?,
        document: row.try_get("document")?,
        title: row.try_get("title")?,
        text: row.try_get("text")?,
        span: start..end,
        heading: row.try_get("heading")?,
        metadata: row.try_get("metadata")?,
        source: row.try_get("source")?,
    })
}

/// A term a line, with its count: no term holds a tab or a line break.
fn lines(counted: &Counted) -> String {
    let mut text = String::new();
    for (term, count) in &counted.terms {
        let _ = writeln!(text, "{term}\t{count}");
    }
    text
}

fn counted(lines: &str, length: i64) -> Result<Counted, DatabaseError> {
    let corrupt = || DatabaseError::corrupt("the terms of a chunk");
    let terms = lines.lines().map(|line| {
        let (term, count) = line.split_once('\t')?;
        Some((term.to_owned(), count.parse().ok()?))
    });
    Ok(Counted {
        terms: terms.collect::<Option<_>>().ok_or_else(corrupt)?,
        length: u32::try_from(length).map_err(|_| corrupt())?,
    })
}

fn encode(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn vector(row: &AnyRow) -> Result<Option<Vec<f32>>, Error> {
    let bytes: Option<Vec<u8>> = row.try_get("vector")?;
    bytes.map(|bytes| Ok(decode(&bytes)?)).transpose()
}

fn decode(bytes: &[u8]) -> Result<Vec<f32>, DatabaseError> {
    let (values, rest) = bytes.as_chunks::<4>();
    if rest.is_empty() {
        Ok(values.iter().map(|value| f32::from_le_bytes(*value)).collect())
    } else {
        Err(DatabaseError::corrupt("a vector"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words;

    #[test]
    fn vectors_and_terms_come_back_as_they_were() {
        let vector = vec![0.0, -1.5, f32::MIN_POSITIVE, 3.0e38];
        assert_eq!(decode(&encode(&vector)).unwrap(), vector);
        assert!(decode(&[1, 2, 3]).is_err());
        let terms = words::of_passage("don't retry 3.14 x_y 超时重试 retry");
        let length = i64::from(terms.length);
        assert_eq!(counted(&lines(&terms), length).unwrap(), terms);
        assert!(counted("broken", 1).is_err());
    }
}
