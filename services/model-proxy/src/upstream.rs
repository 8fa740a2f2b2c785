//! What becomes of a call at its provider, as far as it has to be known later:
//! how long it was there, whether it was there at all, and what the provider
//! said of usage before it was cut short.
//!
//! Invariant: time inside the provider is the union of the tries, which never
//! overlap; the rest of a call's time is ours.

use serde_json::Value;
use skein_proto::model::v1::Usage;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use tracing::{Span, field::Empty};

/// Shared by a call and its tries.
#[derive(Debug, Default)]
pub struct Upstream {
    micros: AtomicU64,
    tries: AtomicU32,
    said: Mutex<Option<Usage>>,
    /// Of the call; none if nobody looks at it.
    span: Option<Span>,
}

/// One try, from its request to its last event; ends when it is dropped.
#[derive(Debug)]
pub struct Inside {
    call: Arc<Upstream>,
    begun: Instant,
    span: Option<Span>,
    /// The answer has said what it is called.
    named: bool,
}

impl Upstream {
    pub fn new(span: Option<Span>) -> Self {
        Self { span, ..Self::default() }
    }

    /// A try begins, at this host.
    pub fn enter(self: &Arc<Self>, host: Option<&str>) -> Inside {
        let before = self.tries.fetch_add(1, Ordering::Relaxed);
        let span = self.span.as_ref().map(|call| {
            tracing::info_span!(
                parent: call,
                "try",
                otel.name = "POST",
                otel.kind = "client",
                http.request.method = "POST",
                server.address = host.unwrap_or_default(),
                http.request.resend_count = (before > 0).then_some(before),
                error.type = Empty,
                otel.status_code = Empty,
            )
        });
        if let (Some(call), Some(host)) = (&self.span, host) {
            call.record("server.address", host);
        }
        Inside { call: Arc::clone(self), begun: Instant::now(), span, named: false }
    }

    pub fn tries(&self) -> u32 {
        self.tries.load(Ordering::Relaxed)
    }

    /// Of the tries that have ended.
    pub fn time(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }

    /// The usage that the provider told before its answer ended.
    pub fn said(&self) -> Option<Usage> {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    pub fn said(&self, usage: Option<Usage>) {
        if usage.is_some() {
            *self.call.said.lock().unwrap_or_else(PoisonError::into_inner) = usage;
        }
    }

    /// The answer, or its first event: it says what it and its model are called.
    pub fn heard(&mut self, data: &[u8]) {
        let Some(span) = self.call.span.as_ref().filter(|_| !self.named) else { return };
        let Ok(answer) = serde_json::from_slice::<Value>(data) else { return };
        // Anthropic's first event holds the message.
        let message = if answer["message"].is_object() { &answer["message"] } else { &answer };
        for (field, name) in [("id", "gen_ai.response.id"), ("model", "gen_ai.response.model")] {
            if let Some(text) = message[field].as_str() {
                span.record(name, text);
                self.named = true;
            }
        }
    }

    pub fn failed(&self, reason: &str) {
        if let Some(span) = &self.span {
            span.record("error.type", reason).record("otel.status_code", "ERROR");
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let micros = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.call.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tries_add_up_and_pauses_between_them_do_not() {
        let call = Arc::new(Upstream::default());
        assert_eq!((call.tries(), call.time()), (0, Duration::ZERO));
        for _ in 0..2 {
            let inside = call.enter(None);
            tokio::time::advance(Duration::from_millis(30)).await;
            inside.said(Some(Usage { output: 3, ..Usage::default() }));
            inside.said(None);
            drop(inside);
            tokio::time::advance(Duration::from_millis(500)).await;
        }
        assert_eq!((call.tries(), call.time()), (2, Duration::from_millis(60)));
        assert_eq!(call.said().unwrap().output, 3);
    }
}
