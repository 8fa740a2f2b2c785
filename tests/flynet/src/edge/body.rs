//! Bodies on their way through the edge: nothing of them is kept.

use crate::proxy::Seat;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

/// A response's body: its request is in flight until this is dropped.
pub(super) struct Counted {
    pub(super) body: Incoming,
    pub(super) _seat: Option<Seat>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request's body, lent to one attempt after the other until one reads of it.
#[derive(Clone)]
pub(super) struct Lender {
    body: Arc<Mutex<Option<Incoming>>>,
    empty: bool,
    size: SizeHint,
}

impl Lender {
    pub(super) fn new(body: Incoming) -> Self {
        let (empty, size) = (body.is_end_stream(), body.size_hint());
        Self { body: Arc::new(Mutex::new(Some(body))), empty, size }
    }

    pub(super) fn lend(&self) -> Lent {
        Lent { from: self.clone(), body: None }
    }

    /// Whether another attempt can send the whole of it.
    pub(super) fn is_whole(&self) -> bool {
        self.body.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

pub(super) struct Lent {
    from: Lender,
    body: Option<Incoming>,
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.body.is_none() {
            let taken = self.from.body.lock().unwrap_or_else(PoisonError::into_inner).take();
            self.body = taken;
        }
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().map_or(self.from.empty, Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| self.from.size, Body::size_hint)
    }
}
