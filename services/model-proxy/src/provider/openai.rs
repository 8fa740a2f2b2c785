//! OpenAI's dialect, for OpenAI itself and for every server that speaks it.
//!
//! Invariants:
//! - What a client sent in the same dialect and we have no name for reaches the
//!   provider (`extra_json`), but never replaces a field that we do have.
//! - Usage is always asked for; money depends on it.

mod chat;
mod embeddings;
mod images;
mod plain;
mod stream;

use super::{Ask, Embedded, Key, Provider, extra};
use crate::{
    config::ProviderSettings,
    error::{Error, Failure, Hint},
    exchange::related,
};
use bytes::Bytes;
use serde_json::{Map, Value};
use skein_proto::model::v1::{EmbedRequest, GenerateImageRequest, GenerateRequest, Model};
use std::sync::Arc;

const NAME: &str = "openai";

pub struct OpenAi {
    name: Arc<str>,
    base: String,
    keys: Vec<Key>,
    /// api.openai.com refuses `max_tokens` for its newer models; most
    /// compatible servers know nothing else.
    max_tokens_field: &'static str,
}

impl OpenAi {
    pub fn new(settings: &ProviderSettings) -> Result<Self, Error> {
        let base = settings.base_url.clone();
        let uri: http::Uri = base.parse().map_err(|_| {
            Error::invalid("OPENAI_BASE_URL", format!("{base:?} is not an http(s) URL"))
        })?;
        let official = uri.host() == Some("api.openai.com");
        let max_tokens_field = if official { "max_completion_tokens" } else { "max_tokens" };
        let keys = super::bearers(settings)?;
        Ok(Self { name: Arc::clone(&settings.name), base, keys, max_tokens_field })
    }

    fn request(
        &self,
        method: http::Method,
        path: &str,
        body: Bytes,
    ) -> Result<http::Request<Bytes>, Error> {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(http::header::CONTENT_TYPE, "application/json");
        request.body(body).map_err(|error| malformed(format!("build request: {error}")))
    }
}

impl Provider for OpenAi {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn generate(&self, model: &str, request: &GenerateRequest) -> Result<Ask, Error> {
        let body = chat::body(model, request, self.max_tokens_field)?;
        let request = self.request(http::Method::POST, "/chat/completions", encode(body))?;
        Ok(Ask { request, decoder: Box::new(stream::Stream::default()) })
    }

    fn image(&self, model: &str, request: &GenerateImageRequest) -> Result<Ask, Error> {
        let body = images::body(model, request)?;
        let decoder = Box::new(images::Images::new(Arc::clone(&self.name), &body));
        let request = self.request(http::Method::POST, "/images/generations", encode(body))?;
        Ok(Ask { request, decoder })
    }

    fn draws_data(&self, model: &str) -> bool {
        images::draws_data(model)
    }

    fn owns(&self, host: &str) -> bool {
        let base: http::Uri = self.base.parse().unwrap_or_default();
        related(base.host(), Some(host))
    }

    fn embed(&self, model: &str, request: &EmbedRequest) -> Result<http::Request<Bytes>, Error> {
        self.request(http::Method::POST, "/embeddings", encode(embeddings::body(model, request)?))
    }

    fn embedded(&self, request: &EmbedRequest, body: &[u8]) -> Result<Embedded, Error> {
        embeddings::read(request.inputs.len(), body)
    }

    fn list(&self) -> Result<Option<http::Request<Bytes>>, Error> {
        self.request(http::Method::GET, "/models", Bytes::new()).map(Some)
    }

    fn listed(&self, body: &[u8]) -> Result<Vec<Model>, Error> {
        let answer: Value = parse(body)?;
        let data = answer["data"].as_array().ok_or_else(|| malformed("models without `data`"))?;
        let model = |entry: &Value| {
            Some(Model {
                id: format!("{NAME}/{}", entry["id"].as_str()?),
                provider: NAME.to_owned(),
                created_unix: entry["created"].as_i64().unwrap_or_default(),
                ..Model::default()
            })
        };
        Ok(data.iter().filter_map(model).collect())
    }

    fn refusal(&self, failure: Failure, body: &[u8]) -> Error {
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        refusal(failure, &answer["error"])
    }
}

/// Reads `{"message","type","param","code"}`, or whatever stands in its place.
fn refusal(failure: Failure, error: &Value) -> Error {
    let word = |name: &str| error[name].as_str().unwrap_or_default();
    let quota = [word("code"), word("type")].iter().any(|code| {
        matches!(
            *code,
            "insufficient_quota" | "credit_balance_exhausted" | "billing_hard_limit_reached"
        )
    });
    let failure = match failure {
        Failure::RateLimited { .. } if quota => Failure::Quota,
        other => other,
    };
    let said = error.as_str().unwrap_or_else(|| word("message"));
    let message = match failure {
        // The provider's text may repeat a part of the key.
        Failure::Unauthenticated => "the provider refuses our key: check OPENAI_API_KEY".to_owned(),
        _ if said.is_empty() => "the provider answered with an error and no message".to_owned(),
        _ => said.to_owned(),
    };
    let param = error["param"].as_str().map(str::to_owned);
    Error::Provider {
        provider: NAME.to_owned(),
        failure,
        message,
        param,
        tries: 1,
        hint: Hint::default(),
    }
}

/// What an error object inside a stream that began well amounts to.
fn refusal_in_stream(error: &Value) -> Error {
    let status = [&error["status"], &error["code"]].into_iter().find_map(Value::as_u64);
    let names = [error["code"].as_str(), error["type"].as_str()];
    let is = |wanted: &[&str]| names.iter().flatten().any(|name| wanted.contains(name));
    let failure = if is(&["rate_limit_exceeded", "rate_limit_error", "insufficient_quota"]) {
        Failure::RateLimited { retry_after: None }
    } else if is(&["invalid_request_error", "context_length_exceeded"]) {
        Failure::BadRequest
    } else if let Some(status) = status.and_then(|status| u16::try_from(status).ok()) {
        Failure::of_status(status, None)
    } else {
        Failure::Unavailable
    };
    refusal(failure, error)
}

fn malformed(message: impl Into<String>) -> Error {
    Error::provider(NAME, Failure::Malformed, message)
}

fn parse(body: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(body)
        .map_err(|error| malformed(format!("the answer is not JSON: {error}")))
}

fn encode(body: Map<String, Value>) -> Bytes {
    Value::Object(body).to_string().into()
}

/// Adds the caller's own fields without replacing any of ours.
fn merge_extra(body: &mut Map<String, Value>, extra_json: &str) -> Result<(), Error> {
    // `stream_options` holds a field of ours beside others.
    extra::merge(body, extra::object("extra_json", extra_json)?, &["stream_options"]);
    Ok(())
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod recordings;
