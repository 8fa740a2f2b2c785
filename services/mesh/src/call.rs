//! The call being served: for whom, by whom, until when.
//!
//! The server's auth layer puts a [`Call`] into each request; whoever calls on
//! sends its requests through it, so that tenant, deadline, request id and
//! trace travel without anybody copying them by hand.
//!
//! Invariants:
//! - The tenant comes from a verified token, never from a request field.
//! - A deadline only ever shrinks on its way down.

use crate::error::{self, Kind};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::{Request, Status};

/// Metadata name of the id that follows a request through all apps.
pub const REQUEST_ID: &str = "x-request-id";

#[derive(Clone, Debug)]
pub struct Call {
    pub tenant: Arc<str>,
    /// Who asked at the edge: `key:<id>`, or a role acting for itself.
    pub principal: Arc<str>,
    /// The role that called us; our own for a call that starts here.
    pub issuer: Arc<str>,
    pub deadline: Instant,
    pub request_id: Arc<str>,
}

impl Call {
    /// A call that starts here and may take `timeout`.
    pub fn new(
        tenant: impl Into<Arc<str>>,
        principal: impl Into<Arc<str>>,
        timeout: Duration,
    ) -> Self {
        let principal = principal.into();
        Self {
            tenant: tenant.into(),
            issuer: Arc::clone(&principal),
            principal,
            deadline: Instant::now() + timeout,
            request_id: new_request_id().into(),
        }
    }

    /// The call that `request` belongs to.
    pub fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        request.extensions().get::<Self>().cloned().ok_or_else(|| {
            let message = "this call carries no verified identity".to_owned();
            error::status(Kind::Unauthenticated, None, None, message)
        })
    }

    /// The same call, which may take no longer than `timeout` from now.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { deadline: self.deadline.min(Instant::now() + timeout), ..self.clone() }
    }

    #[must_use]
    pub fn with_request_id(self, id: impl Into<Arc<str>>) -> Self {
        Self { request_id: id.into(), ..self }
    }

    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// A request to another service on behalf of this call.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.extensions_mut().insert(self.clone());
        request
    }
}

/// Sortable by time, unique, safe in a header.
pub fn new_request_id() -> String {
    format!("req_{}", uuid::Uuid::now_v7().simple())
}

/// Whether a caller's own request id can be taken over: short, printable, and
/// of characters that no log or header could be tricked with.
pub fn is_sane_request_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_only_shrinks() {
        let call = Call::new("acme", "key:a", Duration::from_secs(10));
        assert_eq!(call.with_timeout(Duration::from_secs(3)).remaining(), Duration::from_secs(3));
        assert_eq!(call.with_timeout(Duration::from_secs(30)).remaining(), Duration::from_secs(10));
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(call.remaining(), Duration::ZERO);
    }

    #[test]
    fn strange_request_ids_are_not_taken_over() {
        assert!(is_sane_request_id(&new_request_id()));
        for id in ["", "a b", "a\nb", "é", "<script>"] {
            assert!(!is_sane_request_id(id), "{id:?}");
        }
    }
}
