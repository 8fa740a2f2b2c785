//! One HTTP/1.1 connection: one call at a time.
//!
//! Invariants:
//! - It goes back to its host when the answer was read to its end, and is closed
//!   when it was not: nothing that a provider still sends reaches another call.

use super::{
    connect::{Forward, Request},
    gauge::InFlight,
    host::Host,
};
use bytes::Bytes;
use http::{HeaderValue, Uri, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use std::{sync::Weak, time::Duration};

/// For what remains of an answer that was read almost to its end.
const REST: Duration = Duration::from_secs(1);

pub(super) struct Line {
    pub(super) send: http1::SendRequest<Full<Bytes>>,
    forward: Option<Forward>,
}

/// A connection in the hands of one call.
pub(super) struct Held {
    line: Option<Line>,
    host: Weak<Host>,
    _counted: InFlight,
}

impl Line {
    pub(super) const fn new(
        send: http1::SendRequest<Full<Bytes>>,
        forward: Option<Forward>,
    ) -> Self {
        Self { send, forward }
    }

    /// Puts the request into the form that goes over the wire.
    fn dress(&self, request: &mut Request) {
        let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
        if let Some(host) = authority.and_then(|host| HeaderValue::try_from(host).ok()) {
            request.headers_mut().insert(header::HOST, host);
        }
        match &self.forward {
            None => {
                let path = request.uri().path_and_query().cloned();
                *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
            }
            Some(Forward(auth)) => {
                let auth = auth.clone().map(|auth| (header::PROXY_AUTHORIZATION, auth));
                request.headers_mut().extend(auth);
            }
        }
    }
}

impl Held {
    pub(super) const fn new(line: Line, host: Weak<Host>, counted: InFlight) -> Self {
        Self { line: Some(line), host, _counted: counted }
    }

    /// The sender, and the request as it wants it.
    pub(super) fn prepare(
        &mut self,
        mut request: Request,
    ) -> Option<(&mut http1::SendRequest<Full<Bytes>>, Request)> {
        let line = self.line.as_mut()?;
        line.dress(&mut request);
        Some((&mut line.send, request))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(mut line) = self.line.take().filter(|line| !line.send.is_closed()) else { return };
        let host = self.host.clone();
        if line.send.is_ready() {
            return Host::take_back(&host, line);
        }
        // Its task has yet to see that the answer is over, or that it is not.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if let Ok(Ok(())) = tokio::time::timeout(REST, line.send.ready()).await {
                Host::take_back(&host, line);
            }
        });
    }
}
