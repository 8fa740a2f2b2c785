//! Replicate: chat models and picture models as predictions.
//!
//! A call is a chain of requests: the prediction is created, then heard over
//! its stream of events where it has one and polled where it has none, and
//! looked at once more when it has ended, for its status and its counts.
//!
//! Invariants:
//! - A create is sent again only if nothing was sent, or if it was refused.
//! - A prediction that was created and has not ended is canceled when its
//!   caller leaves or its call fails. One whose caller leaves before the create
//!   is answered has no name yet; `Cancel-After` ends it with the call's time.
//! - The token goes to Replicate's hosts alone, as `exchange` has it.
//! - No error repeats the prompt.
//!
//! Pictures are asked for with `Prefer: wait=1`: the fast models answer in one
//! exchange, and for no longer than that second a prediction has no name.

mod input;
mod output;
mod prediction;

use super::{Ask, Key, Provider};
use crate::{
    config::{Patience, ProviderSettings},
    error::{Error, Failure},
    exchange::related,
};
use bytes::Bytes;
use output::Wanted;
use prediction::Prediction;
use serde_json::{Map, Value, json};
use skein_proto::model::v1::{GenerateImageRequest, GenerateRequest, Model};
use std::{sync::Arc, time::Duration};

const NAME: &str = "replicate";
/// Where its models' files lie.
const FILES: &str = "replicate.delivery";
const WAIT: http::HeaderValue = http::HeaderValue::from_static("wait=1");

pub struct Replicate {
    name: Arc<str>,
    base: Arc<str>,
    host: String,
    keys: Vec<Key>,
    /// After which a prediction cancels itself: no call of ours takes longer.
    cancel_after: Duration,
}

/// Where a prediction is created: a path, and the version to name in the body.
#[derive(Debug, PartialEq, Eq)]
struct Route {
    path: String,
    version: Option<String>,
}

impl Replicate {
    pub fn new(settings: &ProviderSettings) -> Result<Self, Error> {
        let base = settings.base_url.as_str();
        let uri: http::Uri = base.parse().map_err(|_| {
            Error::invalid("REPLICATE_BASE_URL", format!("{base:?} is not an http(s) URL"))
        })?;
        // Which models think for long, only the table of prices knows.
        let longest = settings.patience.total.or(Patience::REASONING.total);
        Ok(Self {
            name: Arc::clone(&settings.name),
            base: base.into(),
            host: uri.host().unwrap_or_default().to_owned(),
            keys: super::bearers(settings)?,
            cancel_after: settings.timers.total.max(longest.unwrap_or_default()),
        })
    }

    fn create(
        &self,
        model: &str,
        input: &Map<String, Value>,
        prompt: &str,
        wanted: Wanted,
    ) -> Result<Ask, Error> {
        let route = route(model)?;
        let mut body = json!({"input": input});
        if let Some(version) = route.version {
            body["version"] = version.into();
        }
        let mut request = http::Request::post(format!("{}{}", self.base, route.path))
            .header(http::header::CONTENT_TYPE, "application/json")
            .header("cancel-after", format!("{}s", self.cancel_after.as_secs().max(1)));
        if matches!(wanted, Wanted::Pictures) {
            request = request.header("prefer", WAIT);
        }
        let request = request.body(body.to_string().into());
        let request = request.map_err(|error| malformed(format!("build request: {error}")))?;
        let decoder = Prediction::new(Arc::clone(&self.base), wanted, prompt.to_owned());
        Ok(Ask { request, decoder: Box::new(decoder) })
    }
}

impl Provider for Replicate {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn repeats_blindly(&self) -> bool {
        false
    }

    fn generate(&self, model: &str, request: &GenerateRequest) -> Result<Ask, Error> {
        let (input, prompt) = input::chat(request)?;
        let longest = request.sampling.as_ref().and_then(|sampling| sampling.max_tokens);
        self.create(model, &input, &prompt, Wanted::Text { longest })
    }

    fn image(&self, model: &str, request: &GenerateImageRequest) -> Result<Ask, Error> {
        self.create(model, &input::image(request)?, &request.prompt, Wanted::Pictures)
    }

    fn owns(&self, host: &str) -> bool {
        let below =
            host.strip_suffix(FILES).is_some_and(|sub| sub.is_empty() || sub.ends_with('.'));
        below || related(Some(&self.host), Some(host))
    }

    /// Of the public models there are thousands, and they are named by pages.
    fn list(&self) -> Result<Option<http::Request<Bytes>>, Error> {
        Ok(None)
    }

    fn listed(&self, _: &[u8]) -> Result<Vec<Model>, Error> {
        Ok(Vec::new())
    }

    fn refusal(&self, failure: Failure, body: &[u8]) -> Error {
        output::refusal(failure, body)
    }
}

/// `owner/name` is an official model, `owner/name:version` any version of any
/// model, `deployments/owner/name` a deployment of one's own.
fn route(model: &str) -> Result<Route, Error> {
    let plain = |part: &&str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !part.is_empty() && part.bytes().all(allowed) && !part.bytes().all(|byte| byte == b'.')
    };
    let (name, version) = match model.split_once(':') {
        Some((name, version)) => (name, Some(version)),
        None => (model, None),
    };
    let parts: Vec<_> = name.split('/').collect();
    let good = parts.iter().chain(version.as_ref()).all(plain);
    let path = match (parts.as_slice(), version) {
        ([_, _], Some(_)) if good => "/predictions".to_owned(),
        ([owner, name], None) if good => format!("/models/{owner}/{name}/predictions"),
        (["deployments", owner, name], None) if good => {
            format!("/deployments/{owner}/{name}/predictions")
        }
        _ => {
            let rule = "must be replicate/<owner>/<name>, with :<version> after it or not, or \
                        replicate/deployments/<owner>/<name>";
            return Err(Error::invalid("model", rule));
        }
    };
    Ok(Route { path, version: version.map(str::to_owned) })
}

fn malformed(message: impl Into<String>) -> Error {
    Error::provider(NAME, Failure::Malformed, message)
}

#[cfg(test)]
#[path = "replicate/golden.rs"]
mod golden;
