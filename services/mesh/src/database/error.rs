//! What can go wrong with a database, as far as a caller can tell it apart.
//!
//! Invariants:
//! - the text is the database's own one-line message: never a URL, never the
//!   values of a row;
//! - `Unavailable` means that the same call may work later.

use crate::error::{Kind, ServiceError};
use sqlx::error::DatabaseError as Reported;
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Away, overloaded, or it gave way to another transaction.
    Unavailable,
    /// A row with that key exists.
    Conflict,
    /// The configuration is wrong: only a human can mend it.
    Configuration,
    Internal,
}

#[derive(Debug)]
pub struct DatabaseError {
    kind: ErrorKind,
    message: String,
}

impl DatabaseError {
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Stored bytes that cannot be what this program wrote.
    pub fn corrupt(what: impl fmt::Display) -> Self {
        Self { kind: ErrorKind::Internal, message: format!("cannot read {what}") }
    }

    pub(super) fn configuration(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Configuration, message: message.into() }
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unavailable, message: message.into() }
    }

    /// The same failure, saying what was being done.
    pub(super) fn during(self, what: &str) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    pub(super) fn lost(task: &tokio::task::JoinError) -> Self {
        let (kind, message) = if task.is_cancelled() {
            (ErrorKind::Unavailable, "transaction cut off by shutdown")
        } else {
            (ErrorKind::Internal, "transaction panicked")
        };
        Self { kind, message: message.to_owned() }
    }
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DatabaseError {}

impl ServiceError for DatabaseError {
    fn kind(&self) -> Kind {
        match self.kind {
            ErrorKind::Unavailable => Kind::Unavailable,
            ErrorKind::Conflict => Kind::AlreadyExists,
            ErrorKind::Configuration | ErrorKind::Internal => Kind::Internal,
        }
    }
}

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match error {
            E::Database(reported) => {
                Self { kind: reported_kind(&*reported), message: reported.message().to_owned() }
            }
            E::PoolTimedOut => Self::unavailable("no database connection became free in time"),
            E::PoolClosed | E::WorkerCrashed => Self::unavailable("the database is closed"),
            E::Io(error) => Self::unavailable(format!("the database does not answer: {error}")),
            E::Tls(error) => Self::unavailable(format!("TLS to the database: {error}")),
            E::Configuration(error) => Self::configuration(error.to_string()),
            other => Self { kind: ErrorKind::Internal, message: other.to_string() },
        }
    }
}

fn reported_kind(error: &dyn Reported) -> ErrorKind {
    if error.is_unique_violation() {
        return ErrorKind::Conflict;
    }
    let code = error.code().unwrap_or_default();
    if passing(&code) { ErrorKind::Unavailable } else { ErrorKind::Internal }
}

/// Whether trying again later can help. SQLite reports numbers, whose low byte is
/// the class: busy, locked, I/O, full, cannot open. Postgres reports five
/// characters: connection lost, no resources, deadlock, shutting down, cancelled.
fn passing(code: &str) -> bool {
    if code.len() < 5 {
        let class = code.parse::<u32>().map(|number| number & 0xff);
        return class.is_ok_and(|class| matches!(class, 5 | 6 | 10 | 13 | 14));
    }
    matches!(code.get(..2), Some("08" | "53" | "40" | "57")) || code == "25P03"
}

#[cfg(test)]
mod tests {
    use super::passing;

    #[test]
    fn what_may_work_later_is_told_from_what_never_will() {
        let (busy, snapshot, io) = ("5", "517", "1802");
        for code in [busy, snapshot, io, "08006", "40001", "40P01", "57P01", "57014", "53300"] {
            assert!(passing(code), "{code}");
        }
        let (generic, not_null) = ("1", "1299");
        for code in [generic, not_null, "42P01", "23502", "22P02", ""] {
            assert!(!passing(code), "{code}");
        }
    }
}
