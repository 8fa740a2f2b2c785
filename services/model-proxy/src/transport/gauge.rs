//! What is counted of the connections to one host.
//!
//! Invariant: as many labels as [`HOSTS`] and one more, whatever addresses
//! providers tell us to fetch things from.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use std::{sync::Arc, time::Duration};

/// Hosts with a name of their own in the metrics; the rest is `other`.
pub(super) const HOSTS: usize = 32;

pub(super) struct Gauges {
    pub(super) connections: Gauge,
    streams: Gauge,
    waited: Histogram,
    opened: Counter,
    failed: Counter,
    resent: Counter,
}

impl Gauges {
    pub(super) fn new(host: &str) -> Self {
        let host: Arc<str> = host.into();
        let opening = |outcome| counter!("skein_provider_connects_total", "host" => Arc::clone(&host), "outcome" => outcome);
        Self {
            opened: opening("ok"),
            failed: opening("failed"),
            connections: gauge!("skein_provider_connections", "host" => Arc::clone(&host)),
            streams: gauge!("skein_provider_streams", "host" => Arc::clone(&host)),
            waited: histogram!("skein_provider_queue_seconds", "host" => Arc::clone(&host)),
            resent: counter!("skein_provider_resent_total", "host" => host),
        }
    }

    /// How long a call waited for a place on a connection.
    pub(super) fn waited(&self, span: Duration) {
        self.waited.record(span.as_secs_f64());
    }

    pub(super) fn connected(&self, came_about: bool) {
        if came_about { &self.opened } else { &self.failed }.increment(1);
    }

    /// A call met a connection that was already dead, and was sent again.
    pub(super) fn resent(&self) {
        self.resent.increment(1);
    }

    /// Counts as long as it lives.
    pub(super) fn stream(&self) -> InFlight {
        self.streams.increment(1.0);
        InFlight(self.streams.clone())
    }

    pub(super) fn connection(&self) -> InFlight {
        self.connections.increment(1.0);
        InFlight(self.connections.clone())
    }
}

pub(super) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
