//! The row of a key in the database, and which gateways are alive.
//!
//! Invariants:
//! - An exchange reads and writes its row in one transaction that holds it.
//! - A store that fails or is slow is away for everybody at once, and said so
//!   once; the next exchange that works brings it back.

use super::{
    Allowance,
    ledger::{Answer, Ask, Ledger},
};
use mesh::{
    clock,
    database::{Database, DatabaseError, Dialect, Migration, Sql},
};
use sqlx::Row as _;
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};
use tokio::time;

pub const MIGRATION: Migration = Migration {
    version: 2,
    name: "limits",
    sql: &[
        Sql::Both("CREATE TABLE gateway_limit (key_id TEXT PRIMARY KEY, state TEXT NOT NULL)"),
        Sql::Both("CREATE TABLE gateway_machine (id TEXT PRIMARY KEY, seen_at BIGINT NOT NULL)"),
    ],
};

/// An exchange that takes longer has failed.
const SLOWEST: Duration = Duration::from_secs(5);
/// A gateway that has missed so many beats is not alive.
const MISSED: u32 = 3;

pub struct LimitStore {
    database: Database,
    /// This process, not its machine: after a restart nothing is held.
    gateway: String,
    heartbeat: Duration,
    away: AtomicBool,
    live: AtomicU64,
}

impl LimitStore {
    pub fn new(database: Database, heartbeat: Duration) -> Self {
        let gateway = uuid::Uuid::new_v4().simple().to_string();
        let (away, live) = (AtomicBool::new(false), AtomicU64::new(1));
        Self { database, gateway, heartbeat, away, live }
    }

    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    pub fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// Live gateways, this one among them; the last number known.
    pub fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed).max(1)
    }

    pub fn gone(&self, why: &str) {
        if !self.away.swap(true, Ordering::Relaxed) {
            let live = self.live();
            tracing::warn!(why, live, "the store of limits is away: every gateway counts alone");
            metrics::gauge!("skein_gateway_limits_alone").set(1.0);
        }
    }

    fn back(&self) {
        if self.away.swap(false, Ordering::Relaxed) {
            tracing::info!("the store of limits is back");
            metrics::gauge!("skein_gateway_limits_alone").set(0.0);
        }
    }

    /// `None`: the store is away. `turn` is held until the transaction is over,
    /// which may be long after we gave up waiting for it.
    pub async fn exchange(
        &self,
        key: &str,
        allowance: Allowance,
        ask: Ask,
        turn: impl Send + 'static,
    ) -> Option<Answer> {
        metrics::counter!("skein_gateway_limit_exchanges_total").increment(1);
        let live = self.live();
        let key = key.to_owned();
        let work = self.database.write(move |open| {
            Box::pin(async move {
                let _turn = turn;
                // Holds the row, whether or not it was there.
                let row = sqlx::query(
                    "INSERT INTO gateway_limit (key_id, state) VALUES ($1, '{}')
                     ON CONFLICT (key_id) DO UPDATE SET state = gateway_limit.state
                     RETURNING state",
                )
                .bind(key.clone())
                .fetch_one(&mut *open)
                .await?;
                let text: String = row.try_get("state")?;
                let mut ledger: Ledger = serde_json::from_str(&text)
                    .map_err(|_| DatabaseError::corrupt("the limits of a key"))?;
                let answer = ledger.exchange(clock::now_micros(), allowance, live, ask);
                let text = serde_json::to_string(&ledger)
                    .map_err(|_| DatabaseError::corrupt("the limits of a key"))?;
                sqlx::query("UPDATE gateway_limit SET state = $2 WHERE key_id = $1")
                    .bind(key)
                    .bind(text)
                    .execute(open)
                    .await?;
                Ok::<_, DatabaseError>(answer)
            })
        });
        match time::timeout(SLOWEST, work).await {
            Ok(Ok(answer)) => {
                self.back();
                Some(answer)
            }
            Ok(Err(error)) => {
                self.gone(&error.to_string());
                None
            }
            Err(_) => {
                self.gone("no answer in time");
                None
            }
        }
    }

    /// Says that this gateway lives and counts those that do, for ever. SQLite
    /// serves one machine: there is nobody to count.
    pub async fn beat(&self) {
        if self.database.dialect() == Dialect::Sqlite {
            return;
        }
        let mut ticks = time::interval(self.heartbeat);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Ok(Ok(live)) = time::timeout(SLOWEST, self.count()).await {
                self.live.store(live.max(1), Ordering::Relaxed);
            }
        }
    }

    async fn count(&self) -> Result<u64, DatabaseError> {
        let (id, now) = (self.gateway.clone(), clock::now_micros());
        let silence = i64::try_from((self.heartbeat * MISSED).as_micros()).unwrap_or(i64::MAX);
        self.database
            .write(move |open| {
                Box::pin(async move {
                    sqlx::query(
                        "INSERT INTO gateway_machine (id, seen_at) VALUES ($1, $2)
                         ON CONFLICT (id) DO UPDATE SET seen_at = $2",
                    )
                    .bind(id)
                    .bind(now)
                    .execute(&mut *open)
                    .await?;
                    sqlx::query("DELETE FROM gateway_machine WHERE seen_at < $1")
                        .bind(now.saturating_sub(silence))
                        .execute(&mut *open)
                        .await?;
                    let row = sqlx::query("SELECT COUNT(*) AS live FROM gateway_machine")
                        .fetch_one(open)
                        .await?;
                    let live: i64 = row.try_get("live")?;
                    Ok::<_, DatabaseError>(live.unsigned_abs())
                })
            })
            .await
    }

    /// Is not counted any more.
    pub async fn leave(&self) {
        if self.database.dialect() == Dialect::Sqlite {
            return;
        }
        let id = self.gateway.clone();
        let gone = self.database.write(move |open| {
            Box::pin(async move {
                let delete = sqlx::query("DELETE FROM gateway_machine WHERE id = $1").bind(id);
                delete.execute(open).await?;
                Ok::<_, DatabaseError>(())
            })
        });
        // Otherwise it is counted for a few beats more.
        let _ = time::timeout(Duration::from_secs(1), gone).await;
    }
}
