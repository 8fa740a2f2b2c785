//! `mesh::database`: the same promises on SQLite and on a real Postgres.
#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

use futures_util::future::join_all;
use mesh::database::{Database, DatabaseError, ErrorKind, Migration, Sql, sqlite_url};
use sqlx::Row as _;
use std::sync::Arc;
use tokio::sync::Notify;

const FIRST: Migration = Migration {
    version: 1,
    name: "things",
    sql: &[
        Sql::Both(
            "CREATE TABLE test_thing (tenant TEXT NOT NULL, id BIGINT NOT NULL, bytes BLOB, \
             note TEXT, weight DOUBLE PRECISION, PRIMARY KEY (tenant, id))",
        ),
        Sql::Both("CREATE TABLE test_counter (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)"),
        Sql::Each {
            sqlite: "INSERT INTO test_counter VALUES (1, 0)",
            postgres: "INSERT INTO test_counter VALUES (1, 0) ON CONFLICT DO NOTHING",
        },
    ],
};
const SECOND: Migration = Migration {
    version: 2,
    name: "colour",
    sql: &[Sql::Both("ALTER TABLE test_thing ADD COLUMN colour TEXT")],
};
const OLD: &[Migration] = &[FIRST];
const NEW: &[Migration] = &[FIRST, SECOND];
const BROKEN: &[Migration] =
    &[FIRST, Migration { version: 2, name: "broken", sql: &[Sql::Both("CREATE TABEL x (y)")] }];
const FOREIGN: &[Migration] = &[Migration { version: 1, name: "other", sql: &[] }];

/// A URL of an empty database per dialect; the folder lives as long as the test.
fn urls() -> (tempfile::TempDir, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let mut urls = vec![sqlite_url(&folder.path().join("new folder/ä+%41.db"))];
    urls.extend(pg_test::fresh_database());
    (folder, urls)
}

async fn opened() -> (tempfile::TempDir, Vec<Database>) {
    let (folder, urls) = urls();
    let mut databases = Vec::new();
    for url in &urls {
        databases.push(Database::open(url, "test", NEW).await.unwrap());
    }
    (folder, databases)
}

async fn put(database: &Database, id: i64) -> Result<(), DatabaseError> {
    database
        .write(move |tx| {
            Box::pin(async move {
                sqlx::query("INSERT INTO test_thing (tenant, id) VALUES ($1, $2)")
                    .bind("t")
                    .bind(id)
                    .execute(tx)
                    .await?;
                Ok(())
            })
        })
        .await
}

async fn count(database: &Database) -> i64 {
    sqlx::query("SELECT COUNT(*) FROM test_thing").fetch_one(database.read()).await.unwrap().get(0)
}

#[tokio::test]
async fn every_type_comes_back_as_it_went_in() {
    let (_folder, databases) = opened().await;
    for database in databases {
        let bytes = vec![0_u8, 255, 1, b'\''];
        let sent = bytes.clone();
        database
            .write::<_, DatabaseError, _>(move |tx| {
                Box::pin(async move {
                    let sql = "INSERT INTO test_thing (tenant, id, bytes, note, weight) \
                               VALUES ($1, $2, $3, $4, $5)";
                    for (id, bytes, note, weight) in [
                        (i64::MAX, Some(sent), Some("雁 \u{10FFFF}"), Some(0.1_f64)),
                        (i64::MIN, None, None, None),
                    ] {
                        sqlx::query(sql)
                            .bind("t")
                            .bind(id)
                            .bind(bytes)
                            .bind(note)
                            .bind(weight)
                            .execute(&mut *tx)
                            .await?;
                    }
                    Ok(())
                })
            })
            .await
            .unwrap();
        let rows = sqlx::query("SELECT id, bytes, note, weight FROM test_thing ORDER BY id DESC")
            .fetch_all(database.read())
            .await
            .unwrap();
        assert_eq!(rows[0].get::<i64, _>("id"), i64::MAX);
        assert_eq!(rows[0].get::<Vec<u8>, _>("bytes"), bytes);
        assert_eq!(rows[0].get::<String, _>("note"), "雁 \u{10FFFF}");
        assert_eq!(rows[0].get::<Option<f64>, _>("weight"), Some(0.1));
        assert_eq!(rows[1].get::<i64, _>("id"), i64::MIN);
        assert_eq!(rows[1].get::<Option<Vec<u8>>, _>("bytes"), None);
        assert_eq!(rows[1].get::<Option<String>, _>("note"), None);
        assert_eq!(rows[1].get::<Option<f64>, _>("weight"), None);
    }
}

