//! The request of a call that may have to be sent more than once.
//!
//! Invariant: what its caller streams is sent once; one message is kept whole,
//! which it is in memory anyway.

use crate::methods::Method;
use bytes::Bytes;
use http::{Request, request};
use http_body_util::{BodyExt as _, Full};
use tonic::{Status, body::Body};

pub(super) enum Outgoing {
    Again(Bytes),
    Once(Option<Body>),
}

impl Outgoing {
    /// Keeps the request of a call that sends one message: it may have to be
    /// sent again, and is in memory anyway.
    pub(super) async fn new(method: Option<Method>, body: Body) -> Result<Self, Status> {
        if method.is_none_or(|method| method.client_streaming) {
            return Ok(Self::Once(Some(body)));
        }
        Ok(Self::Again(body.collect().await?.to_bytes()))
    }

    pub(super) fn request(&mut self, head: &request::Parts) -> Option<Request<Body>> {
        let body = match self {
            Self::Again(bytes) => {
                Body::new(Full::new(bytes.clone()).map_err(|never| match never {}))
            }
            Self::Once(body) => body.take()?,
        };
        Some(Request::from_parts(head.clone(), body))
    }

    /// Takes back what has never left.
    pub(super) fn put_back(&mut self, body: Body) {
        if let Self::Once(once) = self {
            *once = Some(body);
        }
    }

    pub(super) fn can_repeat(&self) -> bool {
        matches!(self, Self::Again(_))
    }
}
