//! What is counted of all calls, by provider, model and region.
//!
//! Invariants:
//! - Labels are bounded: a model has its own if it has a price or is computed
//!   here, and `other` if not.
//! - A call finds its counters ready made; a piece of an answer touches none.

use crate::{models::Name, price::Prices, upstream::Upstream};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use skein_proto::model::v1::Usage;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// The counters of every model that was called.
pub struct Meters {
    region: Arc<str>,
    prices: Arc<Prices>,
    known: Mutex<HashMap<String, Arc<Meter>>>,
}

/// The counters of one model.
pub struct Meter {
    labels: [(&'static str, Arc<str>); 3],
    ok: Counter,
    in_flight: Gauge,
    first_token: Histogram,
    whole: Histogram,
    overhead: Histogram,
    rate: Histogram,
    tokens: [Counter; 6],
    cost: Counter,
    unpriced: Counter,
}

const CLASSES: [&str; 6] = ["input", "cache_read", "cache_write", "output", "reasoning", "images"];

impl Meters {
    pub fn new(region: &str, prices: Arc<Prices>) -> Self {
        Self { region: region.into(), prices, known: Mutex::default() }
    }

    pub const fn prices(&self) -> &Arc<Prices> {
        &self.prices
    }

    pub fn of(&self, name: &Name) -> Arc<Meter> {
        let full = name.full();
        let bounded = match self.prices.name(&full) {
            Some(priced) => priced,
            None if name.provider.as_ref() == "local" => full.as_str(),
            None => "",
        };
        let model = bounded.split_once('/').map_or("other", |(_, id)| id);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = if bounded.is_empty() { name.provider.as_ref() } else { bounded };
        if let Some(meter) = known.get(key) {
            return Arc::clone(meter);
        }
        let labels = [Arc::clone(&name.provider), model.into(), Arc::clone(&self.region)];
        let meter = Arc::new(Meter::new(labels));
        known.insert(key.to_owned(), Arc::clone(&meter));
        meter
    }
}

impl Meter {
    fn new([provider, model, region]: [Arc<str>; 3]) -> Self {
        let labels = [("provider", provider), ("model", model), ("region", region)];
        let with = |name: &'static str, value: &'static str| {
            let [provider, model, region] = labels.clone();
            [provider, model, region, (name, value.into())]
        };
        Self {
            ok: counter!("skein_model_calls_total", &with("outcome", "ok")),
            in_flight: gauge!("skein_model_in_flight", &labels),
            first_token: histogram!("skein_model_first_token_seconds", &labels),
            whole: histogram!("skein_model_call_seconds", &labels),
            overhead: histogram!("skein_model_overhead_seconds", &labels),
            rate: histogram!("skein_model_tokens_per_second", &labels),
            tokens: CLASSES
                .map(|class| counter!("skein_model_tokens_total", &with("class", class))),
            cost: counter!("skein_model_cost_nano_usd_total", &labels),
            unpriced: counter!("skein_model_unpriced_total", &labels),
            labels,
        }
    }

    pub fn began(&self) {
        self.in_flight.increment(1);
    }

    pub fn first_token(&self, after: Duration) {
        self.first_token.record(after);
    }

    /// Every call ends here, once.
    pub fn ended(&self, outcome: &'static str, took: Duration, upstream: &Upstream) {
        self.in_flight.decrement(1);
        if outcome == "ok" {
            self.ok.increment(1);
        } else {
            counter!("skein_model_calls_total", &self.and("outcome", outcome)).increment(1);
        }
        self.whole.record(took);
        // A call that is left may still be inside its last try.
        if upstream.tries() > 0 && outcome != "cancelled" {
            self.overhead.record(took.saturating_sub(upstream.time()));
        }
    }

    /// `speaking` is the time from the first word to the last.
    pub fn used(&self, usage: &Usage, speaking: Option<Duration>) {
        let counts = [
            usage.input_uncached,
            usage.input_cache_read,
            usage.input_cache_write,
            usage.output,
            usage.output_reasoning,
            usage.images,
        ];
        for (counter, count) in self.tokens.iter().zip(counts) {
            counter.increment(u64::try_from(count).unwrap_or_default());
        }
        match usage.cost.and_then(|cost| cost.nano_usd) {
            Some(cost) => self.cost.increment(u64::try_from(cost).unwrap_or_default()),
            None => self.unpriced.increment(1),
        }
        let seconds = speaking.map(|time| time.as_secs_f64()).filter(|seconds| *seconds > 0.0);
        if let Some(seconds) = seconds
            && let Ok(output) = u32::try_from(usage.output)
            && output > 1
        {
            self.rate.record(f64::from(output) / seconds);
        }
    }

    /// Something about an answer that is no failure and should not be.
    pub fn anomaly(&self, kind: &'static str) {
        counter!("skein_model_anomalies_total", &self.and("kind", kind)).increment(1);
    }

    fn and(&self, name: &'static str, value: &'static str) -> [(&'static str, Arc<str>); 4] {
        let [provider, model, region] = self.labels.clone();
        [provider, model, region, (name, value.into())]
    }
}
