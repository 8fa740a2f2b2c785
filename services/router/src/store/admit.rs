//! New threads and runs.
//!
//! Invariants:
//! - of any number of calls with one `request_id`, one makes the run and the rest
//!   get it; nothing of theirs stays, not even a thread;
//! - the same `request_id` with other content is refused.

use super::Store;
use super::rows::{self, Work, insert_event, status_number, timestamp};
use crate::error::Error;
use mesh::clock::now_micros;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use skein_proto::agent::v1::run_event::Body;
use skein_proto::agent::v1::{CreateRunRequest, RunCreated, RunEvent, RunStatus, Thread};
use sqlx::{AnyConnection, Row as _};
use std::collections::{BTreeMap, HashMap};

/// A run to be made.
pub struct Claim {
    pub work: Work,
    /// The thread is to be made too.
    pub new_thread: bool,
    pub agent: String,
    pub owner: String,
}

pub enum Admitted {
    /// With the `seq` of its first event.
    New(u64),
    /// Somebody was first: the id of their run.
    Existing(String),
}

enum Stop {
    Raced,
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Store {
    pub async fn create_thread(
        &self,
        tenant: &str,
        id: &str,
        metadata: &HashMap<String, String>,
    ) -> Result<Thread, Error> {
        let (tenant, id, json) = (tenant.to_owned(), id.to_owned(), json(metadata));
        let created_at = now_micros();
        let thread = Thread {
            id: id.clone(),
            created_at: Some(timestamp(created_at)),
            last_seq: 0,
            metadata: metadata.clone(),
        };
        self.database
            .write::<_, Error, _>(move |tx| {
                Box::pin(async move { insert_thread(tx, &tenant, &id, &json, created_at).await })
            })
            .await?;
        Ok(thread)
    }

    pub async fn create_run(&self, claim: Claim) -> Result<Admitted, Error> {
        let hash = content_hash(&claim.work.request);
        let (tenant, request_id) =
            (claim.work.tenant.to_string(), claim.work.request.request_id.clone());
        if let Some(id) = self.claimed(&tenant, &request_id, &hash).await? {
            return Ok(Admitted::Existing(id));
        }
        let stored = hash.clone();
        let made =
            self.database.write(move |tx| Box::pin(async move { admit(tx, claim, stored).await }));
        match made.await {
            Ok(seq) => Ok(Admitted::New(seq)),
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::Raced) => {
                let id = self.claimed(&tenant, &request_id, &hash).await?;
                // Only a deletion of the winner's thread can have come between.
                id.map(Admitted::Existing).ok_or_else(|| Error::RunNotFound(request_id))
            }
        }
    }

    async fn claimed(
        &self,
        tenant: &str,
        request_id: &str,
        hash: &str,
    ) -> Result<Option<String>, Error> {
        if request_id.is_empty() {
            return Ok(None);
        }
        let sql = "SELECT id, request_hash FROM router_run WHERE tenant = $1 AND request_id = $2";
        let row = sqlx::query(sql).bind(tenant).bind(request_id);
        let Some(row) = row.fetch_optional(&mut *self.database.reader().await?).await? else {
            return Ok(None);
        };
        if row.try_get::<String, _>("request_hash")? != hash {
            return Err(Error::RequestIdReused);
        }
        Ok(Some(row.try_get("id")?))
    }
}

async fn admit(tx: &mut AnyConnection, claim: Claim, hash: String) -> Result<u64, Stop> {
    let now = now_micros();
    let Work { tenant, thread_id, run_id, .. } = &claim.work;
    if claim.new_thread {
        insert_thread(tx, tenant, thread_id, "{}", now).await?;
    }
    let sql = "UPDATE router_thread SET last_seq = last_seq + 1 WHERE tenant = $1 AND id = $2 \
               RETURNING last_seq, lease_epoch";
    let row = sqlx::query(sql)
        .bind(tenant.to_string())
        .bind(thread_id.to_string())
        .fetch_optional(&mut *tx)
        .await?
        .ok_or_else(|| Error::ThreadNotFound(thread_id.to_string()))?;
    let (seq, epoch): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let request_id = &claim.work.request.request_id;
    let sql = "INSERT INTO router_run (tenant, id, thread_id, first_seq, request_id, request_hash, \
               request, principal, call_request_id, owner, status, cancel, created_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0, $12) \
               ON CONFLICT (tenant, request_id) DO NOTHING";
    let inserted = sqlx::query(sql)
        .bind(tenant.to_string())
        .bind(run_id.to_string())
        .bind(thread_id.to_string())
        .bind(seq)
        .bind(Some(request_id.clone()).filter(|id| !id.is_empty()))
        .bind(hash)
        .bind(claim.work.request.encode_to_vec())
        .bind(claim.work.principal.to_string())
        .bind(claim.work.call_request_id.to_string())
        .bind(claim.owner)
        .bind(status_number(RunStatus::Queued))
        .bind(now)
        .execute(&mut *tx)
        .await?;
    if inserted.rows_affected() == 0 {
        return Err(Stop::Raced);
    }
    let created = RunCreated { agent: claim.agent, input: claim.work.request.input.clone() };
    let mut event = RunEvent {
        run_id: run_id.to_string(),
        attempt: 1,
        at: Some(timestamp(now)),
        request_id: claim.work.call_request_id.to_string(),
        body: Some(Body::Created(created)),
        ..RunEvent::default()
    };
    rows::stamp(&mut event, seq, epoch);
    insert_event(tx, tenant, thread_id, &event).await?;
    Ok(event.seq)
}

async fn insert_thread(
    tx: &mut AnyConnection,
    tenant: &str,
    id: &str,
    metadata: &str,
    created_at: i64,
) -> Result<(), Error> {
    let sql = "INSERT INTO router_thread (tenant, id, created_at, last_seq, lease_epoch, metadata) \
               VALUES ($1, $2, $3, 0, 0, $4)";
    sqlx::query(sql).bind(tenant).bind(id).bind(created_at).bind(metadata).execute(tx).await?;
    Ok(())
}

fn json(metadata: &HashMap<String, String>) -> String {
    let sorted: BTreeMap<_, _> = metadata.iter().collect();
    serde_json::json!(sorted).to_string()
}

/// The same for the same content; a map has no order of its own.
fn content_hash(request: &CreateRunRequest) -> String {
    let metadata = json(&request.metadata);
    let plain = CreateRunRequest { metadata: HashMap::new(), ..request.clone() };
    let mut hash = Sha256::new();
    hash.update(plain.encode_to_vec());
    hash.update(metadata);
    hex::encode(hash.finalize())
}
