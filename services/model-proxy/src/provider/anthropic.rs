//! Anthropic's dialect: the Messages API.
//!
//! Invariants:
//! - What the caller sent in this dialect and we have no name for reaches the
//!   provider, and what comes back in it reaches the caller, under `anthropic`.
//! - Every answer counts its own tokens: nothing has to be asked for.
//!
//! The version asked for is the one whose documents this follows; servers that
//! only know an older one take it from `anthropic.api_version`.

mod blocks;
mod messages;
mod request;
mod stream;
mod traits;
mod usage;

use super::{Ask, Key, Provider, wait};
use crate::{
    config::ProviderSettings,
    error::{Error, Failure},
    price::Prices,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::Value;
use skein_proto::model::v1::{Capability, GenerateRequest, Model};
use std::sync::Arc;

const NAME: &str = "anthropic";
const VERSION: &str = "2026-10-21";
/// More models than there are.
const PAGE: &str = "/v1/models?limit=1000";

pub struct Anthropic {
    name: Arc<str>,
    base: String,
    keys: Vec<Key>,
    headers: HeaderMap,
    prices: Arc<Prices>,
}

impl Anthropic {
    /// `prices` knows how much a model can say.
    pub fn new(settings: &ProviderSettings, prices: Arc<Prices>) -> Result<Self, Error> {
        // Both spellings of the address are in use.
        let base = settings.base_url.trim_end_matches("/v1").to_owned();
        let _: http::Uri = base.parse().map_err(|_| {
            Error::invalid("ANTHROPIC_BASE_URL", format!("{base:?} is not an http(s) URL"))
        })?;
        let name = HeaderName::from_static("x-api-key");
        let key = |(position, secret): (usize, &mesh::config::Secret)| {
            Key::header(position, name.clone(), secret.expose(), settings.variable)
        };
        let keys: Vec<Key> = settings.keys.iter().enumerate().map(key).collect::<Result<_, _>>()?;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let version = settings.version.as_deref().unwrap_or(VERSION);
        for (name, field, value) in [
            ("anthropic-version", "anthropic.api_version", version),
            ("anthropic-beta", "anthropic.beta", settings.beta.as_deref().unwrap_or_default()),
        ] {
            if !value.is_empty() {
                let value = HeaderValue::try_from(value)
                    .map_err(|_| Error::invalid(field, "holds a character that no header may"))?;
                headers.insert(name, value);
            }
        }
        let keys = if keys.is_empty() { vec![Key::none()] } else { keys };
        Ok(Self { name: Arc::clone(&settings.name), base, keys, headers, prices })
    }

    fn request(
        &self,
        method: http::Method,
        path: &str,
        body: Bytes,
    ) -> Result<http::Request<Bytes>, Error> {
        let request = http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        let mut request =
            request.body(body).map_err(|error| malformed(format!("build request: {error}")))?;
        request.headers_mut().clone_from(&self.headers);
        Ok(request)
    }

    fn most(&self, model: &str) -> Option<i64> {
        let known = self.prices.find(&format!("{NAME}/{model}"))?;
        Some(known.max_output).filter(|most| *most > 0)
    }
}

impl Provider for Anthropic {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn generate(&self, model: &str, request: &GenerateRequest) -> Result<Ask, Error> {
        let body = request::body(model, request, self.most(model))?;
        let body = Value::Object(body).to_string().into();
        let request = self.request(http::Method::POST, "/v1/messages", body)?;
        Ok(Ask { request, decoder: Box::new(stream::Stream::default()) })
    }

    fn list(&self) -> Result<Option<http::Request<Bytes>>, Error> {
        self.request(http::Method::GET, PAGE, Bytes::new()).map(Some)
    }

    fn listed(&self, body: &[u8]) -> Result<Vec<Model>, Error> {
        let answer = parse(body)?;
        let data = answer["data"].as_array().ok_or_else(|| malformed("models without `data`"))?;
        Ok(data.iter().filter_map(model).collect())
    }

    fn refusal(&self, failure: Failure, body: &[u8]) -> Error {
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        refusal(failure, &answer["error"])
    }
}

fn model(entry: &Value) -> Option<Model> {
    let id = entry["id"].as_str()?;
    let created = entry["created_at"].as_str().and_then(wait::rfc3339);
    let has = |name: &str| entry["capabilities"][name]["supported"] == true;
    let capabilities = [
        (true, Capability::Chat),
        (true, Capability::Tools),
        (has("image_input"), Capability::ImageInput),
        (has("structured_outputs"), Capability::JsonSchema),
    ];
    Some(Model {
        id: format!("{NAME}/{id}"),
        provider: NAME.to_owned(),
        capabilities: capabilities
            .into_iter()
            .filter_map(|(has, capability)| has.then_some(capability.into()))
            .collect(),
        created_unix: created.unwrap_or_default() / 1_000_000,
        context_window: entry["max_input_tokens"].as_i64().unwrap_or_default(),
        max_output: entry["max_tokens"].as_i64().unwrap_or_default(),
        ..Model::default()
    })
}

/// Reads `{"type","message","details"?}`, or whatever stands in its place.
fn refusal(failure: Failure, error: &Value) -> Error {
    let message = error["message"].as_str().unwrap_or("gave no reason");
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    let nothing_left = error["type"] == "billing_error"
        || error["details"]["error_code"] == "enforced_spend_limit_reached"
        || says(&["credit balance is too low", "API usage limits"]);
    let failure = match failure {
        Failure::BadRequest | Failure::RateLimited { .. } if nothing_left => Failure::Quota,
        Failure::BadRequest if says(&["prompt is too long", "exceed context limit"]) => {
            Failure::ContextLength
        }
        Failure::BadRequest if says(&["content filtering policy"]) => Failure::ContentFilter,
        other => other,
    };
    Error::provider(NAME, failure, message)
}

/// An `error` event, or an error in place of an answer: its status is in its type.
fn refusal_in_stream(event: &Value) -> Error {
    let error = &event["error"];
    let failure = match error["type"].as_str().unwrap_or_default() {
        "invalid_request_error" | "request_too_large" => Failure::BadRequest,
        "authentication_error" => Failure::Unauthenticated,
        "permission_error" => Failure::Forbidden,
        "billing_error" => Failure::Quota,
        "not_found_error" => Failure::NotFound,
        "rate_limit_error" => Failure::RateLimited { retry_after: None },
        "overloaded_error" => Failure::Overloaded,
        _ => Failure::Unavailable,
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

#[cfg(test)]
#[path = "anthropic/differences.rs"]
mod differences;
#[cfg(test)]
#[path = "anthropic/golden.rs"]
mod golden;
#[cfg(test)]
#[path = "anthropic/recordings.rs"]
mod recordings;
