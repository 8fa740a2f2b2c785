//! One model call, the same path for a client's `Generate` and an agent's turn:
//! name the call, choose the model, pass the stream on.
//!
//! Invariants:
//! - a stream ends with `finished` or with an error, never with neither: one
//!   that just stops is an error of our own;
//! - dropping the stream cancels the call behind it.

use crate::agents::Agents;
use crate::catalogue::Catalogue;
use crate::error::Error;
use crate::peers::ModelProxy;
use crate::route;
use futures_util::Stream;
use mesh::call::Call;
use mesh::error::{Kind, status};
use skein_proto::agent::v1::RouteDecision;
use skein_proto::model::v1::{
    Capability, GenerateImageResponse, GenerateRequest, GenerateResponse, ListModelsResponse,
    Model, generate_image_response, generate_response,
};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tonic::{Status, Streaming};

#[derive(Clone)]
pub struct Models {
    pub model_proxy: ModelProxy,
    catalogue: Catalogue,
    agents: Arc<Agents>,
}

impl Models {
    pub fn new(model_proxy: ModelProxy, agents: Arc<Agents>) -> Self {
        Self { catalogue: Catalogue::new(model_proxy.clone()), model_proxy, agents }
    }

    pub async fn route(&self, call: &Call, name: &str) -> Result<RouteDecision, Error> {
        if name.is_empty() {
            return Err(mesh::error::invalid("model", "is required").into());
        }
        let models = self.catalogue.models(call).await?;
        route::resolve(name, &self.agents.aliases, &models)
    }

    /// `request.model` is already resolved.
    pub async fn generate(
        &self,
        call: &Call,
        mut request: GenerateRequest,
    ) -> Result<Whole<GenerateResponse>, Error> {
        name_call(&mut request.call_id);
        let answer = self.model_proxy.clone().generate(call.request(request)).await?;
        Ok(Whole::new(answer.into_inner()))
    }

    /// Every model, every alias that leads to one, and the agents.
    pub async fn list(&self, call: &Call) -> Result<ListModelsResponse, Error> {
        let models = self.catalogue.models(call).await?;
        let mut all = models.models.clone();
        for name in self.agents.aliases.keys() {
            let Ok(decision) = route::resolve(name, &self.agents.aliases, &models) else {
                continue;
            };
            let target = models.models.iter().find(|model| model.id == decision.model);
            let provider = decision.model.split('/').next().unwrap_or_default().to_owned();
            all.push(Model {
                id: name.clone(),
                provider,
                alias_of: decision.model,
                ..target.cloned().unwrap_or_default()
            });
        }
        all.extend(self.agents.iter().map(|agent| Model {
            id: format!("agent/{}", agent.name),
            provider: "agent".to_owned(),
            capabilities: vec![Capability::Chat.into()],
            ..Model::default()
        }));
        Ok(ListModelsResponse { models: all, providers: models.providers.clone() })
    }
}

/// The first layer that sees a call without a name gives it one.
pub fn name_call(call_id: &mut String) {
    if call_id.is_empty() {
        *call_id = uuid::Uuid::now_v7().to_string();
    }
}

/// Whether a message is the last of its stream.
pub trait Last {
    fn is_last(&self) -> bool;
}

impl Last for GenerateResponse {
    fn is_last(&self) -> bool {
        matches!(self.event, Some(generate_response::Event::Finished(_)))
    }
}

impl Last for GenerateImageResponse {
    fn is_last(&self) -> bool {
        matches!(self.event, Some(generate_image_response::Event::Finished(_)))
    }
}

/// A stream that is known to be whole when it ends without an error.
pub struct Whole<T> {
    stream: Option<Streaming<T>>,
    finished: bool,
}

impl<T> Whole<T> {
    pub fn new(stream: Streaming<T>) -> Self {
        Self { stream: Some(stream), finished: false }
    }
}

impl<T: Last> Stream for Whole<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(stream) = self.stream.as_mut() else { return Poll::Ready(None) };
        match ready!(Pin::new(stream).poll_next(cx)) {
            Some(Ok(message)) => {
                self.finished |= message.is_last();
                Poll::Ready(Some(Ok(message)))
            }
            Some(Err(status)) => {
                self.stream = None;
                Poll::Ready(Some(Err(Error::from(status).into())))
            }
            None => {
                self.stream = None;
                let cut = (!self.finished).then(|| Err(cut_off()));
                Poll::Ready(cut)
            }
        }
    }
}

fn cut_off() -> Status {
    let text = "the model's answer ended before it was finished".to_owned();
    status(Kind::Unavailable, Some("STREAM_CUT"), None, text)
}
