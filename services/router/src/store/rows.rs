//! Rows to messages and back.
//!
//! Invariant: bytes that are not what this program wrote are an error, never a
//! default.

use crate::error::Error;
use mesh::database::DatabaseError;
use prost::Message as _;
use prost_types::Timestamp;
use skein_proto::agent::v1::{CancelMode, CreateRunRequest, Run, RunEvent, RunStatus, Thread};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};
use std::sync::Arc;

pub(super) const NEXT_SEQ_UNDER_LEASE: &str = "UPDATE router_thread SET last_seq = last_seq + $4 \
    WHERE tenant = $1 AND id = $2 AND lease_epoch = $3 RETURNING last_seq";

/// What it takes to execute a run: stored, so that it outlives the caller.
#[derive(Clone, Debug)]
pub struct Work {
    pub tenant: Arc<str>,
    pub principal: Arc<str>,
    /// Of the call that made the run; it is on each event.
    pub call_request_id: Arc<str>,
    pub run_id: Arc<str>,
    pub thread_id: Arc<str>,
    pub request: CreateRunRequest,
}

pub(super) fn work(row: &AnyRow) -> Result<Work, Error> {
    let text = |name| row.try_get::<String, _>(name).map(Arc::from);
    let request: Vec<u8> = row.try_get("request")?;
    Ok(Work {
        tenant: text("tenant")?,
        principal: text("principal")?,
        call_request_id: text("call_request_id")?,
        run_id: text("id")?,
        thread_id: text("thread_id")?,
        request: decode(&request, "a run's request")?,
    })
}

pub(super) fn thread(row: &AnyRow) -> Result<Thread, Error> {
    let metadata: String = row.try_get("metadata")?;
    Ok(Thread {
        id: row.try_get("id")?,
        created_at: Some(timestamp(row.try_get("created_at")?)),
        last_seq: seq(row.try_get("last_seq")?),
        metadata: serde_json::from_str(&metadata)
            .map_err(|_error| DatabaseError::corrupt("a thread's metadata"))?,
    })
}

pub(super) fn result(row: &AnyRow) -> Result<Option<Run>, Error> {
    let bytes: Option<Vec<u8>> = row.try_get("result")?;
    bytes.map(|bytes| decode(&bytes, "a run's result")).transpose()
}

pub(super) fn event(row: &AnyRow) -> Result<RunEvent, Error> {
    let bytes: Vec<u8> = row.try_get("payload")?;
    decode(&bytes, "an event")
}

fn decode<M: prost::Message + Default>(bytes: &[u8], what: &str) -> Result<M, Error> {
    M::decode(bytes).map_err(|_error| DatabaseError::corrupt(what).into())
}

/// What only the transaction knows.
pub(super) fn stamp(event: &mut RunEvent, at: i64, epoch: i64) {
    event.seq = seq(at);
    event.lease_epoch = seq(epoch);
}

pub(super) async fn insert_event(
    tx: &mut AnyConnection,
    tenant: &str,
    thread_id: &str,
    event: &RunEvent,
) -> Result<(), Error> {
    let sql = "INSERT INTO router_event (tenant, thread_id, seq, run_id, payload) \
               VALUES ($1, $2, $3, $4, $5)";
    sqlx::query(sql)
        .bind(tenant)
        .bind(thread_id)
        .bind(number(event.seq))
        .bind(&event.run_id)
        .bind(event.encode_to_vec())
        .execute(tx)
        .await?;
    Ok(())
}

pub fn timestamp(micros: i64) -> Timestamp {
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or(0);
    Timestamp { seconds: micros.div_euclid(1_000_000), nanos }
}

pub(super) fn seq(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

pub(super) fn status_number(status: RunStatus) -> i64 {
    i64::from(i32::from(status))
}

pub(super) fn status(number: i64) -> RunStatus {
    i32::try_from(number)
        .ok()
        .and_then(|number| RunStatus::try_from(number).ok())
        .unwrap_or_default()
}

pub(super) fn cancel_mode(number: i64) -> CancelMode {
    i32::try_from(number)
        .ok()
        .and_then(|number| CancelMode::try_from(number).ok())
        .unwrap_or_default()
}
