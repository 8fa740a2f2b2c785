//! Every model that can be called here, by its name `<provider>/<id>`.
//!
//! Invariants:
//! - Whoever serves a call, its usage is whole and its cost comes from one table.
//! - A name that is not known is answered with the nearest ones that are.

use crate::{
    call::{Begun, Caller, Target},
    config::{Config, Patience, Timers},
    error::Error,
    health::Health,
    pictures::{Pictures, Store},
    price::Prices,
    provider::{self, Event, Provider},
    transport::Transport,
    upstream::Upstream,
};
use futures_util::StreamExt as _;
use mesh::clock;
use skein_proto::model::v1::{
    Capability, EmbedRequest, Embedding, GenerateImageRequest, GenerateRequest, Model, ModelHealth,
    Usage,
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Mutex, time::Instant};

#[cfg(not(feature = "local"))]
use std::future::{Ready, ready};

#[cfg(feature = "local")]
use crate::local::{self, Engine};

/// How long a provider's list of models is taken as it was, and how long
/// somebody who asks for it waits for a new one.
const LIST_AGE: Duration = Duration::from_secs(300);
const LIST_WAIT: Duration = Duration::from_secs(3);

pub struct Models {
    providers: Vec<(Arc<dyn Provider>, (Timers, Patience))>,
    caller: Option<Caller>,
    prices: Arc<Prices>,
    pictures: Arc<Pictures>,
    image_timeout: Duration,
    listed: Mutex<Option<(Instant, Vec<Model>)>>,
    #[cfg(feature = "local")]
    local: Engine,
}

/// A model's name in its two parts.
pub struct Name {
    pub provider: Arc<str>,
    pub id: String,
}

impl Models {
    pub fn new(config: &Config) -> Result<Self, Error> {
        let providers = provider::registry(config)?;
        // Without a provider no certificates are looked for.
        let caller = (!providers.is_empty()).then(|| caller(config, &providers)).transpose()?;
        let timers = config.providers.iter().map(|settings| (settings.timers, settings.patience));
        let providers = providers.into_iter().zip(timers).collect();
        let store = config.bucket.as_ref().map(Store::new).transpose()?;
        Ok(Self {
            providers,
            caller,
            prices: Arc::clone(&config.prices),
            pictures: Arc::new(Pictures::new(store)),
            image_timeout: config.image_timeout,
            listed: Mutex::new(None),
            #[cfg(feature = "local")]
            local: Engine::start(&config.local)?,
        })
    }

    pub const fn prices(&self) -> &Arc<Prices> {
        &self.prices
    }

