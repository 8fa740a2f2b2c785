//! Asks a provider something cheap, so that what is wrong with it is known
//! before a caller meets it.
//!
//! Invariants:
//! - Nothing is asked with a key that has worked a moment ago.
//! - What is asked costs nothing, unless a setting names a model to try; then
//!   it is one token.
//! - Probing is no work: it keeps no machine awake, and ends with the server.

use crate::{
    call::{Caller, Target},
    config::Timers,
    error::{Error, Failure},
    exchange::{self, Path},
    health::Health,
    provider::{Key, Provider},
    transport::Transport,
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use metrics::{counter, histogram};
use skein_proto::model::v1::{
    ContentPart, GenerateRequest, Message, Role, Sampling, content_part::Part,
};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// A probe that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks one provider for its list of models.
pub struct Probe {
    pub provider: Arc<dyn Provider>,
    pub transport: Arc<Transport>,
    pub health: Arc<Health>,
    pub timers: Timers,
}

impl Probe {
    /// The list as the provider wrote it, asked for with this key; `None` if it
    /// has none.
    pub async fn list(&self, key: usize) -> Result<Option<Bytes>, Error> {
        let Some(request) = self.provider.list()? else { return Ok(None) };
        let short = |time: Duration| time.min(PATIENCE);
        let Timers { first_token, idle, total, .. } = self.timers;
        let path = Path {
            transport: Arc::clone(&self.transport),
            provider: Arc::clone(&self.provider),
            key: self.provider.keys().get(key).cloned().unwrap_or_else(Key::none),
            timers: Timers {
                first_token: short(first_token),
                idle: short(idle),
                total: short(total),
                ..self.timers
            },
            total: Instant::now() + short(total),
            upstream: Arc::default(),
        };
        let begun = Instant::now();
        let answer = exchange::document(path, request).await;
        let (took, failure) = (begun.elapsed(), answer.as_ref().err().and_then(Error::failure));
        let name = self.provider.name();
        self.health.probed(name, key, took, failure);
        count(name, "list", failure);
        if failure.is_none() {
            histogram!("skein_model_probe_seconds", "provider" => Arc::clone(name))
                .record(took.as_secs_f64());
        }
        answer.map(|(body, _)| Some(body))
    }

    /// Asks with every key that has not worked of late, for ever; `listed` gets
    /// what came.
    pub async fn watch(&self, every: Duration, listed: impl Fn(&Bytes) + Send + Sync) {
        loop {
            for key in 0..self.provider.keys().len() {
                if !self.health.is_good(self.provider.name(), key, every)
                    && let Ok(Some(body)) = self.list(key).await
                {
                    listed(&body);
                }
            }
            sleep(jittered(every)).await;
        }
    }
}

/// Has a model say one token, which costs, whenever it has not answered for so
/// long, for ever.
pub async fn speak(caller: Arc<Caller>, target: Target, health: Arc<Health>, every: Duration) {
    let (name, request) = (Arc::clone(target.provider.name()), one_token());
    loop {
        if !health.has_answered(&name, &target.model, every) {
            let ask = || target.provider.generate(&target.model, &request);
            let failure = match caller.stream(&target, ask).await {
                Ok(mut begun) => {
                    let mut failure = None;
                    while let Some(event) = begun.events.next().await {
                        failure = event.err().and_then(|error| error.failure());
                    }
                    failure
                }
                Err(error) => error.failure(),
            };
            count(&name, "generation", failure);
        }
        sleep(jittered(every)).await;
    }
}

fn one_token() -> GenerateRequest {
    let content =
        vec![ContentPart { part: Some(Part::Text("Hi".to_owned())), ..ContentPart::default() }];
    GenerateRequest {
        messages: vec![Message { role: Role::User.into(), content, ..Message::default() }],
        sampling: Some(Sampling { max_tokens: Some(1), ..Sampling::default() }),
        ..GenerateRequest::default()
    }
}

fn count(provider: &Arc<str>, kind: &'static str, failure: Option<Failure>) {
    let outcome = failure.map_or("ok", Failure::reason);
    counter!("skein_model_probes_total", "provider" => Arc::clone(provider), "kind" => kind, "outcome" => outcome)
        .increment(1);
}

/// A tenth more or less, so that machines that start together do not go on
/// asking together.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.9 + fastrand::f64() / 5.0)
}
