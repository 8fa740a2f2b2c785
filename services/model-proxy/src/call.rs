//! One call: as many tries as are safe, and then one answer or one error.
//!
//! Invariants:
//! - A stream is handed out with its first event, so an early error is a status
//!   and not a broken stream; nothing is tried again after that event.
//! - Retries are at most a fifth of a provider's recent calls.
//! - The tries of a call share one total time, and no pause outlives it.

use crate::{
    config::{CallSettings, Timers},
    error::{Error, Failure},
    exchange::{self, Exchange, Path},
    health::{Choice, Health, Permit},
    provider::{Ask, Event, Key, Provider},
    retry,
    transport::Transport,
    upstream::Upstream,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use mesh::retry::Budget;
use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// Events of one call; dropping it ends the call.
pub type Events = Pin<Box<dyn Stream<Item = Result<Event, Error>> + Send>>;

pub struct Caller {
    transport: Arc<Transport>,
    health: Arc<Health>,
    settings: CallSettings,
    /// By provider.
    budgets: BTreeMap<Arc<str>, Budget>,
}

/// Who is asked for what.
#[derive(Clone)]
pub struct Target {
    pub provider: Arc<dyn Provider>,
    pub model: String,
    pub timers: Timers,
    /// Keeps what becomes of the call at the provider.
    pub upstream: Arc<Upstream>,
}

/// What a try sends.
pub enum Want {
    Events(Ask),
    /// One document; `Events` are for everything else.
    Document(http::Request<Bytes>),
}

enum Got {
    Events(Box<Exchange>, Event),
    Document(Bytes),
}

/// An answer that has begun.
pub struct Begun {
    pub events: Events,
    /// The provider's own name for the call.
    pub request_id: String,
    pub tries: u32,
}

impl Caller {
    pub fn new(
        transport: Arc<Transport>,
        health: Arc<Health>,
        settings: CallSettings,
        providers: &[Arc<dyn Provider>],
    ) -> Self {
        let budget =
            |provider: &Arc<dyn Provider>| (Arc::clone(provider.name()), Budget::default());
        let budgets = providers.iter().map(budget).collect();
        Self { transport, health, settings, budgets }
    }

    pub const fn transport(&self) -> &Arc<Transport> {
        &self.transport
    }

    /// `ask` makes the request, anew for every try.
    pub async fn stream(
        &self,
        target: &Target,
        ask: impl Fn() -> Result<Ask, Error>,
    ) -> Result<Begun, Error> {
        match self.tries(target, || ask().map(Want::Events)).await? {
            (Got::Events(exchange, first), permit, tries) => {
                Ok(begun(exchange, first, permit, tries))
            }
            (Got::Document(_), ..) => Err(nothing(target)),
        }
    }

    /// Asks for one document.
    pub async fn document(
        &self,
        target: &Target,
        ask: impl Fn() -> Result<http::Request<Bytes>, Error>,
    ) -> Result<Bytes, Error> {
        match self.tries(target, || ask().map(Want::Document)).await? {
            (Got::Document(body), permit, _) => {
                permit.done();
                Ok(body)
            }
            (Got::Events(..), ..) => Err(nothing(target)),
        }
    }

    async fn tries(
        &self,
        target: &Target,
        want: impl Fn() -> Result<Want, Error>,
    ) -> Result<(Got, Permit, u32), Error> {
        let total = Instant::now() + target.timers.total;
        let budget = self.budgets.get(target.provider.name());
        budget.inspect(|budget| budget.deposit());
        let (mut tried, mut tries) = (Vec::new(), 0);
        let mut cause: Option<Error> = None;
        loop {
            // Of two reasons the one that was met comes before the one that keeps
            // us from meeting it again.
            let mut permit = match self.permit(target, &tried, total).await {
                Ok(permit) => permit,
                Err(error) => return Err(cause.unwrap_or(error)),
            };
            tries += 1;
            let error = match self.attempt(target, &mut permit, want()?, total).await {
                Ok(got) => return Ok((got, permit, tries)),
                Err(error) => error,
            };
            tried.push(permit.key);
            let last_resort = permit.last_resort;
            permit.failed(&error);
            let Some(pause) = self.pause(target, &error, &tried, tries) else {
                return Err(error.after(tries));
            };
            let affordable = || budget.is_none_or(Budget::withdraw);
            if last_resort || Instant::now() + pause >= total || !affordable() {
                return Err(error.after(tries));
            }
            let provider = Arc::clone(target.provider.name());
            metrics::counter!("skein_model_retries_total", "provider" => provider).increment(1);
            cause = Some(error.after(tries));
            sleep(pause).await;
        }
    }

    async fn permit(
        &self,
        target: &Target,
        tried: &[usize],
        total: Instant,
    ) -> Result<Permit, Error> {
        loop {
            match self.health.choose(target.provider.as_ref(), &target.model, tried) {
                Choice::Go(permit) => return Ok(permit),
                Choice::Wait { left, .. }
                    if left <= self.settings.longest_wait && Instant::now() + left < total =>
                {
                    // Not all who wait in the same instant.
                    sleep(left + (left / 10).mul_f64(fastrand::f64())).await;
                }
                Choice::Wait { failure, .. } => {
                    let message = match failure {
                        Failure::Quota => "no key has anything left to spend: add credit or a key",
                        _ => "every key is at its limit: wait, or add a key",
                    };
                    return Err(Error::provider(target.provider.name(), failure, message));
                }
            }
        }
    }

    async fn attempt(
        &self,
        target: &Target,
        permit: &mut Permit,
        want: Want,
        total: Instant,
    ) -> Result<Got, Error> {
        let keys = target.provider.keys();
        let path = Path {
            transport: Arc::clone(&self.transport),
            provider: Arc::clone(&target.provider),
            key: keys.get(permit.key).cloned().unwrap_or_else(Key::none),
            timers: target.timers,
            upstream: Arc::clone(&target.upstream),
            total,
        };
        let mut exchange = match want {
            Want::Document(request) => {
                let (body, quota) = exchange::document(path, request).await?;
                permit.heard(quota);
                permit.began();
                return Ok(Got::Document(body));
            }
            Want::Events(ask) => Exchange::begin(path, ask).await?,
        };
        permit.heard(exchange.quota);
        match exchange.next().await {
            Some(first) => {
                let first = first?;
                permit.began();
                Ok(Got::Events(Box::new(exchange), first))
            }
            None => Err(nothing(target)),
        }
    }

    /// How long to wait before the next try, if there is to be one.
    fn pause(
        &self,
        target: &Target,
        error: &Error,
        tried: &[usize],
        tries: u32,
    ) -> Option<Duration> {
        let failure = error.failure()?;
        let again = retry::again(failure, target.provider.repeats_blindly());
        let again = again.hinted(failure, error.hint());
        // Another key has its own limits: there is nothing to wait for.
        let fresh = (0..target.provider.keys().len()).any(|key| !tried.contains(&key));
        let of_the_key = matches!(
            error.failure()?,
            Failure::RateLimited { .. }
                | Failure::Unauthenticated
                | Failure::Forbidden
                | Failure::Quota
        );
        // Once a key has come round again, the others cannot be used.
        let round = tried.iter().enumerate().any(|(at, key)| tried[..at].contains(key));
        if fresh && of_the_key && !round {
            return Some(Duration::ZERO);
        }
        let pause = again.pause(tries, fastrand::f64())?;
        (tries < self.settings.tries && pause <= self.settings.longest_wait).then_some(pause)
    }
}

fn nothing(target: &Target) -> Error {
    Error::provider(target.provider.name(), Failure::Cut, "nothing came")
}

fn begun(exchange: Box<Exchange>, first: Event, permit: Permit, tries: u32) -> Begun {
    let request_id = exchange.request_id();
    let permit = settle(Some(permit), Ok(&first));
    let rest = stream::unfold((exchange, permit), |(mut exchange, permit)| async {
        let event = exchange.next().await?;
        let permit = settle(permit, event.as_ref());
        Some((event, (exchange, permit)))
    });
    let events = Box::pin(stream::iter([Ok(first)]).chain(rest));
    Begun { events, request_id, tries }
}

/// Settles the permit with the call's last event or its error.
fn settle(permit: Option<Permit>, event: Result<&Event, &Error>) -> Option<Permit> {
    match (permit?, event) {
        (permit, Ok(Event::Finished(_))) => permit.done(),
        (permit, Err(error)) => permit.failed(error),
        (permit, Ok(_)) => return Some(permit),
    }
    None
}
