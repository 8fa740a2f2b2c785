//! Threads, runs and the event log, in SQLite or Postgres.
//!
//! Invariants:
//! - every statement names the tenant: there is no way to another's rows;
//! - `seq` is dense per thread and follows the order of commits: it is taken from
//!   the thread's row in the transaction that writes the event;
//! - whoever leads a run holds the thread's `lease_epoch`; a write with an older
//!   one is refused ([`Error::Fenced`]);
//! - a `request_id` is claimed in the transaction that makes the run.

mod admit;
mod page;
mod rows;
mod schema;

pub use admit::{Admitted, Claim};
pub use page::{Cursor, EVENTS_AT_ONCE, text};
pub use rows::{Work, timestamp};

use crate::error::Error;
use crate::fold;
use mesh::clock::now_micros;
use mesh::database::Database;
use prost::Message as _;
use rows::{NEXT_SEQ_UNDER_LEASE, insert_event, status_number};
use skein_proto::agent::v1::{CancelMode, Run, RunEvent, RunStatus, Thread};
use sqlx::Row as _;
use std::sync::Arc;

pub const MIGRATIONS: &[mesh::database::Migration] = schema::MIGRATIONS;

/// The right to write to a thread on behalf of one run, until somebody takes a
/// newer epoch.
#[derive(Clone, Debug)]
pub struct Lease {
    pub tenant: Arc<str>,
    pub thread_id: Arc<str>,
    pub run_id: Arc<str>,
    pub epoch: i64,
}

#[derive(Clone)]
pub struct Store {
    database: Database,
}

impl Store {
    pub const fn new(database: Database) -> Self {
        Self { database }
    }

    pub async fn thread(&self, tenant: &str, id: &str) -> Result<Thread, Error> {
        let sql = "SELECT id, created_at, last_seq, metadata FROM router_thread \
                   WHERE tenant = $1 AND id = $2";
        let row = sqlx::query(sql)
            .bind(tenant)
            .bind(id)
            .fetch_optional(&mut *self.database.reader().await?)
            .await?
            .ok_or_else(|| Error::ThreadNotFound(id.to_owned()))?;
        rows::thread(&row)
    }

