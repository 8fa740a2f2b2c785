//! Providers translate; they never touch the network.
//!
//! Invariants:
//! - Translation is a pure function of its input, so each provider is covered
//!   by pairs of files beside it: our request and theirs, their bytes and ours.
//! - A decoder ends with exactly one `Finished`, or with an error.
//! - No translator sees a key: [`Key`] is put on the request when it is sent.
//!
//! To add a provider: its file and folder here, its settings in
//! `config/providers`, and its line in [`registry`].

pub mod anthropic;
mod arguments;
mod extra;
mod headers;
#[cfg(test)]
mod mutated;
pub mod openai;
#[cfg(test)]
mod replay;
pub mod replicate;
mod sources;
#[cfg(test)]
mod usage_tests;
mod wait;

pub use headers::{Quota, retry_after};

use crate::{
    config::{Config, Kind, ProviderSettings},
    error::{Error, Failure, Hint},
    sse,
};
use bytes::Bytes;
use mesh::config::Secret;
use skein_proto::model::v1::{
    Delta, EmbedRequest, Embedding, Finished, GenerateImageRequest, GenerateRequest, ImageDone,
    ImageProgress, Model, Usage,
};
use std::{sync::Arc, time::Duration};

/// What any model may say, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Delta(Delta),
    Progress(ImageProgress),
    Image(ImageDone),
    /// The last one. `usage` is absent if the provider never told it; usage and
    /// cost are completed by whoever knows tokenizers and prices.
    Finished(Finished),
}

/// A request, without a key, and what will read the answer to it.
pub struct Ask {
    pub request: http::Request<Bytes>,
    pub decoder: Box<dyn Decoder>,
}

/// A key of a provider as it goes onto a request.
#[derive(Clone)]
pub struct Key {
    /// What it is called where the key itself must not appear: `1`, `2`, …
    pub label: Arc<str>,
    /// Absent for servers that want no key.
    header: Option<(http::HeaderName, http::HeaderValue)>,
}

impl Key {
    /// `Authorization: Bearer <secret>`.
    pub fn bearer(position: usize, secret: &Secret, variable: &str) -> Result<Self, Error> {
        let value = format!("Bearer {}", secret.expose());
        Self::header(position, http::header::AUTHORIZATION, &value, variable)
    }

    /// A header of the provider's own; `variable` is where the key came from.
    pub fn header(
        position: usize,
        name: http::HeaderName,
        value: &str,
        variable: &str,
    ) -> Result<Self, Error> {
        let mut value = http::HeaderValue::try_from(value)
            .map_err(|_| Error::invalid(variable, "holds a character that no header may"))?;
        value.set_sensitive(true);
        Ok(Self { label: (position + 1).to_string().into(), header: Some((name, value)) })
    }

    pub fn none() -> Self {
        Self { label: "1".into(), header: None }
    }

    pub fn put(&self, headers: &mut http::HeaderMap) {
        if let Some((name, value)) = &self.header {
            headers.insert(name.clone(), value.clone());
        }
    }

    /// The error without this key in its text.
    #[must_use]
    pub fn hide(&self, mut error: Error) -> Error {
        let value = self.header.as_ref().and_then(|(_, value)| value.to_str().ok());
        let secret = value.map(|value| value.strip_prefix("Bearer ").unwrap_or(value));
        if let (Error::Provider { message, param, .. }, Some(secret)) = (&mut error, secret)
            && !secret.is_empty()
        {
            for text in [Some(message), param.as_mut()].into_iter().flatten() {
                *text = without(secret, text);
            }
        }
        error
    }
}

/// `text` without `secret`, and without a beginning of it where the text was
/// cut short.
fn without(secret: &str, text: &str) -> String {
    let mut text = text.replace(secret, "***");
    let mut begun = (4..secret.len()).rev().filter_map(|length| secret.get(..length));
    if let Some(cut) = begun.find(|begun| text.ends_with(begun)) {
        text.truncate(text.len() - cut.len());
        text.push_str("***");
    }
    text
}