#[tokio::test]
async fn a_failed_transaction_leaves_nothing_and_says_conflict() {
    let (_folder, databases) = opened().await;
    for database in databases {
        put(&database, 1).await.unwrap();
        let twice = database
            .write::<(), DatabaseError, _>(|tx| {
                Box::pin(async move {
                    for id in [2_i64, 1] {
                        sqlx::query("INSERT INTO test_thing (tenant, id) VALUES ($1, $2)")
                            .bind("t")
                            .bind(id)
                            .execute(&mut *tx)
                            .await?;
                    }
                    Ok(())
                })
            })
            .await
            .unwrap_err();
        assert_eq!(twice.kind(), ErrorKind::Conflict, "{twice}");
        assert_eq!(count(&database).await, 1);
    }
}

#[tokio::test]
async fn a_caller_that_leaves_neither_stops_nor_poisons_a_transaction() {
    let (_folder, databases) = opened().await;
    for database in databases {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let writer = database.clone();
        let signals = (Arc::clone(&begun), Arc::clone(&go_on));
        let caller = tokio::spawn(async move {
            writer
                .write::<(), DatabaseError, _>(move |tx| {
                    Box::pin(async move {
                        sqlx::query("INSERT INTO test_thing (tenant, id) VALUES ('t', 1)")
                            .execute(tx)
                            .await?;
                        signals.0.notify_one();
                        signals.1.notified().await;
                        Ok(())
                    })
                })
                .await
        });
        begun.notified().await;
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        go_on.notify_one();
        // The same row: this waits for the first transaction to have ended.
        let second = put(&database, 1).await.unwrap_err();
        assert_eq!(second.kind(), ErrorKind::Conflict);
        assert_eq!(count(&database).await, 1);
    }
}

#[tokio::test]
async fn a_panic_in_a_transaction_rolls_it_back() {
    let (_folder, databases) = opened().await;
    for database in databases {
        let error = database
            .write::<(), DatabaseError, _>(|tx| {
                Box::pin(async move {
                    sqlx::query("INSERT INTO test_thing (tenant, id) VALUES ('t', 1)")
                        .execute(tx)
                        .await?;
                    panic!("on purpose")
                })
            })
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        put(&database, 1).await.unwrap();
        assert_eq!(count(&database).await, 1);
    }
}

#[tokio::test]
async fn concurrent_writers_lose_no_update() {
    let (_folder, databases) = opened().await;
    for database in databases {
        let bump = || async {
            database
                .write::<i64, DatabaseError, _>(|tx| {
                    Box::pin(async move {
                        let sql = "UPDATE test_counter SET n = n + 1 WHERE id = 1 RETURNING n";
                        Ok(sqlx::query(sql).fetch_one(tx).await?.try_get("n")?)
                    })
                })
                .await
                .unwrap()
        };
        let mut seen = join_all((0..200).map(|_| bump())).await;
        seen.sort_unstable();
        assert_eq!(seen, (1..=200).collect::<Vec<i64>>());
    }
}

#[tokio::test]
async fn the_read_side_of_sqlite_cannot_write() {
    let (_folder, databases) = opened().await;
    let refused = sqlx::query("DELETE FROM test_thing").execute(databases[0].read()).await;
    assert!(refused.unwrap_err().to_string().contains("readonly"));
}

#[tokio::test]
async fn many_machines_may_start_at_once() {
    let (_folder, urls) = urls();
    for url in &urls {
        let opened = join_all((0..8).map(|_| Database::open(url, "test", NEW))).await;
        let mut stored = 0;
        for database in opened {
            stored += usize::from(put(&database.unwrap(), 1).await.is_ok());
        }
        assert_eq!(stored, 1, "they all opened the same tables");
    }
}

#[tokio::test]
async fn the_previous_release_starts_on_the_next_ones_schema() {
    let (_folder, urls) = urls();
    for url in &urls {
        Database::open(url, "test", NEW).await.unwrap().close().await;
        let old = Database::open(url, "test", OLD).await.unwrap();
        put(&old, 1).await.unwrap();
        assert_eq!(count(&old).await, 1);
    }
}

#[tokio::test]
async fn a_broken_migration_changes_nothing() {
    let (_folder, urls) = urls();
    for url in &urls {
        let error = Database::open(url, "test", BROKEN).await.unwrap_err();
        assert!(error.to_string().to_lowercase().contains("syntax error"), "{error}");
        let mended = Database::open(url, "test", NEW).await.unwrap();
        put(&mended, 1).await.unwrap();
    }
}

#[tokio::test]
async fn another_apps_history_is_refused_and_another_prefix_is_not() {
    let (_folder, urls) = urls();
    for url in &urls {
        Database::open(url, "test", OLD).await.unwrap().close().await;
        let error = Database::open(url, "test", FOREIGN).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("\"things\""), "{error}");
        Database::open(url, "other", FOREIGN).await.unwrap();
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_unavailable_soon() {
    let away = "postgres://me:hush@127.0.0.1:1/app";
    let error = Database::open(away, "test", NEW).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().starts_with("open the database at 127.0.0.1:1: "), "{error}");
}
