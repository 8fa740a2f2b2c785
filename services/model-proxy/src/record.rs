//! The book of one call: what it used and cost, how it went, how long each part
//! took, and what was odd about it. No word of what was asked or answered.
//!
//! Invariants:
//! - Every call is counted once, with the outcome it really had; one that
//!   nobody waited for any more counts as `cancelled`.
//! - Whatever way a call ends after its provider was asked, what it used until
//!   then is counted, priced and, unless it ended well, said: in the error's
//!   status, or in the log where nobody is left to be told.

use crate::{
    anomaly::Watch,
    error::Error,
    estimate::Sample,
    meter::{Meter, Meters},
    models::Name,
    price::Prices,
    span,
    upstream::Upstream,
    usage::{self, Tally},
};
use mesh::{clock, error::ServiceError as _};
use skein_proto::model::v1::{Cost, Delta, Finished, ResponseFormat, Usage};
use std::sync::Arc;
use tokio::{runtime::Handle, time::Instant};
use tracing::{Instrument as _, Span};

pub use crate::span::Operation;

pub struct Record {
    call_id: String,
    begun: Instant,
    /// When the first event came, and something to bill with it.
    first: Option<Instant>,
    watch: Watch,
    upstream: Arc<Upstream>,
    /// Taken by whoever settles.
    open: Option<Account>,
    span: Option<Span>,
}

/// What is needed to count and price a call when it is over.
struct Account {
    meter: Arc<Meter>,
    prices: Arc<Prices>,
    provider: Arc<str>,
    id: String,
    /// When the call began, in seconds since 1970: its prices are of that day.
    at: i64,
    tally: Tally,
    /// Served faster or with tools of the provider's, and dearer than any price
    /// we know.
    premium: bool,
}

impl Record {
    pub fn open(meters: &Meters, operation: Operation, name: &Name, call_id: &str) -> Self {
        let meter = meters.of(name);
        meter.began();
        let span = span::call(operation, name, call_id);
        let account = Account {
            meter,
            prices: Arc::clone(meters.prices()),
            provider: Arc::clone(&name.provider),
            id: name.id.clone(),
            at: clock::now_seconds(),
            tally: Tally::default(),
            premium: false,
        };
        Self {
            call_id: call_id.to_owned(),
            begun: Instant::now(),
            first: None,
            watch: Watch::default(),
            upstream: Arc::new(Upstream::new(span.clone())),
            open: Some(account),
            span,
        }
    }

    /// What is asked.
    #[must_use]
    pub fn of(mut self, input: Sample, format: Option<&ResponseFormat>) -> Self {
        self.watch = Watch::new(format);
        if let Some(account) = &mut self.open {
            account.tally = Tally::new(input);
        }
        self
    }

    /// The fields of the provider's own that are asked for.
    #[must_use]
    pub fn with(mut self, extra_json: &str) -> Self {
        if let Some(account) = &mut self.open {
            account.premium = extra_json.contains(r#""web_search_options""#);
        }
        self
    }

    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    pub fn first_event(&mut self) {
        let first = Instant::now();
        self.first = Some(first);
        self.open.as_ref().inspect(|account| account.meter.first_token(first - self.begun));
    }

    pub fn delta(&mut self, delta: &Delta) {
        self.watch.delta(delta);
        if let Some(account) = &mut self.open {
            account.tally.delta(delta);
        }
    }

    pub fn image(&mut self) {
        self.watch.image();
        if let Some(account) = &mut self.open {
            account.tally.image();
        }
    }

    /// Completes what the provider said at the end, and closes.
    pub async fn finish(&mut self, finished: &mut Finished) {
        if let Some(account) = &self.open {
            for kind in self.watch.judge(finished) {
                account.meter.anomaly(kind);
            }
        }
        if let Some(account) = &mut self.open {
            account.premium |= premium(&finished.extra_json);
        }
        self.settle(&mut finished.usage).await;
        span::finished(self.span.as_ref(), finished);
    }

    /// Closes a call that has ended well with this usage, if the provider said.
    pub async fn settle(&mut self, told: &mut Option<Usage>) {
        if told.is_none()
            && let Some(account) = &self.open
        {
            account.meter.anomaly("usage_missing");
            *told = Some(account.tally.count(&account.id).await);
        }
        let Some(account) = self.open.take() else { return };
        let usage = told.get_or_insert_default();
        account.price(usage);
        account.meter.used(usage, self.first.map(|first| first.elapsed()));
        self.close(&account.meter, "ok");
        span::used(self.span.as_ref(), usage);
    }

    /// Closes a call that failed before it answered anything.
    pub fn refused(&mut self, error: Error) -> Error {
        if let Some(account) = self.open.take() {
            let reason = error.reason().unwrap_or("ERROR");
            span::failed(self.span.as_ref(), reason);
            self.close(&account.meter, reason);
        }
        error
    }

    /// Closes a call that failed in mid-answer; what it used until then, if it used anything.
    pub async fn fail(&mut self, error: &Error) -> Option<Usage> {
        let reason = error.reason().unwrap_or("ERROR");
        span::failed(self.span.as_ref(), reason);
        let usage = match &self.open {
            Some(account) => account.partial(&self.upstream).await,
            None => return None,
        };
        let account = self.open.take()?;
        account.meter.used(&usage, None);
        span::used(self.span.as_ref(), &usage);
        self.close(&account.meter, reason);
        Some(usage)
    }

    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    fn close(&self, meter: &Meter, outcome: &'static str) {
        meter.ended(outcome, self.begun.elapsed(), &self.upstream);
    }
}

impl Account {
    fn price(&self, usage: &mut Usage) {
        let model = format!("{}/{}", self.provider, self.id);
        let cost = self.prices.cost(&model, usage, self.at);
        usage.cost = Some(if self.premium { Cost::default() } else { cost });
    }

