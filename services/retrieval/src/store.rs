//! Where documents, chunks and vectors are kept, over SQL that SQLite and
//! Postgres both accept.
//!
//! Invariants:
//! - each write is one transaction and moves the collection's version on by one:
//!   readers see all of it or nothing;
//! - every statement is bound to a `Place`: tenant and collection;
//! - vectors of another model or length are refused, naming both.

mod chunks;
mod collections;
mod documents;
mod schema;

pub use chunks::{Loaded, Unembedded};
pub use collections::demand;
pub use documents::{Replaced, Stored};

use crate::error::Error;
use mesh::database::{Database, DatabaseError};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database,
}

impl Store {
    pub async fn open(url: &str) -> Result<Self, DatabaseError> {
        Ok(Self { database: Database::open(url, "retrieval", schema::MIGRATIONS).await? })
    }

    pub async fn close(&self) {
        self.database.close().await;
    }
}

/// A number of the database as a count or a position.
fn size(value: i64) -> Result<usize, Error> {
    usize::try_from(value).map_err(|_| DatabaseError::corrupt("a negative size").into())
}

/// What cannot overflow: a text is far below 2^63 bytes.
fn number(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
