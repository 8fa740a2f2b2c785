//! Collections: their settings, their version, what they count.
//!
//! Invariants:
//! - the embedding model is fixed when a collection is made, the length of its
//!   vectors by the first one;
//! - deleting a collection takes everything in it along.

use super::{Store, number, size};
use crate::error::Error;
use crate::model::{Collection, Head, Place, Vectors};
use mesh::clock;
use mesh::database::DatabaseError;
use sqlx::AnyConnection;
use sqlx::any::AnyRow;
use sqlx::{AnyExecutor, Row as _};

const HEAD: &str = "SELECT model, vectors_of, dimensions, created_at, version \
                    FROM retrieval_collections WHERE tenant = $1 AND name = $2";
const COUNTED: &str = "SELECT c.name, c.model, c.vectors_of, c.dimensions, c.created_at, c.version, \
     (SELECT COUNT(*) FROM retrieval_documents d \
       WHERE d.tenant = c.tenant AND d.collection = c.name) AS documents, \
     (SELECT COUNT(*) FROM retrieval_chunks k \
       WHERE k.tenant = c.tenant AND k.collection = c.name) AS chunks, \
     (SELECT COUNT(*) FROM retrieval_chunks k \
       WHERE k.state = 0 AND k.tenant = c.tenant AND k.collection = c.name) AS pending \
     FROM retrieval_collections c WHERE c.tenant = $1";

impl Store {
    pub async fn head(&self, place: &Place) -> Result<Option<Head>, Error> {
        read_head(self.database.read(), place).await
    }

    /// The collection's settings; made with `model` if it is new.
    pub async fn create(&self, place: &Place, model: &str) -> Result<Head, Error> {
        let (place, model) = (place.clone(), model.to_owned());
        self.database
            .write(move |connection| {
                Box::pin(async move {
                    sqlx::query(
                        "INSERT INTO retrieval_collections \
                         (tenant, name, model, vectors_of, dimensions, created_at, version) \
                         VALUES ($1, $2, $3, '', 0, $4, 0) ON CONFLICT DO NOTHING",
                    )
                    .bind(&*place.tenant)
                    .bind(&*place.collection)
                    .bind(model)
                    .bind(clock::now_micros())
                    .execute(&mut *connection)
                    .await?;
                    demand(connection, &place).await
                })
            })
            .await
    }

    pub async fn collection(&self, place: &Place) -> Result<Option<Collection>, Error> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{COUNTED} AND c.name = $2")))
            .bind(&*place.tenant)
            .bind(&*place.collection)
            .fetch_optional(self.database.read())
            .await?;
        row.as_ref().map(counted).transpose()
    }

    pub async fn collections(&self, tenant: &str) -> Result<Vec<Collection>, Error> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{COUNTED} ORDER BY c.name")))
            .bind(tenant)
            .fetch_all(self.database.read())
            .await?;
        rows.iter().map(counted).collect()
    }

    /// Whether there was one.
    pub async fn delete_collection(&self, place: &Place) -> Result<bool, Error> {
        let place = place.clone();
        self.database
            .write(move |connection| {
                Box::pin(async move {
                    let mut existed = false;
                    for delete in [
                        "DELETE FROM retrieval_chunks WHERE tenant = $1 AND collection = $2",
                        "DELETE FROM retrieval_documents WHERE tenant = $1 AND collection = $2",
                        "DELETE FROM retrieval_collections WHERE tenant = $1 AND name = $2",
                    ] {
                        let done = sqlx::query(delete)
                            .bind(&*place.tenant)
                            .bind(&*place.collection)
                            .execute(&mut *connection)
                            .await?;
                        existed = done.rows_affected() > 0;
                    }
                    Ok(existed)
                })
            })
            .await
    }
}

async fn read_head<'c>(from: impl AnyExecutor<'c>, place: &Place) -> Result<Option<Head>, Error> {
    let row = sqlx::query(HEAD)
        .bind(&*place.tenant)
        .bind(&*place.collection)
        .fetch_optional(from)
        .await?;
    row.as_ref().map(head).transpose()
}

/// The settings of a collection that must be there.
pub async fn demand(connection: &mut AnyConnection, place: &Place) -> Result<Head, Error> {
    let found = read_head(&mut *connection, place).await?;
    found.ok_or_else(|| Error::NoCollection(place.collection.to_string()))
}

/// Moves the version on; in the transaction of the write that it counts.
pub(super) async fn advance(connection: &mut AnyConnection, place: &Place) -> Result<i64, Error> {
    let row = sqlx::query(
        "UPDATE retrieval_collections SET version = version + 1 \
         WHERE tenant = $1 AND name = $2 RETURNING version",
    )
    .bind(&*place.tenant)
    .bind(&*place.collection)
    .fetch_optional(connection)
    .await?;
    let row = row.ok_or_else(|| Error::NoCollection(place.collection.to_string()))?;
    Ok(row.try_get("version")?)
}

/// Takes vectors of this kind, or says why not.
pub(super) async fn accept(
    connection: &mut AnyConnection,
    place: &Place,
    head: &Head,
    sent: &Vectors,
) -> Result<(), Error> {
    match &head.vectors {
        Some(stored) if stored == sent => Ok(()),
        Some(stored) => Err(Error::OtherVectors {
            collection: place.collection.to_string(),
            stored: stored.to_string(),
            sent: sent.to_string(),
        }),
        None => {
            sqlx::query(
                "UPDATE retrieval_collections SET vectors_of = $1, dimensions = $2 \
                 WHERE tenant = $3 AND name = $4",
            )
            .bind(sent.model.as_str())
            .bind(number(sent.dimensions))
            .bind(&*place.tenant)
            .bind(&*place.collection)
            .execute(connection)
            .await?;
            Ok(())
        }
    }
}

fn head(row: &AnyRow) -> Result<Head, Error> {
    let dimensions = size(row.try_get("dimensions")?)?;
    let model: String = row.try_get("vectors_of")?;
    Ok(Head {
        model: row.try_get("model")?,
        vectors: (dimensions > 0).then_some(Vectors { model, dimensions }),
        created_at: row.try_get("created_at")?,
        version: row.try_get("version")?,
    })
}

fn counted(row: &AnyRow) -> Result<Collection, Error> {
    let collection = Collection {
        name: row.try_get("name").map_err(DatabaseError::from)?,
        head: head(row)?,
        documents: row.try_get("documents")?,
        chunks: row.try_get("chunks")?,
        pending: row.try_get("pending")?,
    };
    Ok(collection)
}
