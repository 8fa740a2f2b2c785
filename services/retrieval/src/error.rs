//! What a caller of retrieval can tell apart.

use mesh::database::DatabaseError;
use mesh::error::{Kind, ServiceError};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{field}: {message}")]
    Invalid { field: &'static str, message: String },
    #[error("collection {0:?} does not exist: create it or put a document into it")]
    NoCollection(String),
    #[error("document {id:?} is not in collection {collection:?}")]
    NoDocument { collection: String, id: String },
    #[error("collection {name:?} embeds with {stored}, not with {wanted}; use another name")]
    OtherSettings { name: String, stored: String, wanted: String },
    #[error("document {id:?} is stored at version {stored}, which version {sent} does not replace")]
    Stale { id: String, stored: i64, sent: i64 },
    #[error("collection {collection:?} holds vectors of {stored}, this one is of {sent}")]
    OtherVectors { collection: String, stored: String, sent: String },
    #[error("collection is at version {0}: the version asked for was not written here")]
    NotYet(i64),
    #[error("cannot embed the query with {model}: {cause}")]
    NoEmbedding { model: String, cause: String },
    #[error("{field} is not served yet: {message}")]
    Unserved { field: &'static str, message: &'static str },
    #[error(transparent)]
    Store(#[from] DatabaseError),
    #[error("background work failed: {0}")]
    Lost(#[from] tokio::task::JoinError),
    #[error("cut the document: {0}")]
    Cut(#[from] text_splitter::ChunkConfigError),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Error {
    pub fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid { field, message: message.into() }
    }
}

impl ServiceError for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid { .. } => Kind::InvalidArgument,
            Self::NoCollection(_) | Self::NoDocument { .. } => Kind::NotFound,
            Self::OtherSettings { .. } => Kind::AlreadyExists,
            Self::Stale { .. } | Self::OtherVectors { .. } | Self::NotYet(_) => {
                Kind::FailedPrecondition
            }
            Self::NoEmbedding { .. } => Kind::Unavailable,
            Self::Unserved { .. } => Kind::Unimplemented,
            Self::Store(error) => ServiceError::kind(error),
            Self::Lost(_) | Self::Cut(_) => Kind::Internal,
        }
    }

    fn reason(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoCollection(_) => "COLLECTION_NOT_FOUND",
            Self::NoDocument { .. } => "DOCUMENT_NOT_FOUND",
            Self::OtherSettings { .. } => "COLLECTION_EXISTS",
            Self::Stale { .. } => "STALE_VERSION",
            Self::OtherVectors { .. } => "EMBEDDING_MISMATCH",
            Self::NotYet(_) => "VERSION_NOT_VISIBLE",
            Self::NoEmbedding { .. } => "EMBEDDING_UNAVAILABLE",
            Self::Unserved { .. } => "NOT_SERVED",
            Self::Store(error) => return ServiceError::reason(error),
            Self::Invalid { .. } | Self::Lost(_) | Self::Cut(_) => return None,
        })
    }

    fn field(&self) -> Option<&str> {
        match self {
            Self::Invalid { field, .. } | Self::Unserved { field, .. } => Some(field),
            _ => None,
        }
    }
}
