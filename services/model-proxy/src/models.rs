//! Every model that can be called here, by its name `<provider>/<id>`.
//!
//! Invariants:
//! - Whoever serves a call, its usage is whole and its cost comes from one table.
//! - A name that is not known is answered with the nearest ones that are.

use crate::{
    config::Config,
    error::Error,
    price::Prices,
    provider::{self, Event, Provider},
    transport::{Events, Transport},
};
use futures_util::StreamExt as _;
use skein_proto::model::v1::{
    EmbedRequest, Embedding, GenerateRequest, Model, ModelHealth, Usage, embed_input::Input,
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
    providers: Vec<Arc<dyn Provider>>,
    transport: Option<Transport>,
    prices: Arc<Prices>,
    listed: Mutex<Option<(Instant, Vec<Model>)>>,
    #[cfg(feature = "local")]
    local: Engine,
}

/// A model's name in its two parts.
pub struct Name {
    pub provider: &'static str,
    pub id: String,
}

impl Models {
    pub fn new(config: &Config) -> Result<Self, Error> {
        let providers = provider::registry(config)?;
        // Without a provider no certificates are looked for.
        let transport = if providers.is_empty() {
            None
        } else {
            let transport = Transport::new(config.timers);
            Some(transport.map_err(|error| Error::Local(format!("set up HTTPS client: {error}")))?)
        };
        let prices =
            Prices::known().map_err(|error| Error::Local(format!("read prices: {error}")))?;
        Ok(Self {
            providers,
            transport,
            prices: Arc::new(prices),
            listed: Mutex::new(None),
            #[cfg(feature = "local")]
            local: Engine::start(&config.local)?,
        })
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
            return Ok(Name { provider: local::PROVIDER, id: id.to_owned() });
        }
        if !id.is_empty()
            && let Some(found) = self.providers.iter().find(|known| known.name() == provider)
        {
            return Ok(Name { provider: found.name(), id: id.to_owned() });
        }
        let known = self.list().await;
        Err(Error::UnknownModel(unknown(model, known.iter().map(|model| model.id.as_str()))))
    }

    pub async fn generate(&self, name: &Name, request: GenerateRequest) -> Result<Events, Error> {
        let events = match self.remote(name) {
            Some((provider, transport)) => {
                let wire = provider.generate(&name.id, &request)?;
                transport.stream(provider, wire, provider.decoder(&request)).await?
            }
            None => self.generate_here(name, request).await?,
        };
        let (prices, model) = (Arc::clone(&self.prices), name.full());
        Ok(Box::pin(events.map(move |event| {
            let mut event = event?;
            if let Event::Finished(finished) = &mut event
                && let Some(usage) = &mut finished.usage
            {
                usage.cost = Some(prices.cost(&model, usage));
            }
            Ok(event)
        })))
    }

    pub async fn embed(
        &self,
        name: &Name,
        request: EmbedRequest,
    ) -> Result<(Vec<Embedding>, Usage), Error> {
        let (embeddings, mut usage) = match self.remote(name) {
            Some((provider, transport)) => {
                let wire = provider.embed(&name.id, &request)?;
                let body = transport.whole(provider, wire, None).await?;
                let mut embedded = provider.embedded(&request, &body)?;
                if embedded.usage.estimated {
                    embedded.usage.input_uncached = estimate(&request);
                }
                (embedded.embeddings, embedded.usage)
            }
            None => self.embed_here(name, request).await?,
        };
        usage.cost = Some(self.prices.cost(&name.full(), &usage));
        Ok((embeddings, usage))
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
        let Some(transport) = &self.transport else { return Vec::new() };
        let mut listed = self.listed.lock().await;
        if let Some((at, models)) = listed.as_ref()
            && at.elapsed() < LIST_AGE
        {
            return models.clone();
        }
        let mut models = Vec::new();
        for provider in &self.providers {
            match self.list_one(provider.as_ref(), transport).await {
                Ok(found) => models.extend(found),
                Err(error) => {
                    tracing::warn!(provider = provider.name(), %error, "cannot list models");
                    return listed.as_ref().map(|(_, models)| models.clone()).unwrap_or_default();
                }
            }
        }
        *listed = Some((Instant::now(), models.clone()));
        models
    }

    async fn list_one(
        &self,
        provider: &dyn Provider,
        transport: &Transport,
    ) -> Result<Vec<Model>, Error> {
        let body = transport.whole(provider, provider.list()?, Some(LIST_WAIT)).await?;
        let mut models = provider.listed(&body)?;
        for model in &mut models {
            model.health = ModelHealth::Up.into();
            if let Some(known) = self.prices.find(&model.id) {
                model.capabilities = known.capabilities();
                model.context_window = known.context_window;
                model.max_output = known.max_output;
                model.dimensions = known.dimensions;
                model.price = Some(known.price());
            }
        }
        Ok(models)
    }

    fn remote(&self, name: &Name) -> Option<(&dyn Provider, &Transport)> {
        let provider = self.providers.iter().find(|known| known.name() == name.provider)?;
        Some((provider.as_ref(), self.transport.as_ref()?))
    }

    #[cfg(feature = "local")]
    async fn generate_here(&self, name: &Name, request: GenerateRequest) -> Result<Events, Error> {
        if name.id == local::MINILM {
            return Err(Error::invalid(
                "model",
                "local/minilm embeds, it does not chat: use local/extractive",
            ));
        }
        local::check(&request)?;
        self.local.generate(&name.id, request).await
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
    fn generate_here(&self, name: &Name, _: GenerateRequest) -> Ready<Result<Events, Error>> {
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

impl Name {
    pub fn full(&self) -> String {
        format!("{}/{}", self.provider, self.id)
    }
}

fn estimate(request: &EmbedRequest) -> i64 {
    let tokens = |input: &Option<Input>| match input {
        Some(Input::Text(text)) => crate::estimate::text(text),
        Some(Input::Tokens(tokens)) => i64::try_from(tokens.ids.len()).unwrap_or(i64::MAX),
        None => 0,
    };
    request.inputs.iter().map(|input| tokens(&input.input)).sum()
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
