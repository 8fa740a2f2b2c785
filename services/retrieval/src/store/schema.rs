//! The tables of retrieval, one migration after the other.
//!
//! Invariants:
//! - tenant and collection lead every primary key: they are where a row is, not
//!   a condition that a query might forget.

use mesh::database::{Migration, Sql};

/// What a chunk's vector is waiting for.
pub(super) const PENDING: i64 = 0;
pub(super) const EMBEDDED: i64 = 1;
/// The model refused the text; found by keyword alone.
pub(super) const REFUSED: i64 = 2;

pub(super) static MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "collections, documents and chunks",
    sql: &[
        Sql::Both(
            "CREATE TABLE retrieval_collections (
                tenant TEXT NOT NULL, name TEXT NOT NULL,
                model TEXT NOT NULL, vectors_of TEXT NOT NULL, dimensions BIGINT NOT NULL,
                created_at BIGINT NOT NULL, version BIGINT NOT NULL,
                PRIMARY KEY (tenant, name))",
        ),
        Sql::Both(
            "CREATE TABLE retrieval_documents (
                tenant TEXT NOT NULL, collection TEXT NOT NULL, id TEXT NOT NULL,
                title TEXT NOT NULL, text TEXT NOT NULL, format TEXT NOT NULL,
                metadata TEXT NOT NULL, source TEXT NOT NULL,
                writer_version BIGINT NOT NULL, sha256 TEXT NOT NULL,
                fingerprint TEXT NOT NULL, chunks BIGINT NOT NULL, updated_at BIGINT NOT NULL,
                PRIMARY KEY (tenant, collection, id))",
        ),
        Sql::Both(
            "CREATE INDEX retrieval_documents_by_text
                ON retrieval_documents (tenant, collection, sha256)",
        ),
        Sql::Both(
            "CREATE TABLE retrieval_chunks (
                tenant TEXT NOT NULL, collection TEXT NOT NULL, id TEXT NOT NULL,
                document TEXT NOT NULL, ordinal BIGINT NOT NULL,
                span_start BIGINT NOT NULL, span_end BIGINT NOT NULL,
                heading TEXT NOT NULL, text TEXT NOT NULL,
                content TEXT NOT NULL, terms TEXT NOT NULL, length BIGINT NOT NULL,
                state BIGINT NOT NULL, vector BLOB,
                PRIMARY KEY (tenant, collection, id))",
        ),
        Sql::Both(
            "CREATE INDEX retrieval_chunks_by_document
                ON retrieval_chunks (tenant, collection, document, ordinal)",
        ),
        Sql::Both(
            "CREATE INDEX retrieval_chunks_by_state
                ON retrieval_chunks (state, tenant, collection)",
        ),
    ],
}];
