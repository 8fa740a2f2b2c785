//! The one door to a service's database: SQLite on one machine, Postgres on many.
//!
//! Both are spoken to through sqlx's `Any` driver, so that a store is written
//! once: `$1` placeholders, RETURNING, ON CONFLICT, time as BIGINT microseconds,
//! JSON as TEXT, bytes as BLOB (see [`Sql`]). `Any` carries what that subset
//! needs (i64, f64, text, bytes, typed NULLs, `begin_with`); it has no BOOLEAN on
//! SQLite, so a flag is a BIGINT of 0 or 1.
//!
//! Invariants:
//! - a transaction runs to its end in a task of its own: a caller that goes away
//!   cannot leave a connection inside a dead transaction (gRPC drops handlers);
//! - SQLite has one writer per process, which takes its lock at BEGIN, and
//!   readers that cannot write; a commit is on the disk before it is reported;
//! - waiting for a connection ends after `connect::ACQUIRE`;
//! - migrations run once, under a lock, whole or not at all; what a newer release
//!   has added is left alone;
//! - no error text contains a URL or a password.

mod connect;
mod error;
mod migrate;

pub use connect::{Dialect, sqlite_url};
pub use error::{DatabaseError, ErrorKind};
pub use migrate::{Migration, Sql};

use futures_util::future::BoxFuture;
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, Connection as _};
use tracing::Instrument as _;

/// Cheap to clone: a handle to the pools.
#[derive(Clone, Debug)]
pub struct Database {
    dialect: Dialect,
    writer: AnyPool,
    reader: AnyPool,
}

impl Database {
    /// Opens `sqlite:<path>` (made if absent) or `postgres://…` and brings the
    /// tables of this app up to date. `prefix` is the app's own: it names the
    /// migrations table, since apps may share one database.
    pub async fn open(
        url: &str,
        prefix: &'static str,
        migrations: &'static [Migration],
    ) -> Result<Self, DatabaseError> {
        let database = connect::open(url).await?;
        migrate::run(&database, prefix, migrations).await?;
        Ok(database)
    }

    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// For single statements that only read; on SQLite it cannot write.
    pub const fn read(&self) -> &AnyPool {
        &self.reader
    }

    /// A connection for one such statement, for a database that may be far away:
    /// what is begun to connect to it is not given up with the call.
    pub async fn reader(&self) -> Result<PoolConnection<Any>, sqlx::Error> {
        connect::acquire(&self.reader, self.dialect).await
    }

    /// Runs `work` in a transaction: committed if it returns `Ok`, rolled back
    /// otherwise. Once it has begun it ends, whether or not the caller waits.
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
        F: for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
    {
        let connection = connect::acquire(&self.writer, self.dialect).await;
        let connection = connection.map_err(DatabaseError::from)?;
        let transaction = transaction(connection, self.dialect, work).in_current_span();
        tokio::spawn(transaction)
            .await
            .unwrap_or_else(|lost| Err(DatabaseError::lost(&lost).into()))
    }

    /// Closes every connection after its current statement.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

async fn transaction<T, E, F>(
    mut connection: PoolConnection<Any>,
    dialect: Dialect,
    work: F,
) -> Result<T, E>
where
    E: From<DatabaseError>,
    F: for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, Result<T, E>>,
{
    let mut open = connection.begin_with(dialect.begin()).await.map_err(DatabaseError::from)?;
    match work(&mut open).await {
        Ok(value) => {
            open.commit().await.map_err(DatabaseError::from)?;
            Ok(value)
        }
        Err(error) => {
            // The first failure is the one worth telling; a connection that
            // cannot roll back is tested and dropped by the pool.
            if let Err(rollback) = open.rollback().await {
                tracing::debug!(error = %DatabaseError::from(rollback), "roll back");
            }
            Err(error)
        }
    }
}
