//! What is counted of each call.
//!
//! Invariant: every call is counted once, with the outcome it really had; one
//! that nobody waited for any more counts as `cancelled`.

use crate::error::Error;
use mesh::error::ServiceError as _;
use metrics::{counter, histogram};
use skein_proto::model::v1::Usage;
use std::sync::Arc;
use tokio::time::Instant;

pub struct Meter {
    provider: Arc<str>,
    begun: Instant,
    outcome: &'static str,
}

impl Meter {
    pub fn start(provider: &Arc<str>) -> Self {
        Self { provider: Arc::clone(provider), begun: Instant::now(), outcome: "cancelled" }
    }

    pub fn first_event(&self) {
        histogram!("skein_model_first_token_seconds", "provider" => Arc::clone(&self.provider))
            .record(self.begun.elapsed().as_secs_f64());
    }

    pub fn finished(&mut self, usage: Option<&Usage>) {
        self.outcome = "ok";
        let Some(usage) = usage else { return };
        for (class, tokens) in [
            ("input", usage.input_uncached),
            ("cache_read", usage.input_cache_read),
            ("cache_write", usage.input_cache_write),
            ("output", usage.output),
        ] {
            counter!("skein_model_tokens_total", "provider" => Arc::clone(&self.provider), "class" => class)
                .increment(u64::try_from(tokens).unwrap_or_default());
        }
        if usage.estimated {
            counter!("skein_model_usage_missing_total", "provider" => Arc::clone(&self.provider))
                .increment(1);
        }
    }

    pub fn failed(&mut self, error: &Error) {
        self.outcome = error.reason().unwrap_or("ERROR");
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        counter!("skein_model_calls_total", "provider" => Arc::clone(&self.provider), "outcome" => self.outcome)
            .increment(1);
        histogram!("skein_model_call_seconds", "provider" => Arc::clone(&self.provider))
            .record(self.begun.elapsed().as_secs_f64());
    }
}
