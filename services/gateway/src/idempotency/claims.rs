//! The claims and kept answers in the database.
//!
//! Invariants:
//! - A claim is taken by one statement; a lapsed one is taken over by the same.
//! - Only the owner of a claim can finish or release it.

use super::Fingerprint;
use mesh::{
    clock,
    database::{Database, DatabaseError, Migration, Sql},
};
use sqlx::{AnyConnection, Row as _, any::AnyRow};
use std::time::Duration;

pub const MIGRATION: Migration = Migration {
    version: 3,
    name: "idempotency",
    sql: &[
        Sql::Both(
            "CREATE TABLE gateway_idempotency (
                id TEXT PRIMARY KEY,
                hash BLOB NOT NULL,
                owner TEXT NOT NULL,
                state BIGINT NOT NULL,
                lapses_at BIGINT NOT NULL,
                status BIGINT NOT NULL DEFAULT 0,
                head TEXT NOT NULL DEFAULT '',
                body BLOB,
                trailers TEXT NOT NULL DEFAULT ''
            )",
        ),
        Sql::Both("CREATE INDEX gateway_idempotency_lapses ON gateway_idempotency (lapses_at)"),
    ],
};

const RUNNING: i64 = 0;
const KEPT: i64 = 1;
const NOT_KEPT: i64 = 2;
const SWEEP: Duration = Duration::from_secs(60);
/// Rows of one statement, so that no sweep holds the database for long.
const SLICE: i64 = 500;

/// An answer as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// As JSON, like the trailers: a list of names and values.
    pub head: String,
    pub body: Vec<u8>,
    pub trailers: String,
}

pub enum Found {
    /// Nobody had it; the name of the owner that we are now.
    Claimed(String),
    Running,
    OtherBody,
    NotKept,
    Done(Answer),
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Claims {
    database: Database,
    keep: Duration,
    pub longest: usize,
}

impl Claims {
    /// Answers up to `longest` bytes are kept for `keep`.
    pub const fn new(database: Database, keep: Duration, longest: usize) -> Self {
        Self { database, keep, longest }
    }

    /// Claims until `lapses`, or says who was quicker.
    pub async fn claim(&self, of: Fingerprint, lapses: i64) -> Result<Found, DatabaseError> {
        let owner = uuid::Uuid::new_v4().simple().to_string();
        let now = clock::now_micros();
        self.database
            .write(move |open| {
                Box::pin(async move {
                    let claimed = sqlx::query(
                        "INSERT INTO gateway_idempotency (id, hash, owner, state, lapses_at)
                         VALUES ($1, $2, $3, $4, $5)
                         ON CONFLICT (id) DO UPDATE SET hash = $2, owner = $3, state = $4,
                            lapses_at = $5, status = 0, head = '', body = NULL, trailers = ''
                         WHERE gateway_idempotency.lapses_at <= $6
                         RETURNING owner",
                    )
                    .bind(of.id.clone())
                    .bind(of.hash.clone())
                    .bind(owner.clone())
                    .bind(RUNNING)
                    .bind(lapses)
                    .bind(now)
                    .fetch_optional(&mut *open)
                    .await?;
                    if claimed.is_some() {
                        return Ok(Found::Claimed(owner));
                    }
                    look(open, of).await
                })
            })
            .await
    }

    /// Keeps the answer; `None`: it was too large.
    pub async fn finish(
        &self,
        id: String,
        owner: String,
        answer: Option<Answer>,
    ) -> Result<(), DatabaseError> {
        let keep = i64::try_from(self.keep.as_micros()).unwrap_or(i64::MAX);
        let lapses = clock::now_micros().saturating_add(keep);
        let state = if answer.is_some() { KEPT } else { NOT_KEPT };
        let answer = answer.unwrap_or_default();
        self.database
            .write(move |open| {
                Box::pin(async move {
                    sqlx::query(
                        "UPDATE gateway_idempotency SET state = $3, lapses_at = $4, status = $5,
                            head = $6, body = $7, trailers = $8
                         WHERE id = $1 AND owner = $2",
                    )
                    .bind(id)
                    .bind(owner)
                    .bind(state)
                    .bind(lapses)
                    .bind(i64::from(answer.status))
                    .bind(answer.head)
                    .bind(answer.body)
                    .bind(answer.trailers)
                    .execute(open)
                    .await?;
                    Ok::<_, DatabaseError>(())
                })
            })
            .await
    }

    /// As if the call had never been made.
    pub async fn release(&self, id: String, owner: String) -> Result<(), DatabaseError> {
        self.database
            .write(move |open| {
                Box::pin(async move {
                    sqlx::query(
                        "DELETE FROM gateway_idempotency
                         WHERE id = $1 AND owner = $2 AND state = $3",
                    )
                    .bind(id)
                    .bind(owner)
                    .bind(RUNNING)
                    .execute(open)
                    .await?;
                    Ok::<_, DatabaseError>(())
                })
            })
            .await
    }

    /// Removes what has lapsed, for ever.
    pub async fn sweep(self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            while let Ok(removed) = self.remove().await {
                if removed < SLICE.unsigned_abs() {
                    break;
                }
            }
        }
    }

    /// Removes some of what has lapsed; how much.
    pub async fn remove(&self) -> Result<u64, DatabaseError> {
        let now = clock::now_micros();
        let old = "SELECT 1 FROM gateway_idempotency WHERE lapses_at <= $1 LIMIT 1";
        // A look costs no write: most sweeps find nothing.
        if sqlx::query(old)
            .bind(now)
            .fetch_optional(&mut *self.database.reader().await?)
            .await?
            .is_none()
        {
            return Ok(0);
        }
        self.database
            .write(move |open| {
                Box::pin(async move {
                    let removed = sqlx::query(
                        "DELETE FROM gateway_idempotency WHERE id IN
                            (SELECT id FROM gateway_idempotency WHERE lapses_at <= $1 LIMIT $2)",
                    )
                    .bind(now)
                    .bind(SLICE)
                    .execute(open)
                    .await?;
                    Ok::<_, DatabaseError>(removed.rows_affected())
                })
            })
            .await
    }
}

async fn look(open: &mut AnyConnection, of: Fingerprint) -> Result<Found, DatabaseError> {
    let row = sqlx::query(
        "SELECT hash, state, status, head, body, trailers FROM gateway_idempotency WHERE id = $1",
    )
    .bind(of.id)
    .fetch_optional(open)
    .await?;
    // Released between the two statements: the next try finds it free.
    row.map_or(Ok(Found::Running), |row| read(&row, &of.hash))
}

fn read(row: &AnyRow, hash: &[u8]) -> Result<Found, DatabaseError> {
    let known: Vec<u8> = row.try_get("hash")?;
    if known != hash {
        return Ok(Found::OtherBody);
    }
    let state: i64 = row.try_get("state")?;
    Ok(match state {
        RUNNING => Found::Running,
        KEPT => {
            let status: i64 = row.try_get("status")?;
            let body: Option<Vec<u8>> = row.try_get("body")?;
            Found::Done(Answer {
                status: u16::try_from(status).unwrap_or(200),
                head: row.try_get("head")?,
                body: body.unwrap_or_default(),
                trailers: row.try_get("trailers")?,
            })
        }
        _ => Found::NotKept,
    })
}
