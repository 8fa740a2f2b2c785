//! Documents: replaced whole, listed, deleted.
//!
//! Invariants:
//! - a reader finds the old document with its chunks or the new one with its
//!   own, never a mixture, whenever the process dies;
//! - an older version of the writer's never replaces a newer one.

use super::collections::{accept, advance, demand};
use super::{Store, chunks, number};
use crate::error::Error;
use crate::model::{Document, Format, Place, Prepared, Summary, Vectors};
use mesh::clock;
use mesh::database::DatabaseError;
use sqlx::AnyConnection;
use sqlx::Row as _;
use sqlx::any::AnyRow;

/// What is known of a stored document without reading its text.
#[derive(Clone, Debug)]
pub struct Stored {
    pub fingerprint: String,
    pub version: i64,
    pub chunks: i64,
}

#[derive(Clone, Debug)]
pub struct Replaced {
    /// Of the collection.
    pub version: i64,
    pub created_at: i64,
}

const SUMMARY: &str = "id, title, writer_version, chunks, sha256, updated_at";

impl Store {
    pub async fn stored(&self, place: &Place, id: &str) -> Result<Option<Stored>, Error> {
        let row = sqlx::query(
            "SELECT fingerprint, writer_version, chunks FROM retrieval_documents \
             WHERE tenant = $1 AND collection = $2 AND id = $3",
        )
        .bind(&*place.tenant)
        .bind(&*place.collection)
        .bind(id)
        .fetch_optional(self.database.read())
        .await?;
        row.map(|row| {
            Ok(Stored {
                fingerprint: row.try_get("fingerprint")?,
                version: row.try_get("writer_version")?,
                chunks: row.try_get("chunks")?,
            })
        })
        .transpose()
    }

    /// Another document with the very same text.
    pub async fn twin(
        &self,
        place: &Place,
        id: &str,
        sha256: &str,
    ) -> Result<Option<String>, Error> {
        let row = sqlx::query(
            "SELECT id FROM retrieval_documents \
             WHERE tenant = $1 AND collection = $2 AND sha256 = $3 AND id <> $4 \
             ORDER BY id LIMIT 1",
        )
        .bind(&*place.tenant)
        .bind(&*place.collection)
        .bind(sha256)
        .bind(id)
        .fetch_optional(self.database.read())
        .await?;
        Ok(row.map(|row| row.try_get("id")).transpose()?)
    }

    /// Puts a document in the place of the one with its id. `vectors` says what
    /// kind those of its chunks are, if any has one.
    pub async fn replace(
        &self,
        place: &Place,
        new: Prepared,
        version: i64,
        vectors: Option<Vectors>,
    ) -> Result<(Replaced, Prepared), Error> {
        let place = place.clone();
        self.database
            .write(move |connection| {
                Box::pin(async move {
                    let head = demand(connection, &place).await?;
                    let newest = outranked(connection, &place, &new.document.id, version).await?;
                    if let Some(vectors) = &vectors {
                        accept(connection, &place, &head, vectors).await?;
                    }
                    chunks::delete(connection, &place, &new.document.id).await?;
                    write(connection, &place, &new, newest).await?;
                    for (ordinal, chunk) in new.chunks.iter().enumerate() {
                        let document = new.document.id.as_str();
                        chunks::insert(connection, &place, document, ordinal, chunk).await?;
                    }
                    let version = advance(connection, &place).await?;
                    Ok((Replaced { version, created_at: head.created_at }, new))
                })
            })
            .await
    }

    /// Notes a newer version of the writer's for content that has not changed.
    pub async fn touch(&self, place: &Place, id: &str, version: i64) -> Result<(), Error> {
        let (place, id) = (place.clone(), id.to_owned());
        self.database
            .write(move |connection| {
                Box::pin(async move {
                    sqlx::query(
                        "UPDATE retrieval_documents SET writer_version = $1 \
                         WHERE tenant = $2 AND collection = $3 AND id = $4 AND writer_version < $1",
                    )
                    .bind(version)
                    .bind(&*place.tenant)
                    .bind(&*place.collection)
                    .bind(id)
                    .execute(connection)
                    .await?;
                    Ok(())
                })
            })
            .await
    }

