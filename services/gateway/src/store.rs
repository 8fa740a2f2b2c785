//! The keys in the database, and the snapshot of them in memory.
//!
//! Invariants:
//! - A change is in this machine's snapshot before its call is answered, and in
//!   the other machines' within one poll.
//! - A poll reads one number; all keys are read only after it has changed.
//! - While the database is away the last snapshot serves.

use crate::{
    idempotency,
    keys::{Hash, Key, Scope, Snapshot, chosen_id, hash},
    limits::{self, Allowance},
};
use mesh::{
    clock,
    database::{Database, DatabaseError, Migration, Sql},
    ready::Readiness,
};
use sqlx::{Row as _, any::AnyRow};
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

const MIGRATIONS: &[Migration] = &[KEYS, limits::store::MIGRATION, idempotency::claims::MIGRATION];

const KEYS: Migration = Migration {
    version: 1,
    name: "keys",
    sql: &[
        Sql::Both(
            "CREATE TABLE gateway_key (
                id TEXT PRIMARY KEY,
                hash BLOB NOT NULL UNIQUE,
                name TEXT NOT NULL,
                tenant TEXT NOT NULL,
                scopes TEXT NOT NULL,
                created_at BIGINT NOT NULL,
                expires_at BIGINT,
                revoked_at BIGINT,
                requests_per_minute BIGINT NOT NULL DEFAULT 0,
                concurrency BIGINT NOT NULL DEFAULT 0
            )",
        ),
        Sql::Both("CREATE TABLE gateway_change (id BIGINT PRIMARY KEY, version BIGINT NOT NULL)"),
        Sql::Both("INSERT INTO gateway_change (id, version) VALUES (1, 1)"),
    ],
};

const SELECT: &str = "SELECT id, hash, name, tenant, scopes, created_at, expires_at, revoked_at,
    requests_per_minute, concurrency FROM gateway_key";

#[derive(Clone)]
pub struct Store {
    database: Database,
    seen: Arc<RwLock<Seen>>,
}

#[derive(Default)]
struct Seen {
    version: i64,
    keys: Arc<Snapshot>,
}

impl Store {
    pub async fn open(url: &str) -> Result<Self, DatabaseError> {
        let database = Database::open(url, "gateway", MIGRATIONS).await?;
        let store = Self { database, seen: Arc::default() };
        store.refresh().await?;
        Ok(store)
    }

    pub fn database(&self) -> Database {
        self.database.clone()
    }

    pub fn keys(&self) -> Arc<Snapshot> {
        Arc::clone(&self.seen.read().unwrap_or_else(PoisonError::into_inner).keys)
    }

    /// A key that exists before anybody can create one. Put in once; revoking it
    /// is final.
    pub async fn bootstrap(&self, secret: &str, tenant: &str) -> Result<(), DatabaseError> {
        let id = chosen_id(secret);
        let key = Key {
            hash: hash(secret),
            name: "bootstrap".to_owned(),
            tenant: tenant.into(),
            principal: principal(&id),
            scopes: Scope::ALL.to_vec(),
            allowance: Allowance::default(),
            created: clock::now_micros(),
            expires: None,
            revoked: None,
            id,
        };
        self.insert(key).await
    }

