//! Brings an app's tables up to date when it starts.
//!
//! Invariants:
//! - any number of machines may start at once: one migrates, the others wait for
//!   its lock and then find nothing to do;
//! - all outstanding migrations commit together or not at all;
//! - a version that this release does not know is left alone, so the previous
//!   release starts on the next one's schema;
//! - a known version recorded under another name is refused: the database is not
//!   this app's, or history was rewritten.

use super::{Database, DatabaseError, Dialect};
use crate::clock;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};

/// One step of a schema, never changed after its release.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Ascending within an app.
    pub version: i64,
    pub name: &'static str,
    pub sql: &'static [Sql],
}

/// One statement of a migration.
#[derive(Clone, Copy, Debug)]
pub enum Sql {
    /// The same in both dialects; the type `BLOB` becomes Postgres's `BYTEA`.
    Both(&'static str),
    Each {
        sqlite: &'static str,
        postgres: &'static str,
    },
}

impl Sql {
    fn text(self, dialect: Dialect) -> String {
        match (self, dialect) {
            (Self::Both(sql), Dialect::Postgres) => sql.replace(" BLOB", " BYTEA"),
            (Self::Both(sql), Dialect::Sqlite)
            | (Self::Each { sqlite: sql, .. }, Dialect::Sqlite) => sql.to_owned(),
            (Self::Each { postgres, .. }, Dialect::Postgres) => postgres.to_owned(),
        }
    }
}

pub(super) async fn run(
    database: &Database,
    prefix: &'static str,
    migrations: &'static [Migration],
) -> Result<(), DatabaseError> {
    check(prefix, migrations)?;
    let dialect = database.dialect();
    let applied = database
        .write::<_, DatabaseError, _>(move |connection| {
            Box::pin(async move {
                lock(connection, dialect, prefix).await?;
                apply(connection, dialect, prefix, migrations).await
            })
        })
        .await?;
    if applied > 0 {
        tracing::info!(prefix, applied, "database schema brought up to date");
    }
    Ok(())
}

fn check(prefix: &str, migrations: &[Migration]) -> Result<(), DatabaseError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    if prefix.is_empty() || !prefix.bytes().all(plain) {
        return Err(DatabaseError::configuration(format!("table prefix {prefix:?} is not a-z, _")));
    }
    if !migrations.is_sorted_by(|one, next| one.version < next.version) {
        return Err(DatabaseError::configuration(format!("{prefix}: migrations out of order")));
    }
    Ok(())
}

/// SQLite's writer holds its lock since BEGIN IMMEDIATE; Postgres has one lock an
/// app, given back by COMMIT.
async fn lock(
    connection: &mut AnyConnection,
    dialect: Dialect,
    prefix: &str,
) -> Result<(), DatabaseError> {
    if dialect == Dialect::Postgres {
        sqlx::query("SELECT pg_advisory_xact_lock(hashtext($1))")
            .bind(format!("{prefix}_migrations"))
            .execute(connection)
            .await?;
    }
    Ok(())
}

async fn apply(
    connection: &mut AnyConnection,
    dialect: Dialect,
    prefix: &str,
    migrations: &[Migration],
) -> Result<usize, DatabaseError> {
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {prefix}_migrations \
         (version BIGINT PRIMARY KEY, name TEXT NOT NULL, applied_at BIGINT NOT NULL)"
    );
    sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *connection).await?;
    let mut applied = 0;
    for migration in migrations {
        if is_recorded(connection, prefix, migration).await? {
            continue;
        }
        for sql in migration.sql {
            sqlx::raw_sql(AssertSqlSafe(sql.text(dialect))).execute(&mut *connection).await?;
        }
        let insert = format!(
            "INSERT INTO {prefix}_migrations (version, name, applied_at) VALUES ($1, $2, $3)"
        );
        sqlx::query(AssertSqlSafe(insert))
            .bind(migration.version)
            .bind(migration.name)
            .bind(clock::now_micros())
            .execute(&mut *connection)
            .await?;
        applied += 1;
    }
    Ok(applied)
}

async fn is_recorded(
    connection: &mut AnyConnection,
    prefix: &str,
    migration: &Migration,
) -> Result<bool, DatabaseError> {
    let select = format!("SELECT name FROM {prefix}_migrations WHERE version = $1");
    let row = sqlx::query(AssertSqlSafe(select))
        .bind(migration.version)
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(false) };
    let name: String = row.try_get("name")?;
    if name == migration.name {
        return Ok(true);
    }
    Err(DatabaseError::configuration(format!(
        "{prefix}: migration {} is {name:?} in the database but {:?} in this release: is this \
         the right database",
        migration.version, migration.name
    )))
}
