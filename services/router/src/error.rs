//! What a caller of the router can tell apart.
//!
//! Invariants:
//! - a failure of a service behind us keeps its own code, reason and text;
//! - everything else becomes a status in mesh's one table.

use mesh::database::DatabaseError;
use mesh::error::{Kind, ServiceError};
use tonic::Status;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("thread {0:?} does not exist")]
    ThreadNotFound(String),
    #[error("run {0:?} does not exist")]
    RunNotFound(String),
    #[error("agent {name:?} does not exist; there are: {known}")]
    AgentNotFound { name: String, known: String },
    #[error("model {name:?} does not exist; there are: {known}")]
    ModelNotFound { name: String, known: String },
    #[error("request_id was used before for a run with other content")]
    RequestIdReused,
    #[error("thread {0:?} has a run that has not ended: cancel it or wait for it")]
    ThreadBusy(String),
    /// Another machine has taken the run over: this one must not write any more.
    #[error("this run is no longer led by this machine")]
    Fenced,
    #[error("{}", .0.message())]
    Upstream(Box<Status>),
}

impl ServiceError for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Database(error) => ServiceError::kind(error),
            Self::ThreadNotFound(_)
            | Self::RunNotFound(_)
            | Self::AgentNotFound { .. }
            | Self::ModelNotFound { .. } => Kind::NotFound,
            Self::RequestIdReused | Self::ThreadBusy(_) => Kind::FailedPrecondition,
            Self::Fenced => Kind::Unavailable,
            Self::Upstream(_) => Kind::Internal,
        }
    }

    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::ThreadNotFound(_) => Some("THREAD_NOT_FOUND"),
            Self::RunNotFound(_) => Some("RUN_NOT_FOUND"),
            Self::AgentNotFound { .. } => Some("AGENT_NOT_FOUND"),
            Self::ModelNotFound { .. } => Some("MODEL_NOT_FOUND"),
            Self::RequestIdReused => Some("REQUEST_ID_REUSED"),
            Self::ThreadBusy(_) => Some("THREAD_BUSY"),
            Self::Fenced => Some("FENCED"),
            Self::Database(_) | Self::Upstream(_) => None,
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Upstream(Box::new(status))
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            // Without the metadata of the hop behind us, which is not ours to give.
            Error::Upstream(status) => Self::with_details(
                status.code(),
                status.message(),
                bytes::Bytes::copy_from_slice(status.details()),
            ),
            other => mesh::error::to_status(&other),
        }
    }
}