pub trait Provider: Send + Sync {
    /// The part before the slash in a model's name.
    fn name(&self) -> &Arc<str>;
    /// At least one.
    fn keys(&self) -> &[Key];
    /// Whether a request that was sent, and of which nothing came back, may be
    /// sent again: it may have been carried out.
    fn repeats_blindly(&self) -> bool {
        true
    }
    fn generate(&self, model: &str, request: &GenerateRequest) -> Result<Ask, Error>;
    fn image(&self, model: &str, _: &GenerateImageRequest) -> Result<Ask, Error> {
        Err(unable(self.name(), model, "makes no pictures"))
    }
    fn embed(&self, model: &str, _: &EmbedRequest) -> Result<http::Request<Bytes>, Error> {
        Err(unable(self.name(), model, "embeds nothing"))
    }
    fn embedded(&self, _: &EmbedRequest, _: &[u8]) -> Result<Embedded, Error> {
        Err(Error::provider(self.name(), Failure::Malformed, "nothing was asked"))
    }
    /// Whether a picture of `model` comes as data and never as a URL.
    fn draws_data(&self, _model: &str) -> bool {
        false
    }
    /// Whether what lies at `host` may be fetched as this provider's picture.
    fn owns(&self, _host: &str) -> bool {
        false
    }
    /// `None` where the models cannot be asked for: those with a price are
    /// known then.
    fn list(&self) -> Result<Option<http::Request<Bytes>>, Error>;
    fn listed(&self, body: &[u8]) -> Result<Vec<Model>, Error>;
    /// What an error answer means. `failure` is what its status line says.
    fn refusal(&self, failure: Failure, body: &[u8]) -> Error;
    /// What the headers of an answer say is left of a key's allowance.
    fn quota(&self, headers: &http::HeaderMap) -> Quota {
        Quota::of(headers)
    }
}

/// Fed one server-sent event at a time.
pub trait Decoder: Send {
    fn push(&mut self, event: &sse::Event, out: &mut Vec<Event>) -> Result<(), Error>;
    /// The bytes have ended, in whatever way.
    fn end(&mut self, out: &mut Vec<Event>) -> Result<(), Error>;
    /// The whole answer in one document, from a server that does not stream.
    fn whole(&mut self, body: &[u8], out: &mut Vec<Event>) -> Result<(), Error>;
    /// Whether nothing of the rest of this body is worth waiting for.
    fn is_through(&self) -> bool {
        false
    }
    /// Where the answer goes on after a body that has ended without the last
    /// event: asked after `end` or `whole`, and again, with what was `lost`,
    /// after a follow that failed. `None` if it goes on nowhere; the last event
    /// may come of that.
    fn follow(&mut self, _lost: Option<Failure>, _out: &mut Vec<Event>) -> Option<Follow> {
        None
    }
    /// The provider's own name for the call, where it is not in the headers.
    fn request_id(&self) -> Option<&str> {
        None
    }
    /// What the provider has said of usage before its last event.
    fn used(&self) -> Option<Usage> {
        None
    }
    /// What the provider must be told if nobody waits for the rest any more.
    fn abandon(&self) -> Option<http::Request<Bytes>> {
        None
    }
}

/// The next request of the same answer. It gets the first one's key only if it
/// goes to the first one's host or to a sibling of it.
pub struct Follow {
    pub request: http::Request<Bytes>,
    pub after: Duration,
}

pub struct Embedded {
    pub embeddings: Vec<Embedding>,
    /// Absent if the provider did not say.
    pub usage: Option<Usage>,
}

/// The providers that the configuration has a key or an address for.
pub fn registry(config: &Config) -> Result<Vec<Arc<dyn Provider>>, Error> {
    config
        .providers
        .iter()
        .map(|settings| {
            Ok(match settings.kind {
                Kind::OpenAi => Arc::new(openai::OpenAi::new(settings)?) as Arc<dyn Provider>,
                Kind::Replicate => Arc::new(replicate::Replicate::new(settings)?),
                Kind::Anthropic => {
                    Arc::new(anthropic::Anthropic::new(settings, Arc::clone(&config.prices))?)
                }
            })
        })
        .collect()
}

/// What an error answer means: the status line first, then the headers, and
/// its body sharpens both.
pub fn refused(
    provider: &dyn Provider,
    status: u16,
    headers: &http::HeaderMap,
    body: &[u8],
) -> Error {
    let document = || serde_json::from_slice(body).ok();
    let after = retry_after(headers).or_else(|| wait::in_body(&document()?));
    let failure = Failure::of_status(status, after);
    let hint = Hint { again: headers::should_retry(headers), after };
    provider.refusal(failure, body).hinted(hint)
}

fn bearers(settings: &ProviderSettings) -> Result<Vec<Key>, Error> {
    let keys = settings.keys.iter().enumerate();
    let keys = keys.map(|(position, key)| Key::bearer(position, key, settings.variable));
    let keys: Vec<Key> = keys.collect::<Result<_, _>>()?;
    Ok(if keys.is_empty() { vec![Key::none()] } else { keys })
}

fn unable(provider: &str, model: &str, what: &str) -> Error {
    Error::invalid("model", format!("{provider}/{model} {what}"))
}

#[cfg(test)]
mod tests {
    use super::without;

    #[test]
    fn a_key_that_was_cut_is_no_key() {
        assert_eq!(without("sk-12345678", "bad key sk-12345678 here"), "bad key *** here");
        assert_eq!(without("sk-12345678", "bad key sk-12345"), "bad key ***");
        assert_eq!(without("sk-12345678", "ends with s"), "ends with s");
    }
}