    pub async fn insert(&self, key: Key) -> Result<(), DatabaseError> {
        self.database
            .write(move |open| {
                Box::pin(async move {
                    let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.name()).collect();
                    let inserted = sqlx::query(
                        "INSERT INTO gateway_key
                            (id, hash, name, tenant, scopes, created_at, expires_at,
                             requests_per_minute, concurrency)
                         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
                    )
                    .bind(key.id)
                    .bind(key.hash.to_vec())
                    .bind(key.name)
                    .bind(key.tenant.to_string())
                    .bind(scopes.join(" "))
                    .bind(key.created)
                    .bind(key.expires)
                    .bind(key.allowance.per_minute.cast_signed())
                    .bind(key.allowance.concurrency.cast_signed())
                    .execute(&mut *open)
                    .await?;
                    if inserted.rows_affected() > 0 {
                        changed(open).await?;
                    }
                    Ok::<_, DatabaseError>(())
                })
            })
            .await?;
        self.refresh().await
    }

    /// The key after revoking it; `None` if there is no such key.
    pub async fn revoke(&self, id: String) -> Result<Option<Key>, DatabaseError> {
        let revoked = self
            .database
            .write(move |open| {
                Box::pin(async move {
                    let row = sqlx::query(
                        "UPDATE gateway_key SET revoked_at = COALESCE(revoked_at, $2)
                         WHERE id = $1
                         RETURNING id, hash, name, tenant, scopes, created_at, expires_at,
                            revoked_at, requests_per_minute, concurrency",
                    )
                    .bind(id)
                    .bind(clock::now_micros())
                    .fetch_optional(&mut *open)
                    .await?;
                    if row.is_some() {
                        changed(open).await?;
                    }
                    row.as_ref().map(read).transpose()
                })
            })
            .await?;
        self.refresh().await?;
        Ok(revoked)
    }

    /// Every key, the oldest first.
    pub async fn list(&self) -> Result<Vec<Key>, DatabaseError> {
        let rows = sqlx::query(SELECT).fetch_all(&mut *self.database.reader().await?).await?;
        let mut keys = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        keys.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(keys)
    }

    /// Takes over what any machine has changed.
    pub async fn refresh(&self) -> Result<(), DatabaseError> {
        let row = sqlx::query("SELECT version FROM gateway_change WHERE id = 1")
            .fetch_one(&mut *self.database.reader().await?)
            .await?;
        let version: i64 = row.try_get("version")?;
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner).version;
        if version > seen {
            // Read after the number: newer keys under an older number are read
            // again at worst.
            let keys = Arc::new(Snapshot::of(self.list().await?));
            let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
            if version > seen.version {
                *seen = Seen { version, keys };
            }
        }
        Ok(())
    }

    /// Follows the other machines' changes for ever.
    pub async fn follow(self, every: Duration, readiness: Readiness) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut away = None;
        loop {
            ticks.tick().await;
            away = match (self.refresh().await, away) {
                (Err(error), None) => {
                    tracing::warn!(%error, "the key store is away; the last keys serve");
                    Some(readiness.degraded("key store away: the last known keys serve"))
                }
                (Err(_), still) => still,
                (Ok(()), _) => None,
            };
        }
    }
}

async fn changed(open: &mut sqlx::AnyConnection) -> Result<(), DatabaseError> {
    sqlx::query("UPDATE gateway_change SET version = version + 1 WHERE id = 1")
        .execute(open)
        .await?;
    Ok(())
}

pub fn principal(id: &str) -> Arc<str> {
    format!("key:{id}").into()
}

fn read(row: &AnyRow) -> Result<Key, DatabaseError> {
    let id: String = row.try_get("id")?;
    let hash: Vec<u8> = row.try_get("hash")?;
    let hash: Hash = hash.try_into().map_err(|_| DatabaseError::corrupt("the hash of a key"))?;
    let scopes: String = row.try_get("scopes")?;
    let tenant: String = row.try_get("tenant")?;
    let (per_minute, concurrency): (i64, i64) =
        (row.try_get("requests_per_minute")?, row.try_get("concurrency")?);
    Ok(Key {
        hash,
        name: row.try_get("name")?,
        tenant: tenant.into(),
        principal: principal(&id),
        // A scope of a newer release means nothing here.
        scopes: scopes.split(' ').filter_map(Scope::parse).collect(),
        allowance: Allowance {
            per_minute: per_minute.max(0).unsigned_abs(),
            concurrency: concurrency.max(0).unsigned_abs(),
        },
        created: row.try_get("created_at")?,
        expires: row.try_get("expires_at")?,
        revoked: row.try_get("revoked_at")?,
        id,
    })
}
