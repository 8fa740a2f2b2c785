//! The router's tables.
//!
//! `request` and `result` are the contract's own messages, so that the store does
//! not repeat their shape. `status` and `cancel` are the numbers of the enums.
//! Rows that have not ended are few: the partial index holds only them.

use mesh::database::{Migration, Sql};

pub(super) const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "threads, runs and events",
    sql: &[
        Sql::Both(
            "CREATE TABLE router_thread (
               tenant TEXT NOT NULL, id TEXT NOT NULL,
               created_at BIGINT NOT NULL,
               last_seq BIGINT NOT NULL,
               lease_epoch BIGINT NOT NULL,
               metadata TEXT NOT NULL,
               PRIMARY KEY (tenant, id))",
        ),
        Sql::Both("CREATE INDEX router_thread_by_age ON router_thread (tenant, created_at, id)"),
        Sql::Both(
            "CREATE TABLE router_run (
               tenant TEXT NOT NULL, id TEXT NOT NULL,
               thread_id TEXT NOT NULL,
               first_seq BIGINT NOT NULL,
               request_id TEXT,
               request_hash TEXT NOT NULL,
               request BLOB NOT NULL,
               principal TEXT NOT NULL,
               call_request_id TEXT NOT NULL,
               owner TEXT NOT NULL,
               status BIGINT NOT NULL,
               cancel BIGINT NOT NULL,
               created_at BIGINT NOT NULL,
               finished_at BIGINT,
               result BLOB,
               PRIMARY KEY (tenant, id))",
        ),
        Sql::Both("CREATE UNIQUE INDEX router_run_by_request ON router_run (tenant, request_id)"),
        Sql::Both("CREATE INDEX router_run_by_thread ON router_run (tenant, thread_id, first_seq)"),
        Sql::Both("CREATE INDEX router_run_by_age ON router_run (tenant, created_at, id)"),
        Sql::Both(
            "CREATE INDEX router_run_unfinished ON router_run (owner) WHERE status IN (1, 2, 3)",
        ),
        Sql::Both(
            "CREATE TABLE router_event (
               tenant TEXT NOT NULL, thread_id TEXT NOT NULL, seq BIGINT NOT NULL,
               run_id TEXT NOT NULL,
               payload BLOB NOT NULL,
               PRIMARY KEY (tenant, thread_id, seq))",
        ),
        Sql::Both("CREATE INDEX router_event_by_run ON router_event (tenant, run_id, seq)"),
    ],
}];
