//! The span of a model call, by OpenTelemetry's conventions for generative AI.
//!
//! Invariants:
//! - A span is made only for a call whose trace a collector will be sent.
//! - It holds names, numbers and reasons, never a word of a prompt or answer.

use crate::{models::Name, record};
use mesh::telemetry;
use skein_proto::model::v1::{FinishReason, Finished, Usage};
use tracing::{Span, field::Empty};

/// What is asked of a model, in the conventions' words.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    Chat,
    Embeddings,
    Image,
}

impl Operation {
    const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embeddings => "embeddings",
            Self::Image => "generate_content",
        }
    }

    const fn output(self) -> Option<&'static str> {
        match self {
            Self::Image => Some("image"),
            Self::Chat | Self::Embeddings => None,
        }
    }
}

pub(crate) fn call(operation: Operation, name: &Name, call_id: &str) -> Option<Span> {
    telemetry::sampled().then(|| {
        tracing::info_span!(
            "model_call",
            otel.name = format!("{} {}", operation.name(), name.id),
            otel.kind = "client",
            otel.status_code = Empty,
            error.type = Empty,
            server.address = Empty,
            gen_ai.operation.name = operation.name(),
            gen_ai.output.type = operation.output(),
            gen_ai.provider.name = provider(&name.provider),
            gen_ai.request.model = name.id,
            gen_ai.response.id = Empty,
            gen_ai.response.model = Empty,
            gen_ai.usage.input_tokens = Empty,
            gen_ai.usage.output_tokens = Empty,
            gen_ai.usage.cache_read.input_tokens = Empty,
            gen_ai.usage.cache_creation.input_tokens = Empty,
            gen_ai.usage.reasoning.output_tokens = Empty,
            skein.call_id = call_id,
            skein.usage.estimated = Empty,
            skein.cost.nano_usd = Empty,
        )
    })
}

pub(crate) fn used(span: Option<&Span>, usage: &Usage) {
    let Some(span) = span else { return };
    span.record("gen_ai.usage.input_tokens", record::input(usage))
        .record("gen_ai.usage.output_tokens", usage.output)
        .record("gen_ai.usage.cache_read.input_tokens", usage.input_cache_read)
        .record("gen_ai.usage.cache_creation.input_tokens", usage.input_cache_write)
        .record("gen_ai.usage.reasoning.output_tokens", usage.output_reasoning)
        .record("skein.usage.estimated", usage.estimated)
        .record("skein.cost.nano_usd", usage.cost.and_then(|cost| cost.nano_usd));
}

pub(crate) fn finished(span: Option<&Span>, finished: &Finished) {
    let Some(span) = span else { return };
    let reasons = finished.choices.iter().map(|choice| match choice.finish_reason() {
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::ContentFilter => "content_filter",
        FinishReason::Stop | FinishReason::Unspecified => "stop",
    });
    telemetry::texts(span, "gen_ai.response.finish_reasons", reasons);
}

pub(crate) fn failed(span: Option<&Span>, reason: &str) {
    let Some(span) = span else { return };
    span.record("error.type", reason).record("otel.status_code", "ERROR");
}

/// The conventions' names of providers that they have a name for.
fn provider(name: &str) -> &str {
    match name {
        "azure" => "azure.ai.openai",
        "google" => "gcp.gemini",
        "mistral" => "mistral_ai",
        "moonshot" => "moonshot_ai",
        "xai" => "x_ai",
        other => other,
    }
}
