//! Which models the providers have.
//!
//! Invariants:
//! - Each provider stands alone: one that does not answer hides no other's
//!   models, and keeps nobody waiting who has its old list.
//! - A provider is asked once at a time, and no lock is held while it answers.
//! - A provider that has no list, or never gave it, has the models that there
//!   are prices for.

use crate::{
    error::{Error, Failure},
    health::{Health, probe::Probe},
    price::Prices,
    provider::Provider,
    remote::Known,
    transport::Transport,
};
use bytes::Bytes;
use futures_util::future::join_all;
use mesh::clock;
use skein_proto::model::v1::{Capability, Model};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

/// How long a list is taken as it was.
const AGE: Duration = Duration::from_secs(300);
/// How soon after a failure it is asked for again.
const AGAIN: Duration = Duration::from_secs(10);
/// How long somebody waits who asks for a list that there never was.
const PATIENCE: Duration = Duration::from_secs(3);

pub struct Listings {
    prices: Arc<Prices>,
    health: Arc<Health>,
    all: Vec<Arc<Listing>>,
}

/// One provider's list.
pub struct Listing {
    pub probe: Probe,
    state: watch::Sender<State>,
}

#[derive(Clone, Default)]
struct State {
    models: Option<Arc<[Model]>>,
    /// Until when the list need not be asked for.
    fresh: Option<Instant>,
    asking: bool,
}

impl Listings {
    pub fn new(
        providers: &[Known],
        transport: &Arc<Transport>,
        health: &Arc<Health>,
        prices: &Arc<Prices>,
    ) -> Self {
        let listing = |known: &Known| {
            let probe = Probe {
                provider: Arc::clone(&known.provider),
                transport: Arc::clone(transport),
                health: Arc::clone(health),
                timers: known.timers,
            };
            Arc::new(Listing { probe, state: watch::Sender::default() })
        };
        let all = providers.iter().map(listing).collect();
        Self { prices: Arc::clone(prices), health: Arc::clone(health), all }
    }

    /// Every provider's models, with prices and health.
    pub async fn models(&self) -> Vec<Model> {
        let lists = join_all(self.all.iter().map(Listing::get)).await;
        let mut models = Vec::new();
        for (listing, list) in self.all.iter().zip(lists) {
            let provider = listing.probe.provider.as_ref();
            match list {
                Some(list) => models.extend(list.iter().map(|model| self.priced(model.clone()))),
                None => models.extend(self.of_price_table(provider)),
            }
        }
        for model in &mut models {
            let id = model.id.split_once('/').map_or("", |(_, id)| id);
            let (health, reason) = self.health.of_model(&model.provider, id);
            (model.health, model.health_reason) = (health.into(), reason);
        }
        models
    }

    pub fn each(&self) -> impl Iterator<Item = &Arc<Listing>> {
        self.all.iter()
    }

    fn of_price_table(&self, provider: &dyn Provider) -> impl Iterator<Item = Model> {
        // What a model can do is not what a provider of many has words for.
        let plain = matches!(provider.list(), Ok(None));
        let words = [Capability::Chat, Capability::Embed, Capability::Image].map(i32::from);
        let name = provider.name().to_string();
        let model = move |id: &str| {
            let (id, provider) = (id.to_owned(), name.clone());
            let mut model = self.priced(Model { id, provider, ..Model::default() });
            model.capabilities.retain(|can| !plain || words.contains(can));
            model
        };
        self.prices.of(provider.name()).map(model)
    }

    fn priced(&self, mut model: Model) -> Model {
        if let Some(known) = self.prices.find(&model.id) {
            model.capabilities = known.capabilities();
            model.context_window = known.context_window;
            model.max_output = known.max_output;
            model.dimensions = known.dimensions;
            model.price = known.price(clock::now_seconds()).cloned();
        }
        model
    }
}

impl Listing {
    /// The provider's list, as new as can be had soon.
    async fn get(self: &Arc<Self>) -> Option<Arc<[Model]>> {
        let ask = self.state.send_if_modified(|state| {
            let stale = state.fresh.is_none_or(|fresh| fresh <= Instant::now());
            let ask = stale && !state.asking;
            state.asking |= ask;
            ask
        });
        if ask {
            let asking = Asking(Arc::clone(self));
            // Goes on when this caller leaves: the next one wants it too.
            tokio::spawn(async move { asking.0.ask().await });
        }
        let mut state = self.state.subscribe();
        let settled = state.wait_for(|state| state.models.is_some() || !state.asking);
        let _ = timeout(PATIENCE, settled).await;
        self.state.borrow().models.clone()
    }

    /// Asks with one key after the other until one is answered.
    async fn ask(&self) {
        let provider = self.probe.provider.name();
        let mut fresh = AGAIN;
        for key in 0..self.probe.provider.keys().len() {
            match self.probe.list(key).await {
                Ok(Some(body)) => return self.heard(&body),
                Ok(None) => {
                    fresh = AGE;
                    break;
                }
                Err(error) => {
                    tracing::debug!(%provider, %error, "cannot list models");
                    if error.failure().is_none_or(Failure::is_of_the_request) {
                        fresh = AGE;
                        break;
                    }
                }
            }
        }
        self.state.send_modify(|state| state.fresh = Some(Instant::now() + fresh));
    }

    /// Takes a list as the provider wrote it.
    pub fn heard(&self, body: &Bytes) {
        let provider = &self.probe.provider;
        let listed: Result<Vec<Model>, Error> = provider.listed(body);
        self.state.send_modify(|state| {
            let fresh = if listed.is_ok() { AGE } else { AGAIN };
            state.fresh = Some(Instant::now() + fresh);
            match listed {
                Ok(models) => state.models = Some(models.into()),
                Err(error) => {
                    tracing::warn!(provider = %provider.name(), %error, "cannot read its models");
                }
            }
        });
    }
}

/// Nobody is asking any more once this is dropped.
struct Asking(Arc<Listing>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.asking = false);
    }
}
