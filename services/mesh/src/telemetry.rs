//! Logs to stdout, spans to OTLP when a collector is configured, metrics for
//! Prometheus.
//!
//! Invariants:
//! - Whoever initialises telemetry also shuts it down, last, after the last
//!   span has ended; otherwise the final batch is lost.
//! - One global filter: per-layer filters drop spans (tracing#2519).
//! - A collector that is off or out of reach costs the calls nothing.

use crate::config::Common;
use http::HeaderMap;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::{
    KeyValue, StringValue,
    propagation::Extractor,
    trace::{TraceContextExt as _, TracerProvider as _},
};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use std::{
    io::IsTerminal as _,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{
    EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

#[must_use = "spans are lost unless `shutdown` is awaited"]
pub struct Telemetry(Option<SdkTracerProvider>);

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("SKEIN_LOG={filter:?} is no log filter: {reason}")]
    Filter { filter: String, reason: String },
    #[error("cannot export traces to {endpoint}: {reason}")]
    Export { endpoint: String, reason: String },
}

impl Telemetry {
    /// Must run inside the Tokio runtime: the exporter's connection lives there.
    pub fn init(common: &Common) -> Result<Self, TelemetryError> {
        let filter = EnvFilter::try_new(&common.log).map_err(|error| TelemetryError::Filter {
            filter: common.log.clone(),
            reason: error.to_string(),
        })?;
        let endpoint = common.otlp_endpoint.as_deref();
        EXPORTING.fetch_or(endpoint.is_some(), Ordering::Relaxed);
        let provider = endpoint.map(|at| provider(at, common)).transpose()?;
        let spans = provider.as_ref().map(|provider| {
            opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
            // What nobody looks up in a trace, and every span would pay for.
            tracing_opentelemetry::layer()
                .with_location(false)
                .with_threads(false)
                .with_target(false)
                .with_tracked_inactivity(false)
                .with_tracer(provider.tracer("skein"))
        });
        let json = common.on_fly && !std::io::stdout().is_terminal();
        let lines = tracing_subscriber::fmt::layer();
        let lines = if json { lines.json().flatten_event(true).boxed() } else { lines.boxed() };
        let _ = tracing_subscriber::registry().with(filter).with(spans).with(lines).try_init();
        prometheus();
        Ok(Self(provider))
    }

    /// Flushes on a blocking thread: the exporter needs the runtime to progress.
    pub async fn shutdown(self) {
        let Some(provider) = self.0 else { return };
        match tokio::task::spawn_blocking(move || provider.shutdown()).await {
            Ok(Ok(())) => {}
            failed => tracing::warn!(?failed, "telemetry was not flushed"),
        }
    }
}

fn provider(endpoint: &str, common: &Common) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|error| TelemetryError::Export {
            endpoint: endpoint.to_owned(),
            reason: error.to_string(),
        })?;
    let identity = &common.identity;
    let resource = Resource::builder()
        .with_service_name(format!("skein-{}", identity.role))
        .with_attribute(KeyValue::new("service.instance.id", identity.machine.clone()))
        .with_attribute(KeyValue::new("cloud.region", identity.region.clone()))
        .with_attribute(KeyValue::new("service.version", identity.release.clone()))
        .build();
    // Whoever began a trace has decided for all who take part in it.
    let sampler = Sampler::TraceIdRatioBased(common.trace_sample);
    Ok(SdkTracerProvider::builder()
        .with_resource(resource)
        .with_sampler(Sampler::ParentBased(Box::new(sampler)))
        .with_batch_exporter(exporter)
        .build())
}

static EXPORTING: AtomicBool = AtomicBool::new(false);

static PROMETHEUS: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Seconds; from a cached answer to a long completion.
const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Those of calls to models: thinking takes minutes, and what we add to a call
/// is less than a thousandth of it.
const MODEL_BUCKETS: [f64; 16] = [
    0.005, 0.025, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 60.0, 180.0, 600.0, 1800.0,
];
const OVERHEAD_BUCKETS: [f64; 12] =
    [0.000_05, 0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 10.0];
const TOKENS_A_SECOND: [f64; 10] = [1.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 2500.0];

/// Which histogram has which bounds; the first that fits holds.
fn bounds() -> [(Matcher, &'static [f64]); 5] {
    let full = |name: &str| Matcher::Full(name.to_owned());
    [
        (full("skein_model_first_token_seconds"), &MODEL_BUCKETS),
        (full("skein_model_call_seconds"), &MODEL_BUCKETS),
        (full("skein_model_overhead_seconds"), &OVERHEAD_BUCKETS),
        (full("skein_model_tokens_per_second"), &TOKENS_A_SECOND),
        (Matcher::Suffix("_seconds".to_owned()), &BUCKETS),
    ]
}

/// The process's metrics; several services in one process (tests) share them.
pub fn prometheus() -> Option<&'static PrometheusHandle> {
    let install = || {
        let bounded =
            bounds().into_iter().try_fold(PrometheusBuilder::new(), |builder, (of, at)| {
                builder.set_buckets_for_metric(of, at).ok()
            });
        bounded?.install_recorder().ok()
    };
    PROMETHEUS.get_or_init(install).as_ref()
}

/// Between two clearings of what the histograms have gathered.
const UPKEEP: Duration = Duration::from_secs(5);

/// Recorded values pile up until somebody renders or clears them: without this
/// a process that nobody scrapes would grow with every call.
pub(crate) async fn upkeep() {
    loop {
        tokio::time::sleep(UPKEEP).await;
        prometheus().inspect(|handle| handle.run_upkeep());
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }
    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// Whether the current span is one that a collector will be sent; whoever makes
/// spans of his own asks first, so that what is not looked at costs nothing.
pub fn sampled() -> bool {
    EXPORTING.load(Ordering::Relaxed)
        && Span::current().context().span().span_context().is_sampled()
}

/// Sets an attribute that is a list, which a field of `tracing` cannot be.
pub fn texts(span: &Span, name: &'static str, values: impl Iterator<Item = &'static str>) {
    let values: Vec<StringValue> = values.map(StringValue::from).collect();
    span.set_attribute(name, opentelemetry::Value::Array(values.into()));
}

/// Makes `span` a child of the trace the caller sent along.
pub fn follow(span: &Span, headers: &HeaderMap) {
    if headers.contains_key("traceparent") {
        let parent = opentelemetry::global::get_text_map_propagator(|propagator| {
            propagator.extract(&Headers(headers))
        });
        let _ = span.set_parent(parent);
    }
}

struct HeadersMut<'a>(&'a mut HeaderMap);

impl opentelemetry::propagation::Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        let name = http::HeaderName::from_bytes(key.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value.parse()) {
            self.0.insert(name, value);
        }
    }
}

/// Sends the current trace along.
pub fn inject(headers: &mut HeaderMap) {
    let context = Span::current().context();
    opentelemetry::global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&context, &mut HeadersMut(headers));
    });
}
