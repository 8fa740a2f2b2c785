//! Every model that can be called here, by its name `<provider>/<id>`.
//!
//! Invariants:
//! - Whoever serves a call, its usage is whole and its cost comes from one table.
//! - A name that is not known is answered with the nearest ones that are.

use crate::{
    batch::{Answer, Batches},
    call::{Begun, Caller, Target},
    config::{Config, HealthSettings},
    embed,
    error::Error,
    pictures::{Pictures, Store},
    price::Prices,
    provider::Event,
    remote::Remote,
    upstream::Upstream,
};
use futures_util::StreamExt as _;
use mesh::ready::Readiness;
use skein_proto::{
    mesh::v1::ProviderStatus,
    model::v1::{
        EmbedRequest, GenerateImageRequest, GenerateRequest, Model, ModelHealth, ModelProvider,
    },
};
use std::{sync::Arc, time::Duration};
use tokio_util::task::AbortOnDropHandle;

#[cfg(not(feature = "local"))]
use std::future::{Ready, ready};

#[cfg(feature = "local")]
use crate::local::{self, Engine};

/// Names are kept, logged and shown.
const LONGEST_NAME: usize = 256;

pub struct Models {
    remote: Option<Remote>,
    batches: Arc<Batches>,
    prices: Arc<Prices>,
    pictures: Arc<Pictures>,
    image_timeout: Duration,
    #[cfg(feature = "local")]
    local: Arc<Engine>,
}

/// A model's name in its two parts.
pub struct Name {
    pub provider: Arc<str>,
    pub id: String,
}

impl Models {
    pub fn new(config: &Config) -> Result<Self, Error> {
        let store = config.bucket.as_ref().map(Store::new).transpose()?;
        Ok(Self {
            remote: Remote::new(config)?,
            batches: Batches::new(config.batch_wait),
            prices: Arc::clone(&config.prices),
            pictures: Arc::new(Pictures::new(store)),
            image_timeout: config.image_timeout,
            #[cfg(feature = "local")]
            local: Arc::new(Engine::start(&config.local)?),
        })
    }

    pub const fn prices(&self) -> &Arc<Prices> {
        &self.prices
    }

    /// Probes the providers until the answer is dropped.
    pub fn watch(
        &self,
        settings: &HealthSettings,
        readiness: &Readiness,
    ) -> Vec<AbortOnDropHandle<()>> {
        self.remote.as_ref().map(|remote| remote.watch(settings, readiness)).unwrap_or_default()
    }

    /// Whose models can be called by any id.
    pub fn open(&self, region: &str) -> Vec<ModelProvider> {
        let each = self.remote.iter().flat_map(|remote| remote.health.each());
        let one = |(name, health, health_reason): (Arc<str>, ModelHealth, String)| ModelProvider {
            name: name.to_string(),
            region: region.to_owned(),
            health: health.into(),
            health_reason,
        };
        each.map(one).collect()
    }

    /// How each provider is.
    pub fn providers(&self) -> Vec<ProviderStatus> {
        self.remote.as_ref().map(|remote| remote.health.status()).unwrap_or_default()
    }

    /// Who serves `model`, if anybody does.
    pub async fn find(&self, model: &str) -> Result<Name, Error> {
        if model.is_empty() {
            return Err(Error::invalid("model", "must not be empty"));
        }
        if model.len() > LONGEST_NAME {
            let message =
                format!("is {} bytes long, at most {LONGEST_NAME} are taken", model.len());
            return Err(Error::invalid("model", message));
        }
        let (provider, id) = model.split_once('/').unwrap_or(("", model));
        #[cfg(feature = "local")]
        if provider == local::PROVIDER
            && [local::EXTRACTIVE, local::MINILM, local::SMOLLM2].contains(&id)
        {
            return Ok(Name { provider: local::PROVIDER.into(), id: id.to_owned() });
        }
        if !id.is_empty()
            && let Some(known) = self.remote.as_ref().and_then(|remote| remote.name(provider))
        {
            return Ok(Name { provider: Arc::clone(known), id: id.to_owned() });
        }
        let known = self.list().await;
        Err(Error::UnknownModel(unknown(model, known.iter().map(|model| model.id.as_str()))))
    }

    pub async fn generate(
        &self,
        name: &Name,
        request: GenerateRequest,
        upstream: &Arc<Upstream>,
    ) -> Result<Begun, Error> {
        match self.remote(name, upstream) {
            Some((target, caller)) => {
                let ask = || target.provider.generate(&name.id, &request);
                caller.stream(&target, ask).await
            }
            None => self.generate_here(name, request).await,
        }
    }