    /// Who serves `model`, if anybody does.
    pub async fn find(&self, model: &str) -> Result<Name, Error> {
        if model.is_empty() {
            return Err(Error::invalid("model", "must not be empty"));
        }
        let (provider, id) = model.split_once('/').unwrap_or(("", model));
        #[cfg(feature = "local")]
        if provider == local::PROVIDER
            && [local::EXTRACTIVE, local::MINILM, local::SMOLLM2].contains(&id)
        {
            return Ok(Name { provider: local::PROVIDER.into(), id: id.to_owned() });
        }
        if !id.is_empty()
            && let Some(found) = self.providers.iter().find(|known| &**known.0.name() == provider)
        {
            return Ok(Name { provider: Arc::clone(found.0.name()), id: id.to_owned() });
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
    ) -> Result<(Vec<Embedding>, Option<Usage>), Error> {
        let Some((target, caller)) = self.remote(name, upstream) else {
            let (embeddings, usage) = self.embed_here(name, request).await?;
            return Ok((embeddings, Some(usage)));
        };
        let ask = || target.provider.embed(&name.id, &request);
        let body = caller.document(&target, ask).await?;
        let embedded = target.provider.embedded(&request, &body)?;
        Ok((embedded.embeddings, embedded.usage))
    }

    pub async fn list(&self) -> Vec<Model> {
        let mut models = Vec::new();
        #[cfg(feature = "local")]
        models.extend(self.local.list());
        models.extend(self.list_remote().await);
        models
    }

    /// What the providers say they have; a provider that does not answer in
    /// time is listed as it was before.
    async fn list_remote(&self) -> Vec<Model> {
        let Some(caller) = &self.caller else { return Vec::new() };
        let mut listed = self.listed.lock().await;
        if let Some((at, models)) = listed.as_ref()
            && at.elapsed() < LIST_AGE
        {
            return models.clone();
        }
        let mut models = Vec::new();
        for (provider, (timers, _)) in &self.providers {
            match self.list_one(provider, *timers, caller).await {
                Ok(found) => models.extend(found),
                Err(error) => {
                    tracing::warn!(provider = %provider.name(), %error, "cannot list models");
                    return listed.as_ref().map(|(_, models)| models.clone()).unwrap_or_default();
                }
            }
        }
        *listed = Some((Instant::now(), models.clone()));
        models
    }

    async fn list_one(
        &self,
        provider: &Arc<dyn Provider>,
        timers: Timers,
        caller: &Caller,
    ) -> Result<Vec<Model>, Error> {
        let timers = Timers { total: timers.total.min(LIST_WAIT), ..timers };
        let target = Target {
            provider: Arc::clone(provider),
            model: String::new(),
            timers,
            upstream: Arc::default(),
        };
        let lists = provider.list()?.is_some();
        let mut models = if lists {
            let ask =
                || provider.list()?.ok_or_else(|| Error::invalid("model", "cannot be listed"));
            provider.listed(&caller.document(&target, ask).await?)?
        } else {
            self.priced(provider.name())
        };
        for model in &mut models {
            model.health = ModelHealth::Up.into();
            if let Some(known) = self.prices.find(&model.id) {
                model.capabilities = known.capabilities();
                if !lists {
                    // What a model can do is not what its provider has words for.
                    let plain = [Capability::Chat, Capability::Embed, Capability::Image];
                    model
                        .capabilities
                        .retain(|can| plain.iter().any(|one| i32::from(*one) == *can));
                }
                model.context_window = known.context_window;
                model.max_output = known.max_output;
                model.dimensions = known.dimensions;
                model.price = known.price(clock::now_seconds()).cloned();
            }
        }
        Ok(models)
    }

    /// The models of a provider that have a price.
    fn priced(&self, provider: &Arc<str>) -> Vec<Model> {
        let named = |id: &str| Model {
            id: id.to_owned(),
            provider: provider.to_string(),
            ..Model::default()
        };
        self.prices.of(provider).map(named).collect()
    }

    fn remote(&self, name: &Name, upstream: &Arc<Upstream>) -> Option<(Target, &Caller)> {
        let (provider, (timers, given)) =
            self.providers.iter().find(|(known, _)| *known.name() == name.provider)?;
        let (provider, model) = (Arc::clone(provider), name.id.clone());
        let timers = timers.with(self.patience(name, *given));
        let upstream = Arc::clone(upstream);
        Some((Target { provider, model, timers, upstream }, self.caller.as_ref()?))
    }

    /// The timers that differ from the provider's for this model: those of the
    /// price file before all, and what thinking takes where nobody set any.
    fn patience(&self, name: &Name, given: Patience) -> Patience {
        let Some(listed) = self.prices.find(&name.full()) else { return Patience::default() };
        let thinks = if listed.reasoning { Patience::REASONING } else { Patience::default() };
        thinks.unless(given).then(listed.patience)
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
    ) -> Result<(Vec<Embedding>, Usage), Error> {
        if name.id != local::MINILM {
            let message = format!("{} chats, it does not embed: use local/minilm", name.full());
            return Err(Error::invalid("model", message));
        }
        self.local.embed_request(request).await
    }

    #[cfg(not(feature = "local"))]
    fn generate_here(&self, name: &Name, _: GenerateRequest) -> Ready<Result<Begun, Error>> {
        ready(Err(Error::UnknownModel(unknown(&name.full(), []))))
    }

    #[cfg(not(feature = "local"))]
    fn embed_here(
        &self,
        name: &Name,
        _: EmbedRequest,
    ) -> Ready<Result<(Vec<Embedding>, Usage), Error>> {
        ready(Err(Error::UnknownModel(unknown(&name.full(), []))))
    }
}

fn caller(config: &Config, providers: &[Arc<dyn Provider>]) -> Result<Caller, Error> {
    let connect = config.providers.iter().map(|settings| settings.timers.connect).max();
    let transport = Transport::new(&config.network, connect.unwrap_or_default())
        .map_err(|error| Error::Local(format!("set up HTTPS client: {error}")))?;
    // Who has a key for a provider will call it.
    for settings in config.providers.iter().filter(|settings| !settings.keys.is_empty()) {
        match settings.base_url.parse() {
            Ok(uri) => transport.warm(&uri, settings.timers.connect),
            Err(error) => tracing::warn!(provider = %settings.name, %error, "not a base URL"),
        }
    }
    Ok(Caller::new(Arc::new(transport), Arc::new(Health::default()), config.call, providers))
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
