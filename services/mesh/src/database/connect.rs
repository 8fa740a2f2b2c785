//! From a URL to the pools of one dialect; all that differs between the two.
//!
//! Invariants:
//! - a URL we cannot serve is refused with what to write instead, and without
//!   being repeated (it may hold a password);
//! - SQLite commits with synchronous FULL: a committed event or payment survives
//!   the loss of power, for 0.1 ms more than NORMAL;
//! - a Postgres connection that has idled is tested before it is used.

use super::{Database, DatabaseError};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Any, AnyConnection, AnyPool, Connection as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::{net::TcpStream, time::timeout};

/// How long a call waits for a connection: less than most deadlines, and enough to
/// make one across an ocean, which takes seven round trips (1.2 s at 170 ms).
pub(super) const ACQUIRE: Duration = Duration::from_secs(5);
/// How long making one may take: whoever asked first need not be who uses it.
const CONNECT: Duration = Duration::from_secs(30);
const POSTGRES_CONNECTIONS: u32 = 16;
/// Kept open, so that a quiet hour does not end with those round trips.
const POSTGRES_WARM: u32 = 4;
const SQLITE_READERS: u32 = 4;
/// A connection used this recently is not tested again before use.
const TRUSTED: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    pub(super) const fn begin(self) -> &'static str {
        match self {
            // The writer's lock at once: a transaction that read first and then
            // wants to write could only fail.
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }
}

/// The URL of a SQLite file, for a service that is given a data directory.
pub fn sqlite_url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

pub(super) async fn open(url: &str) -> Result<Database, DatabaseError> {
    sqlx::any::install_default_drivers();
    if let Some(rest) = url.strip_prefix("sqlite:") {
        sqlite(rest).await
    } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        postgres(url).await
    } else {
        Err(DatabaseError::configuration(
            "the database URL is neither sqlite:<path> nor postgres://<user>@<host>/<database>",
        ))
    }
}

async fn sqlite(rest: &str) -> Result<Database, DatabaseError> {
    let path = sqlite_path(rest)?;
    if let Some(folder) = path.parent() {
        tokio::fs::create_dir_all(folder).await.map_err(|error| {
            DatabaseError::unavailable(format!("create {}: {error}", folder.display()))
        })?;
    }
    let options = sqlite_options(&path)?;
    let writer = AnyPoolOptions::new()
        .max_connections(1)
        .min_connections(1)
        .acquire_timeout(ACQUIRE)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .after_connect(|connection, _| {
            let setup = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                         PRAGMA busy_timeout = 2000; PRAGMA foreign_keys = ON; \
                         PRAGMA journal_size_limit = 67108864";
            Box::pin(run(connection, setup))
        })
        .connect_with(options.clone())
        .await
        .map_err(|error| at(&path.display().to_string(), error))?;
    let reader = AnyPoolOptions::new()
        .max_connections(SQLITE_READERS)
        .acquire_timeout(ACQUIRE)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .after_connect(|connection, _| Box::pin(run(connection, "PRAGMA query_only = ON")))
        .connect_lazy_with(options);
    Ok(Database { dialect: Dialect::Sqlite, writer, reader })
}

/// `sqlite:data/x.db`, `sqlite:/data/x.db` and `sqlite:///data/x.db` alike.
fn sqlite_path(rest: &str) -> Result<PathBuf, DatabaseError> {
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let path = rest.strip_suffix("?mode=rwc").unwrap_or(rest);
    if path.is_empty() || path.contains(":memory:") || path.contains('?') {
        return Err(DatabaseError::configuration(
            "a SQLite URL is sqlite:<path of a file>, without parameters",
        ));
    }
    std::path::absolute(path)
        .map_err(|error| DatabaseError::unavailable(format!("resolve {path}: {error}")))
}

