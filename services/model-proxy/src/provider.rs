//! Providers translate; they never touch the network.
//!
//! Invariants:
//! - Translation is a pure function of its input, so each provider is covered
//!   by pairs of files beside it: our request and theirs, their bytes and ours.
//! - A decoder ends with exactly one `Finished`, or with an error.
//!
//! To add a provider: its file and folder here, and its line in [`registry`].

pub mod openai;

use crate::{
    config::Config,
    error::{Error, Failure},
};
use bytes::Bytes;
use skein_proto::model::v1::{
    Delta, EmbedRequest, Embedding, Finished, GenerateRequest, Model, Usage,
};
use std::{sync::Arc, time::Duration};

/// What any model may say, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Delta(Delta),
    /// The last one. Its cost is filled in by whoever knows prices.
    Finished(Finished),
}

pub trait Provider: Send + Sync {
    /// The part before the slash in a model's name.
    fn name(&self) -> &'static str;
    fn generate(
        &self,
        model: &str,
        request: &GenerateRequest,
    ) -> Result<http::Request<Bytes>, Error>;
    /// A fresh decoder for the answer to `request`.
    fn decoder(&self, request: &GenerateRequest) -> Box<dyn Decoder>;
    fn embed(&self, model: &str, request: &EmbedRequest) -> Result<http::Request<Bytes>, Error>;
    fn embedded(&self, request: &EmbedRequest, body: &[u8]) -> Result<Embedded, Error>;
    fn list(&self) -> Result<http::Request<Bytes>, Error>;
    fn listed(&self, body: &[u8]) -> Result<Vec<Model>, Error>;
    /// What an error answer means. `failure` is what its status line says.
    fn refusal(&self, failure: Failure, body: &[u8]) -> Error;
}

/// Fed one server-sent event at a time.
pub trait Decoder: Send {
    fn push(&mut self, data: &str, out: &mut Vec<Event>) -> Result<(), Error>;
    /// The bytes have ended.
    fn end(&mut self, out: &mut Vec<Event>) -> Result<(), Error>;
    /// The whole answer in one document, from a server that does not stream.
    fn whole(&mut self, body: &[u8], out: &mut Vec<Event>) -> Result<(), Error>;
}

pub struct Embedded {
    pub embeddings: Vec<Embedding>,
    pub usage: Usage,
}

/// The providers that the configuration has a key or an address for.
pub fn registry(config: &Config) -> Result<Vec<Arc<dyn Provider>>, Error> {
    let mut providers: Vec<Arc<dyn Provider>> = Vec::new();
    if let Some(settings) = &config.openai {
        providers.push(Arc::new(openai::OpenAi::new(settings)?));
    }
    Ok(providers)
}

/// How long an error answer asks to wait; `retry-after-ms` is finer.
pub fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let seconds =
        number("retry-after-ms").map(|ms| ms / 1000.0).or_else(|| number("retry-after"))?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_in_either_unit() {
        let read = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs.iter().map(|(name, value)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
            });
            retry_after(&headers.collect())
        };
        assert_eq!(read(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(
            read(&[("retry-after-ms", "250"), ("retry-after", "1")]),
            Some(Duration::from_millis(250))
        );
        assert_eq!(read(&[("retry-after", "soon")]), None);
        assert_eq!(read(&[("retry-after", "-1")]), None);
    }
}
