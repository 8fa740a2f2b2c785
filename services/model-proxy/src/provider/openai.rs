//! OpenAI's dialect, for OpenAI itself and for every server that speaks it.
//!
//! Invariants:
//! - What a client sent in the same dialect and we have no name for reaches the
//!   provider (`extra_json`), but never replaces a field that we do have.
//! - Usage is always asked for; money depends on it.
//! - An error names the provider it came from, and the variable of its key.

mod calls;
mod chat;
mod embeddings;
mod images;
mod messages;
mod plain;
mod refusal;
mod stream;
mod usage;
mod vendor;

use super::{Ask, Embedded, Key, Provider, extra};
use crate::{
    config::ProviderSettings,
    error::{Error, Failure},
    exchange::related,
};
use bytes::Bytes;
use http::{HeaderName, Method};
use refusal::Voice;
use serde_json::{Map, Value};
use skein_proto::model::v1::{EmbedRequest, GenerateImageRequest, GenerateRequest, Model};
use std::sync::Arc;
use vendor::{Address, Vendor};

const API_KEY: HeaderName = HeaderName::from_static("api-key");

pub struct OpenAi {
    voice: Arc<Voice>,
    vendor: &'static Vendor,
    base: String,
    version: Option<String>,
    keys: Vec<Key>,
}

impl OpenAi {
    pub fn new(settings: &ProviderSettings) -> Result<Self, Error> {
        let base = settings.base_url.clone();
        let uri: http::Uri = base.parse().map_err(|_| {
            Error::invalid(format!("{}.base_url", settings.name), "is not an http(s) URL")
        })?;
        let vendor = vendor::of(settings, uri.host().unwrap_or_default());
        let keys = match vendor.address {
            Address::Plain => super::bearers(settings)?,
            Address::Azure => api_keys(settings)?,
        };
        let voice = Voice { name: Arc::clone(&settings.name), variable: settings.variable };
        let version = settings.version.clone();
        Ok(Self { voice: Arc::new(voice), vendor, base, version, keys })
    }

    fn post(&self, model: &str, path: &str, body: Map<String, Value>) -> Result<Request, Error> {
        let body = Value::Object(body).to_string();
        self.request(Method::POST, &self.url(Some(model), path)?, body.into())
    }

    fn request(&self, method: Method, url: &str, body: Bytes) -> Result<Request, Error> {
        let request = http::Request::builder()
            .method(method)
            .uri(url)
            .header(http::header::CONTENT_TYPE, "application/json");
        request.body(body).map_err(|error| self.voice.malformed(format!("build request: {error}")))
    }

    /// Azure has two ways: without a version, or with `v1` or `preview`, the
    /// path is OpenAI's own below `/openai/v1`; a dated version goes with the
    /// deployment in the path.
    fn url(&self, model: Option<&str>, path: &str) -> Result<String, Error> {
        if self.vendor.address == Address::Plain {
            return Ok(format!("{}{path}", self.base));
        }
        let root = self.base.strip_suffix("/v1").unwrap_or(&self.base);
        let root = root.strip_suffix("/openai").unwrap_or(root);
        Ok(match (self.version.as_deref(), model) {
            (None | Some("v1"), _) => format!("{root}/openai/v1{path}"),
            (Some(version @ "preview"), _) => {
                format!("{root}/openai/v1{path}?api-version={version}")
            }
            (Some(version), None) => format!("{root}/openai{path}?api-version={version}"),
            (Some(version), Some(model)) => {
                let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
                if !model.chars().all(plain) || model.chars().all(|c| c == '.') {
                    return Err(Error::invalid("model", "is no name of a deployment"));
                }
                format!("{root}/openai/deployments/{model}{path}?api-version={version}")
            }
        })
    }
}

type Request = http::Request<Bytes>;

fn api_keys(settings: &ProviderSettings) -> Result<Vec<Key>, Error> {
    let keys = settings.keys.iter().enumerate();
    let keys = keys.map(|(at, key)| Key::header(at, API_KEY, key.expose(), settings.variable));
    let keys: Vec<Key> = keys.collect::<Result<_, _>>()?;
    Ok(if keys.is_empty() { vec![Key::none()] } else { keys })
}

impl Provider for OpenAi {
    fn name(&self) -> &Arc<str> {
        &self.voice.name
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn generate(&self, model: &str, request: &GenerateRequest) -> Result<Ask, Error> {
        let body = chat::body(model, request, self.vendor)?;
        let choices = request.sampling.as_ref().and_then(|sampling| sampling.n).unwrap_or(1);
        let request = self.post(model, "/chat/completions", body)?;
        let decoder = Box::new(stream::Stream::new(Arc::clone(&self.voice), choices));
        Ok(Ask { request, decoder })
    }

    fn image(&self, model: &str, request: &GenerateImageRequest) -> Result<Ask, Error> {
        let body = images::body(model, request)?;
        let decoder = Box::new(images::Images::new(Arc::clone(&self.voice), &body));
        let request = self.post(model, "/images/generations", body)?;
        Ok(Ask { request, decoder })
    }

    fn draws_data(&self, model: &str) -> bool {
        images::draws_data(model)
    }

    fn owns(&self, host: &str) -> bool {
        let base: http::Uri = self.base.parse().unwrap_or_default();
        related(base.host(), Some(host))
    }

    fn embed(&self, model: &str, request: &EmbedRequest) -> Result<Request, Error> {
        self.post(model, "/embeddings", embeddings::body(model, request)?)
    }

    fn embedded(&self, request: &EmbedRequest, body: &[u8]) -> Result<Embedded, Error> {
        embeddings::read(&self.voice, request.inputs.len(), body)
    }

    fn list(&self) -> Result<Option<Request>, Error> {
        self.request(Method::GET, &self.url(None, "/models")?, Bytes::new()).map(Some)
    }

    fn listed(&self, body: &[u8]) -> Result<Vec<Model>, Error> {
        let answer = self.voice.parse(body)?;
        // Together sends the list alone.
        let data = answer["data"].as_array().or(answer.as_array());
        let data = data.ok_or_else(|| self.voice.malformed("models without `data`"))?;
        let name = &self.voice.name;
        let model = |entry: &Value| {
            Some(Model {
                id: format!("{name}/{}", entry["id"].as_str()?),
                provider: name.to_string(),
                created_unix: entry["created"].as_i64().unwrap_or_default(),
                ..Model::default()
            })
        };
        Ok(data.iter().filter_map(model).collect())
    }

    fn refusal(&self, failure: Failure, body: &[u8]) -> Error {
        self.voice.refusal(failure, body)
    }
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod recordings;
#[cfg(test)]
mod vendor_tests;