    pub async fn image(
        &self,
        name: &Name,
        request: GenerateImageRequest,
        upstream: &Arc<Upstream>,
    ) -> Result<Begun, Error> {
        let Some((mut target, caller)) = self.remote(name, upstream) else {
            let message = format!("{} makes no pictures", name.full());
            return Err(Error::invalid("model", message));
        };
        target.timers.first_token = self.image_timeout;
        let (provider, delivery) = (Arc::clone(&target.provider), request.delivery());
        self.pictures.check(delivery, provider.draws_data(&name.id))?;
        let mut begun = caller.stream(&target, || provider.image(&name.id, &request)).await?;
        let (pictures, transport) = (Arc::clone(&self.pictures), Arc::clone(caller.transport()));
        begun.events = Box::pin(begun.events.then(move |event| {
            let (pictures, transport) = (Arc::clone(&pictures), Arc::clone(&transport));
            let provider = Arc::clone(&provider);
            async move {
                let mut event = event?;
                if let Event::Image(done) = &mut event {
                    let image = done.image.take().unwrap_or_default();
                    let delivered =
                        pictures.deliver(image, delivery, provider.as_ref(), &transport).await;
                    done.image = Some(delivered?);
                }
                Ok(event)
            }
        }));
        Ok(begun)
    }

    /// The usage is absent if the provider did not say.
    pub async fn embed(
        &self,
        name: &Name,
        request: EmbedRequest,
        upstream: &Arc<Upstream>,
    ) -> Answer {
        let (model, dimensions) = (name.full(), request.dimensions);
        let known = self.prices.find(&model);
        embed::check(name, &request, known)?;
        let (embeddings, usage) = match self.remote(name, upstream) {
            Some((target, caller)) => {
                let way = embed::asking(target, Arc::clone(caller));
                self.batches.embed(&model, request, upstream, &way).await?
            }
            None => self.embed_here(name, request, upstream).await?,
        };
        Ok((embed::settle(name, dimensions, known, embeddings)?, usage))
    }

    pub async fn list(&self) -> Vec<Model> {
        let mut models = Vec::new();
        #[cfg(feature = "local")]
        models.extend(self.local.list());
        if let Some(remote) = &self.remote {
            models.extend(remote.listings.models().await);
        }
        models
    }

    fn remote(&self, name: &Name, upstream: &Arc<Upstream>) -> Option<(Target, &Arc<Caller>)> {
        let remote = self.remote.as_ref()?;
        let target = remote.target(&name.provider, &name.id, Arc::clone(upstream))?;
        Some((target, &remote.caller))
    }

    #[cfg(feature = "local")]
    async fn generate_here(&self, name: &Name, request: GenerateRequest) -> Result<Begun, Error> {
        if name.id == local::MINILM {
            return Err(Error::invalid(
                "model",
                "local/minilm embeds, it does not chat: use local/extractive",
            ));
        }
        local::check(&request)?;
        let events = self.local.generate(&name.id, request).await?;
        Ok(Begun { events, request_id: String::new(), tries: 1 })
    }

    #[cfg(feature = "local")]
    async fn embed_here(
        &self,
        name: &Name,
        request: EmbedRequest,
        upstream: &Arc<Upstream>,
    ) -> Answer {
        if name.id != local::MINILM {
            let message = format!("{} chats, it does not embed: use local/minilm", name.full());
            return Err(Error::invalid("model", message));
        }
        let way = embed::computing(Arc::clone(&self.local));
        // An ingestion fills batches of its own.
        if request.inputs.len() > way.limits.inputs {
            return (way.ask)(request, Arc::clone(upstream)).await;
        }
        self.batches.embed(&name.full(), request, upstream, &way).await
    }

    #[cfg(not(feature = "local"))]
    fn generate_here(&self, name: &Name, _: GenerateRequest) -> Ready<Result<Begun, Error>> {
        ready(Err(Error::UnknownModel(unknown(&name.full(), []))))
    }

    #[cfg(not(feature = "local"))]
    fn embed_here(&self, name: &Name, _: EmbedRequest, _: &Arc<Upstream>) -> Ready<Answer> {
        ready(Err(Error::UnknownModel(unknown(&name.full(), []))))
    }
}

impl Name {
    pub fn full(&self) -> String {
        format!("{}/{}", self.provider, self.id)
    }
}

fn unknown<'a>(model: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let mut near: Vec<_> = known.into_iter().map(|name| (distance(model, name), name)).collect();
    near.sort();
    let near: Vec<_> = near.into_iter().take(3).map(|(_, name)| name).collect();
    let hint = if near.is_empty() {
        "set OPENAI_API_KEY or run `make models` to have some".to_owned()
    } else {
        format!("near it are {}", near.join(", "))
    };
    format!("no model {model:?} here: {hint}")
}

/// How many letters have to change; a name without its provider is as near.
fn distance(asked: &str, name: &str) -> usize {
    let id = name.split_once('/').map_or(name, |(_, id)| id);
    edits(asked, name).min(edits(asked, id))
}

fn edits(a: &str, b: &str) -> usize {
    // A name longer than this is no near miss of any.
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(128).collect(), b.chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_told() {
        let known = ["local/minilm", "local/extractive", "openai/gpt-4o-mini", "openai/o3"];
        assert!(unknown("gpt4o-mini", known).contains("near it are openai/gpt-4o-mini,"));
        assert!(unknown("local/extractve", known).contains("near it are local/extractive,"));
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