fn sqlite_options(path: &Path) -> Result<AnyConnectOptions, DatabaseError> {
    let mut url = String::from("sqlite://");
    for byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-~".contains(byte) {
            url.push(char::from(*byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url.push_str("?mode=rwc");
    Ok(url.parse::<AnyConnectOptions>()?)
}

async fn postgres(url: &str) -> Result<Database, DatabaseError> {
    if url.contains("pooler=transaction") {
        return Err(DatabaseError::configuration(
            "pooler=transaction is not supported yet: give the URL of a direct connection or of \
             a session pooler",
        ));
    }
    let parsed: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| {
        DatabaseError::configuration(format!("the postgres URL is not valid: {error}"))
    })?;
    let place = format!("{}:{}", parsed.get_host(), parsed.get_port());
    reached(&parsed).await.map_err(|error| at(&place, error))?;
    let pool = AnyPoolOptions::new()
        .max_connections(POSTGRES_CONNECTIONS)
        .min_connections(POSTGRES_WARM)
        .acquire_timeout(CONNECT)
        .test_before_acquire(false)
        .before_acquire(|connection, used| {
            Box::pin(async move {
                if used.idle_for > TRUSTED {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .after_connect(|connection, _| {
            // Dropping a query does not stop it there: let the server do it.
            let setup = "SET statement_timeout = '30s'; \
                         SET idle_in_transaction_session_timeout = '30s'";
            Box::pin(run(connection, setup))
        })
        .connect_lazy_with(url.parse::<AnyConnectOptions>()?);
    // A start has more time than a call: the pool's own.
    pool.acquire().await.map_err(|error| at(&place, error))?;
    Ok(Database { dialect: Dialect::Postgres, writer: pool.clone(), reader: pool })
}

/// A connection of the pool. On Postgres one that is being made is made even if
/// its caller leaves: across an ocean it takes seconds on a bad day, and callers
/// that give up one after the other would never get one.
pub(super) async fn acquire(
    pool: &AnyPool,
    dialect: Dialect,
) -> Result<PoolConnection<Any>, sqlx::Error> {
    if dialect == Dialect::Sqlite {
        return pool.acquire().await;
    }
    let pool = pool.clone();
    let acquiring = tokio::spawn(async move { pool.acquire().await });
    match timeout(ACQUIRE, acquiring).await {
        Ok(acquired) => acquired.unwrap_or(Err(sqlx::Error::PoolClosed)),
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

/// Fails at once where nobody listens, which a pool would go on trying.
async fn reached(options: &PgConnectOptions) -> Result<(), sqlx::Error> {
    if options.get_socket().is_some() {
        return Ok(());
    }
    let connecting = TcpStream::connect((options.get_host(), options.get_port()));
    let connected = timeout(CONNECT, connecting).await.map_err(|_| sqlx::Error::PoolTimedOut)?;
    Ok(connected.map(drop)?)
}

async fn run(connection: &mut AnyConnection, setup: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(setup).execute(connection).await.map(drop)
}

fn at(place: &str, error: sqlx::Error) -> DatabaseError {
    DatabaseError::from(error).during(&format!("open the database at {place}"))
}

#[cfg(test)]
mod tests {
    use super::{open, sqlite_path};

    #[test]
    fn a_sqlite_url_names_a_file() {
        for url in ["/data/x.db", "///data/x.db", "/data/x.db?mode=rwc"] {
            assert_eq!(sqlite_path(url).unwrap().to_str(), Some("/data/x.db"), "{url}");
        }
        assert!(sqlite_path("data/x.db").unwrap().is_absolute());
        for url in ["", "//", ":memory:", "x.db?cache=shared"] {
            assert!(sqlite_path(url).is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn no_error_repeats_a_password() {
        for url in [
            "mysql://me:hush@db/app",
            "postgres://me:hush@db:port/app",
            "postgres://me:hush@127.0.0.1:1/app?sslmode=hush",
            "postgres://me:hush@db/app?pooler=transaction",
        ] {
            let text = open(url).await.unwrap_err().to_string();
            assert!(!text.contains("hush@"), "{text}");
        }
    }
}
