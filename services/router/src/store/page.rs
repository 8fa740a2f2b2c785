//! Reading many: lists, events and the turns of a thread.
//!
//! Invariants:
//! - lists are newest first and keep their place while rows are added: a page
//!   token is the last row's age and id;
//! - a thread's past is made of completed runs alone: a turn counts whole or not
//!   at all.

use super::Store;
use super::rows::{self, number};
use crate::error::Error;
use prost::Message as _;
use skein_proto::agent::v1::{CreateRunRequest, Run, RunEvent, Thread};
use skein_proto::model::v1::{ContentPart, Message, Role, content_part};
use sqlx::Row as _;

/// The place after a row; the beginning is after everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub created_at: i64,
    pub id: String,
}

impl Default for Cursor {
    fn default() -> Self {
        Self { created_at: i64::MAX, id: String::new() }
    }
}

/// Fewer mean that there are no more.
pub const EVENTS_AT_ONCE: i64 = 256;
/// Turns of a thread that a model is shown.
const PAST_TURNS: i64 = 20;

impl Store {
    pub async fn threads(
        &self,
        tenant: &str,
        after: &Cursor,
        limit: i64,
    ) -> Result<(Vec<Thread>, Option<Cursor>), Error> {
        let sql = "SELECT id, created_at, last_seq, metadata FROM router_thread \
                   WHERE tenant = $1 AND (created_at < $2 OR (created_at = $2 AND id < $3)) \
                   ORDER BY created_at DESC, id DESC LIMIT $4";
        let rows = sqlx::query(sql)
            .bind(tenant)
            .bind(after.created_at)
            .bind(&after.id)
            .bind(limit)
            .fetch_all(&mut *self.database.reader().await?)
            .await?;
        let threads = rows.iter().map(rows::thread).collect::<Result<_, _>>()?;
        Ok((threads, next(&rows, limit)?))
    }

    /// `thread` empty: of every thread.
    pub async fn runs(
        &self,
        tenant: &str,
        thread: &str,
        after: &Cursor,
        limit: i64,
    ) -> Result<(Vec<Run>, Option<Cursor>), Error> {
        let sql = "SELECT id, thread_id, created_at, result FROM router_run \
                   WHERE tenant = $1 AND ($5 = '' OR thread_id = $5) \
                   AND (created_at < $2 OR (created_at = $2 AND id < $3)) \
                   ORDER BY created_at DESC, id DESC LIMIT $4";
        let rows = sqlx::query(sql)
            .bind(tenant)
            .bind(after.created_at)
            .bind(&after.id)
            .bind(limit)
            .bind(thread)
            .fetch_all(&mut *self.database.reader().await?)
            .await?;
        let mut runs = Vec::with_capacity(rows.len());
        for row in &rows {
            runs.push(self.told(tenant, row).await?);
        }
        Ok((runs, next(&rows, limit)?))
    }

    /// The next [`EVENTS_AT_ONCE`] committed events of a thread, or of one of its runs.
    pub async fn events(
        &self,
        tenant: &str,
        thread: &str,
        run: Option<&str>,
        after: u64,
    ) -> Result<Vec<RunEvent>, Error> {
        let sql = match run {
            None => {
                "SELECT payload FROM router_event WHERE tenant = $1 AND thread_id = $2 \
                 AND seq > $3 ORDER BY seq LIMIT $4"
            }
            Some(_) => {
                "SELECT payload FROM router_event WHERE tenant = $1 AND thread_id = $2 \
                 AND seq > $3 AND run_id = $5 ORDER BY seq LIMIT $4"
            }
        };
        let mut query =
            sqlx::query(sql).bind(tenant).bind(thread).bind(number(after)).bind(EVENTS_AT_ONCE);
        if let Some(run) = run {
            query = query.bind(run);
        }
        let rows = query.fetch_all(&mut *self.database.reader().await?).await?;
        rows.iter().map(rows::event).collect()
    }

    pub async fn last_seq(&self, tenant: &str, thread: &str) -> Result<Option<u64>, Error> {
        let sql = "SELECT last_seq FROM router_thread WHERE tenant = $1 AND id = $2";
        let row = sqlx::query(sql).bind(tenant).bind(thread);
        let row = row.fetch_optional(&mut *self.database.reader().await?).await?;
        Ok(row.map(|row| row.try_get("last_seq")).transpose()?.map(rows::seq))
    }

    /// What was said in a thread before now, oldest first.
    pub async fn past(&self, tenant: &str, thread: &str) -> Result<Vec<Message>, Error> {
        let sql = "SELECT request, result FROM router_run \
                   WHERE tenant = $1 AND thread_id = $2 AND status = 4 \
                   ORDER BY first_seq DESC LIMIT $3";
        let rows = sqlx::query(sql).bind(tenant).bind(thread).bind(PAST_TURNS);
        let rows = rows.fetch_all(&mut *self.database.reader().await?).await?;
        let mut messages = Vec::new();
        for row in rows.iter().rev() {
            let request: Vec<u8> = row.try_get("request")?;
            let request = CreateRunRequest::decode(&*request)
                .map_err(|_error| mesh::database::DatabaseError::corrupt("a run's request"))?;
            messages.extend(request.input);
            messages.extend(rows::result(row)?.map(|run| text(Role::Assistant, run.output)));
        }
        Ok(messages)
    }
}

pub fn text(role: Role, text: String) -> Message {
    let part = ContentPart { part: Some(content_part::Part::Text(text)), ..ContentPart::default() };
    Message { role: role.into(), content: vec![part], ..Message::default() }
}

fn next(rows: &[sqlx::any::AnyRow], limit: i64) -> Result<Option<Cursor>, Error> {
    let Some(last) = rows.last() else { return Ok(None) };
    if i64::try_from(rows.len()).is_ok_and(|count| count < limit) {
        return Ok(None);
    }
    Ok(Some(Cursor { created_at: last.try_get("created_at")?, id: last.try_get("id")? }))
}
