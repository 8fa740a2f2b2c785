//! The providers over the network: one HTTPS client, what is known of their
//! health, their lists of models, and the calls to them.

use crate::{
    call::{Caller, Target},
    config::{CallSettings, Config, HealthSettings, Patience, Timers},
    error::Error,
    health::{Health, probe},
    listing::Listings,
    price::Prices,
    provider::{self, Provider},
    transport::Transport,
    upstream::Upstream,
};
use mesh::ready::Readiness;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio_util::task::AbortOnDropHandle;

/// A provider, the timers of its calls, and those of them that somebody set.
pub struct Known {
    pub provider: Arc<dyn Provider>,
    pub timers: Timers,
    set: Patience,
}

pub struct Remote {
    pub caller: Arc<Caller>,
    pub health: Arc<Health>,
    pub listings: Listings,
    providers: Vec<Known>,
    prices: Arc<Prices>,
    transport: Arc<Transport>,
}

impl Remote {
    /// `None` where no provider is set up: no certificates are looked for then.
    pub fn new(config: &Config) -> Result<Option<Self>, Error> {
        let providers = provider::registry(config)?;
        if providers.is_empty() {
            return Ok(None);
        }
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
        let (transport, health) =
            (Arc::new(transport), Arc::new(Health::new(&providers, config.health.rules)));
        let caller = Arc::new(caller(&transport, &health, config.call, &providers));
        let known = providers.into_iter().zip(&config.providers).map(|(provider, settings)| {
            Known { provider, timers: settings.timers, set: settings.patience }
        });
        let providers: Vec<_> = known.collect();
        let prices = Arc::clone(&config.prices);
        let listings = Listings::new(&providers, &transport, &health, &prices);
        Ok(Some(Self { caller, health, listings, providers, prices, transport }))
    }

    /// The name of a provider that is set up.
    pub fn name(&self, provider: &str) -> Option<&Arc<str>> {
        self.find(provider).map(|known| known.provider.name())
    }

    pub fn target(&self, provider: &str, model: &str, upstream: Arc<Upstream>) -> Option<Target> {
        let Known { provider, timers, set } = self.find(provider)?;
        let timers = timers.with(self.patience(&format!("{}/{model}", provider.name()), *set));
        let (provider, model) = (Arc::clone(provider), model.to_owned());
        Some(Target { provider, model, timers, upstream })
    }

    /// The timers that differ from the provider's for this model: those of the
    /// price file before all, and what thinking takes where nobody set any.
    fn patience(&self, model: &str, set: Patience) -> Patience {
        let Some(listed) = self.prices.find(model) else { return Patience::default() };
        let thinks = if listed.reasoning { Patience::REASONING } else { Patience::default() };
        thinks.unless(set).then(listed.patience)
    }

    fn find(&self, provider: &str) -> Option<&Known> {
        self.providers.iter().find(|known| &**known.provider.name() == provider)
    }

    /// Probes the providers until the answer is dropped, and shows in
    /// `readiness` those that are not there; readiness itself is not theirs.
    pub fn watch(
        &self,
        settings: &HealthSettings,
        readiness: &Readiness,
    ) -> Vec<AbortOnDropHandle<()>> {
        let every = settings.probe_interval;
        let mut tasks = vec![tokio::spawn(show(Arc::clone(&self.health), readiness.clone()))];
        if every.is_zero() {
            return tasks.into_iter().map(AbortOnDropHandle::new).collect();
        }
        for listing in self.listings.each() {
            let listing = Arc::clone(listing);
            tasks.push(tokio::spawn(async move {
                listing.probe.watch(every, |body| listing.heard(body)).await;
            }));
        }
        let named = settings.probe_models.iter().filter_map(|name| {
            let (provider, model) = name.split_once('/')?;
            self.target(provider, model, Arc::default())
        });
        let providers: Vec<_> =
            self.providers.iter().map(|known| Arc::clone(&known.provider)).collect();
        let once = CallSettings { tries: 1, longest_wait: Duration::ZERO };
        let caller = Arc::new(caller(&self.transport, &self.health, once, &providers));
        for target in named {
            let health = Arc::clone(&self.health);
            tasks.push(tokio::spawn(probe::speak(Arc::clone(&caller), target, health, every)));
        }
        tasks.into_iter().map(AbortOnDropHandle::new).collect()
    }
}

fn caller(
    transport: &Arc<Transport>,
    health: &Arc<Health>,
    settings: CallSettings,
    providers: &[Arc<dyn Provider>],
) -> Caller {
    Caller::new(Arc::clone(transport), Arc::clone(health), settings, providers)
}

/// Holds a reason in `readiness` for each provider that does not answer.
async fn show(health: Arc<Health>, readiness: Readiness) {
    let mut shown = BTreeMap::new();
    loop {
        let missing: Vec<_> = health.missing().collect();
        shown.retain(|text, _| missing.contains(text));
        for text in missing {
            shown.entry(text).or_insert_with_key(|text| readiness.degraded(text));
        }
        health.changed.notified().await;
    }
}