    /// Removes a thread with everything in it; `false` if there was none.
    pub async fn delete_thread(&self, tenant: &str, id: &str) -> Result<bool, Error> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.database
            .write(move |tx| {
                Box::pin(async move {
                    // The thread's row first: it is what admissions lock too.
                    let deleted =
                        sqlx::query("DELETE FROM router_thread WHERE tenant = $1 AND id = $2")
                            .bind(&tenant)
                            .bind(&id)
                            .execute(&mut *tx)
                            .await?;
                    let open = "SELECT id FROM router_run WHERE tenant = $1 AND thread_id = $2 \
                                AND status IN (1, 2, 3) LIMIT 1";
                    let open = sqlx::query(open).bind(&tenant).bind(&id);
                    if open.fetch_optional(&mut *tx).await?.is_some() {
                        return Err(Error::ThreadBusy(id));
                    }
                    for sql in [
                        "DELETE FROM router_event WHERE tenant = $1 AND thread_id = $2",
                        "DELETE FROM router_run WHERE tenant = $1 AND thread_id = $2",
                    ] {
                        sqlx::query(sql).bind(&tenant).bind(&id).execute(&mut *tx).await?;
                    }
                    Ok(deleted.rows_affected() > 0)
                })
            })
            .await
    }

    /// A run as its events tell it.
    pub async fn run(&self, tenant: &str, id: &str) -> Result<Run, Error> {
        let sql = "SELECT id, thread_id, result FROM router_run WHERE tenant = $1 AND id = $2";
        let row = sqlx::query(sql)
            .bind(tenant)
            .bind(id)
            .fetch_optional(&mut *self.database.reader().await?)
            .await?
            .ok_or_else(|| Error::RunNotFound(id.to_owned()))?;
        self.told(tenant, &row).await
    }

    /// The stored result of a run that has ended, or the story so far.
    async fn told(&self, tenant: &str, row: &sqlx::any::AnyRow) -> Result<Run, Error> {
        if let Some(run) = rows::result(row)? {
            return Ok(run);
        }
        let mut run = fold::new_run(&row.try_get::<String, _>("id")?, row.try_get("thread_id")?);
        let sql = "SELECT seq, payload FROM router_event \
                   WHERE tenant = $1 AND run_id = $2 ORDER BY seq";
        let events = sqlx::query(sql).bind(tenant).bind(run.id.clone());
        for row in events.fetch_all(&mut *self.database.reader().await?).await? {
            fold::apply(&mut run, &rows::event(&row)?);
        }
        Ok(run)
    }

    /// Makes a queued run this process's own, under a new epoch. Answers how it
    /// is to be cancelled, if it is.
    pub async fn start(
        &self,
        work: &Work,
        owner: &str,
        mut event: RunEvent,
    ) -> Result<(Lease, CancelMode), Error> {
        let (tenant, run_id) = (work.tenant.to_string(), work.run_id.to_string());
        let (thread_id, owner) = (work.thread_id.to_string(), owner.to_owned());
        let (epoch, cancel) = self
            .database
            .write::<_, Error, _>(move |tx| {
                Box::pin(async move {
                    let sql = "UPDATE router_thread SET lease_epoch = lease_epoch + 1, \
                               last_seq = last_seq + 1 WHERE tenant = $1 AND id = $2 \
                               RETURNING last_seq, lease_epoch";
                    let row = sqlx::query(sql)
                        .bind(&tenant)
                        .bind(&thread_id)
                        .fetch_optional(&mut *tx)
                        .await?
                        .ok_or(Error::Fenced)?;
                    let (seq, epoch): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
                    let sql = "UPDATE router_run SET status = 2, owner = $3 \
                               WHERE tenant = $1 AND id = $2 AND status = 1 RETURNING cancel";
                    let row = sqlx::query(sql)
                        .bind(&tenant)
                        .bind(&run_id)
                        .bind(owner)
                        .fetch_optional(&mut *tx)
                        .await?
                        .ok_or(Error::Fenced)?;
                    rows::stamp(&mut event, seq, epoch);
                    insert_event(tx, &tenant, &thread_id, &event).await?;
                    Ok((epoch, rows::cancel_mode(row.try_get("cancel")?)))
                })
            })
            .await?;
        let (tenant, thread_id) = (Arc::clone(&work.tenant), Arc::clone(&work.thread_id));
        Ok((Lease { tenant, thread_id, run_id: Arc::clone(&work.run_id), epoch }, cancel))
    }

    /// Ends a run that nobody has started. The thread's lease is another run's
    /// and stays so. `false` if somebody has started it after all.
    pub async fn withdraw(
        &self,
        work: &Work,
        mut event: RunEvent,
        run: Run,
    ) -> Result<bool, Error> {
        let (tenant, run_id) = (work.tenant.to_string(), work.run_id.to_string());
        let thread_id = work.thread_id.to_string();
        let withdrawn = self
            .database
            .write::<_, Error, _>(move |tx| {
                Box::pin(async move {
                    let sql = "UPDATE router_thread SET last_seq = last_seq + 1 \
                               WHERE tenant = $1 AND id = $2 RETURNING last_seq, lease_epoch";
                    let row = sqlx::query(sql).bind(&tenant).bind(&thread_id);
                    let row = row.fetch_optional(&mut *tx).await?.ok_or(Error::Fenced)?;
                    rows::stamp(&mut event, row.try_get(0)?, row.try_get(1)?);
                    let sql = "UPDATE router_run SET status = $3, result = $4, finished_at = $5 \
                               WHERE tenant = $1 AND id = $2 AND status = 1";
                    let ended = sqlx::query(sql)
                        .bind(&tenant)
                        .bind(run_id)
                        .bind(status_number(run.status()))
                        .bind(run.encode_to_vec())
                        .bind(now_micros())
                        .execute(&mut *tx)
                        .await?;
                    if ended.rows_affected() == 0 {
                        return Err(Error::Fenced);
                    }
                    insert_event(tx, &tenant, &thread_id, &event).await?;
                    Ok(event.seq)
                })
            })
            .await;
        match withdrawn {
            Ok(_) => Ok(true),
            Err(Error::Fenced) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes a run from whoever led it: their writes are refused from now on.
    pub async fn take_over(&self, work: &Work) -> Result<Lease, Error> {
        let (tenant, thread_id) = (work.tenant.to_string(), work.thread_id.to_string());
        let epoch = self
            .database
            .write::<i64, Error, _>(move |tx| {
                Box::pin(async move {
                    let sql = "UPDATE router_thread SET lease_epoch = lease_epoch + 1 \
                               WHERE tenant = $1 AND id = $2 RETURNING lease_epoch";
                    let row = sqlx::query(sql).bind(tenant).bind(thread_id);
                    Ok(row.fetch_optional(tx).await?.ok_or(Error::Fenced)?.try_get(0)?)
                })
            })
            .await?;
        let (tenant, thread_id) = (Arc::clone(&work.tenant), Arc::clone(&work.thread_id));
        Ok(Lease { tenant, thread_id, run_id: Arc::clone(&work.run_id), epoch })
    }

    /// Commits events in order, and with the last of a run its result. Gives the
    /// events back with their `seq`.
    pub async fn append(
        &self,
        lease: &Lease,
        mut events: Vec<RunEvent>,
        result: Option<Run>,
    ) -> Result<Vec<RunEvent>, Error> {
        let lease = lease.clone();
        self.database
            .write(move |tx| {
                Box::pin(async move {
                    let (tenant, thread) = (lease.tenant.to_string(), lease.thread_id.to_string());
                    let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
                    let row = sqlx::query(NEXT_SEQ_UNDER_LEASE)
                        .bind(&tenant)
                        .bind(&thread)
                        .bind(lease.epoch)
                        .bind(count)
                        .fetch_optional(&mut *tx)
                        .await?
                        .ok_or(Error::Fenced)?;
                    let mut seq = row.try_get::<i64, _>(0)? - count;
                    for event in &mut events {
                        seq += 1;
                        rows::stamp(event, seq, lease.epoch);
                        insert_event(tx, &tenant, &thread, event).await?;
                    }
                    if let Some(run) = result {
                        let sql = "UPDATE router_run SET status = $3, result = $4, finished_at = $5 \
                                   WHERE tenant = $1 AND id = $2 AND status IN (1, 2, 3)";
                        sqlx::query(sql)
                            .bind(&tenant)
                            .bind(lease.run_id.to_string())
                            .bind(status_number(run.status()))
                            .bind(run.encode_to_vec())
                            .bind(now_micros())
                            .execute(tx)
                            .await?;
                    }
                    Ok(events)
                })
            })
            .await
    }

    /// Records the wish to end a run; whoever leads it will see it. Does nothing
    /// to a run that has ended.
    pub async fn cancel(&self, tenant: &str, id: &str, mode: CancelMode) -> Result<(), Error> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        let mode = i64::from(i32::from(mode).max(i32::from(CancelMode::Interrupt)));
        self.database
            .write(move |tx| {
                Box::pin(async move {
                    let sql = "UPDATE router_run SET cancel = $3 \
                               WHERE tenant = $1 AND id = $2 AND status IN (1, 2, 3)";
                    sqlx::query(sql).bind(tenant).bind(id).bind(mode).execute(tx).await?;
                    Ok(())
                })
            })
            .await
    }

    /// Which of these runs are to be cancelled.
    pub async fn cancelled(&self, runs: &[(Arc<str>, Arc<str>)]) -> Result<Vec<Arc<str>>, Error> {
        let mut found = Vec::new();
        let sql = "SELECT cancel FROM router_run WHERE tenant = $1 AND id = $2 AND cancel > 0";
        for (tenant, id) in runs {
            let row = sqlx::query(sql).bind(tenant.to_string()).bind(id.to_string());
            if row.fetch_optional(&mut *self.database.reader().await?).await?.is_some() {
                found.push(Arc::clone(id));
            }
        }
        Ok(found)
    }

    /// Runs that had not ended and belonged to `owner`. On SQLite there is one
    /// machine, so whatever has not ended was its own.
    pub async fn unfinished(&self, owner: &str) -> Result<Vec<(Work, RunStatus)>, Error> {
        let alone = self.database.dialect() == mesh::database::Dialect::Sqlite;
        let sql = "SELECT tenant, id, thread_id, principal, call_request_id, request, status \
                   FROM router_run WHERE status IN (1, 2, 3) AND (owner = $1 OR $2 = 1) \
                   ORDER BY tenant, thread_id, first_seq";
        let rows = sqlx::query(sql).bind(owner).bind(i64::from(alone));
        let rows = rows.fetch_all(&mut *self.database.reader().await?).await?;
        rows.iter()
            .map(|row| Ok((rows::work(row)?, rows::status(row.try_get("status")?))))
            .collect()
    }
}