    /// What a call that ended here has used.
    async fn partial(&self, upstream: &Upstream) -> Usage {
        let counted = self.tally.count(&self.id).await;
        let mut usage = match upstream.said() {
            Some(said) => usage::at_least(said, counted),
            None => counted,
        };
        self.price(&mut usage);
        usage
    }

    /// Counts a call that nobody waits for any more.
    async fn left(self, call_id: String, upstream: Arc<Upstream>, span: Option<Span>) {
        let usage = self.partial(&upstream).await;
        self.meter.used(&usage, None);
        span::used(span.as_ref(), &usage);
        tracing::info!(
            call_id,
            provider = %self.provider,
            model = self.id,
            input_tokens = input(&usage),
            output_tokens = usage.output,
            estimated = usage.estimated,
            cost_nano_usd = usage.cost.and_then(|cost| cost.nano_usd),
            tries = upstream.tries(),
            "a model call was left by its caller"
        );
    }
}

/// Whether the provider says that it served the call at a higher price than the
/// usual, or searched the web for it, which it bills by the search: OpenAI's and
/// Anthropic's words, in what has no field of ours.
fn premium(extra_json: &str) -> bool {
    let mut searches = extra_json.split(r#""web_search_requests":"#).skip(1);
    [r#""service_tier":"priority""#, r#""speed":"fast""#]
        .iter()
        .any(|said| extra_json.contains(said))
        || searches.any(|count| count.starts_with(|digit| ('1'..='9').contains(&digit)))
}

/// All tokens of input, whatever their class.
pub fn input(usage: &Usage) -> i64 {
    let cached = usage.input_cache_read.saturating_add(usage.input_cache_write);
    usage.input_uncached.saturating_add(cached)
}

impl Drop for Record {
    fn drop(&mut self) {
        let Some(account) = self.open.take() else { return };
        self.close(&account.meter, "cancelled");
        span::failed(self.span.as_ref(), "cancelled");
        if self.upstream.tries() == 0 {
            return; // nobody was asked for anything
        }
        // Outlives its call, because the call is what has ended.
        if let Ok(runtime) = Handle::try_current() {
            let call_id = std::mem::take(&mut self.call_id);
            let left = account.left(call_id, Arc::clone(&self.upstream), self.span.take());
            runtime.spawn(left.in_current_span());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dearer_service_is_told_from_the_usual() {
        let none = r#"{"usage":{"server_tool_use":{"web_search_requests":0}}}"#;
        for usual in ["", none, r#"{"service_tier":"default"}"#, r#"{"service_tier":"flex"}"#] {
            assert!(!premium(usual), "{usual}");
        }
        let searched = r#"{"usage":{"server_tool_use":{"web_search_requests":2}}}"#;
        let fast = r#"{"usage":{"speed":"fast"}}"#;
        for dearer in [r#"{"service_tier":"priority","a":1}"#, fast, searched] {
            assert!(premium(dearer), "{dearer}");
        }
    }
}