    pub async fn document(
        &self,
        place: &Place,
        id: &str,
    ) -> Result<Option<(Document, Summary)>, Error> {
        let sql = format!(
            "SELECT {SUMMARY}, text, format, metadata, source FROM retrieval_documents \
             WHERE tenant = $1 AND collection = $2 AND id = $3"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(&*place.tenant)
            .bind(&*place.collection)
            .bind(id)
            .fetch_optional(self.database.read())
            .await?;
        row.map(|row| {
            let format: String = row.try_get("format")?;
            let format = Format::of(&format).ok_or_else(|| DatabaseError::corrupt("a format"))?;
            let document = Document {
                id: row.try_get("id")?,
                title: row.try_get("title")?,
                text: row.try_get("text")?,
                format,
                metadata: row.try_get("metadata")?,
                source: row.try_get("source")?,
            };
            Ok((document, summary(&row)?))
        })
        .transpose()
    }

    /// Up to `limit` documents in the order of their ids, after `after`.
    pub async fn documents(
        &self,
        place: &Place,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Summary>, Error> {
        // A prefix is compared as text, since LIKE has signs of its own.
        let sql = format!(
            "SELECT {SUMMARY} FROM retrieval_documents \
             WHERE tenant = $1 AND collection = $2 AND id > $3 \
             AND substr(id, 1, $4) = $5 ORDER BY id LIMIT $6"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(&*place.tenant)
            .bind(&*place.collection)
            .bind(after)
            .bind(number(prefix.chars().count()))
            .bind(prefix)
            .bind(number(limit))
            .fetch_all(self.database.read())
            .await?;
        rows.iter().map(summary).collect()
    }

    /// Which of `ids` there were, and the collection's version and age.
    pub async fn delete_documents(
        &self,
        place: &Place,
        ids: Vec<String>,
    ) -> Result<(Vec<String>, Replaced), Error> {
        let place = place.clone();
        self.database
            .write(move |connection| {
                Box::pin(async move {
                    let head = demand(connection, &place).await?;
                    let mut gone = Vec::new();
                    for id in ids {
                        chunks::delete(connection, &place, &id).await?;
                        if delete(connection, &place, &id).await? {
                            gone.push(id);
                        }
                    }
                    let version = if gone.is_empty() {
                        head.version
                    } else {
                        advance(connection, &place).await?
                    };
                    Ok((gone, Replaced { version, created_at: head.created_at }))
                })
            })
            .await
    }
}

/// The version to store, unless a newer one is there.
async fn outranked(
    connection: &mut AnyConnection,
    place: &Place,
    id: &str,
    sent: i64,
) -> Result<i64, Error> {
    let row = sqlx::query(
        "SELECT writer_version FROM retrieval_documents \
         WHERE tenant = $1 AND collection = $2 AND id = $3",
    )
    .bind(&*place.tenant)
    .bind(&*place.collection)
    .bind(id)
    .fetch_optional(connection)
    .await?;
    let stored: i64 = row.map(|row| row.try_get("writer_version")).transpose()?.unwrap_or(0);
    if sent > 0 && sent < stored {
        return Err(Error::Stale { id: id.to_owned(), stored, sent });
    }
    Ok(stored.max(sent))
}

async fn write(
    connection: &mut AnyConnection,
    place: &Place,
    new: &Prepared,
    version: i64,
) -> Result<(), Error> {
    let Prepared { document, sha256, fingerprint, chunks } = new;
    delete(connection, place, &document.id).await?;
    sqlx::query(
        "INSERT INTO retrieval_documents (tenant, collection, id, title, text, format, metadata, \
         source, writer_version, sha256, fingerprint, chunks, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(&*place.tenant)
    .bind(&*place.collection)
    .bind(document.id.as_str())
    .bind(document.title.as_str())
    .bind(document.text.as_str())
    .bind(document.format.name())
    .bind(document.metadata.as_str())
    .bind(document.source.as_str())
    .bind(version)
    .bind(sha256.as_str())
    .bind(fingerprint.as_str())
    .bind(number(chunks.len()))
    .bind(clock::now_micros())
    .execute(connection)
    .await?;
    Ok(())
}

async fn delete(connection: &mut AnyConnection, place: &Place, id: &str) -> Result<bool, Error> {
    let done = sqlx::query(
        "DELETE FROM retrieval_documents WHERE tenant = $1 AND collection = $2 AND id = $3",
    )
    .bind(&*place.tenant)
    .bind(&*place.collection)
    .bind(id)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

fn summary(row: &AnyRow) -> Result<Summary, Error> {
    Ok(Summary {
        id: row.try_get("id")?,
        title: row.try_get("title")?,
        version: row.try_get("writer_version")?,
        chunks: row.try_get("chunks")?,
        sha256: row.try_get("sha256")?,
        updated_at: row.try_get("updated_at")?,
    })
}
