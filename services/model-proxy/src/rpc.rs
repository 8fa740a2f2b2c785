//! `ModelService`: one thin method per RPC.
//!
//! Invariants:
//! - A stream is `started`, deltas, and then exactly one of `finished` or an
//!   error status; nothing comes after.
//! - An error before the first event is the answer's status, not a stream.
//! - Neither prompts nor answers are logged.

use crate::{
    error::Error,
    meter::Meter,
    models::{Models, Name},
    provider::Event,
    transport::Events,
    wire,
};
use futures_util::{Stream, StreamExt as _, stream};
use mesh::{
    error::{to_status, unimplemented},
    identity::Identity,
};
use skein_proto::model::v1::{
    EmbedRequest, EmbedResponse, GenerateImageRequest, GenerateImageResponse, GenerateRequest,
    GenerateResponse, ListModelsRequest, ListModelsResponse, RerankRequest, RerankResponse,
    Started, generate_response, model_service_server::ModelService,
};
use std::{pin::Pin, sync::Arc};
use tonic::{Request, Response, Status};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub struct ModelRpc {
    models: Arc<Models>,
    identity: Identity,
}

impl ModelRpc {
    pub fn new(models: Arc<Models>, identity: Identity) -> Self {
        Self { models, identity }
    }

    fn started(&self, call_id: String, name: &Name) -> GenerateResponse {
        let started = Started {
            call_id,
            model: name.full(),
            provider: name.provider.to_owned(),
            region: self.identity.region.clone(),
            machine: self.identity.machine.clone(),
            ..Started::default()
        };
        GenerateResponse { event: Some(generate_response::Event::Started(started)) }
    }

    async fn begin(&self, request: GenerateRequest) -> Result<Answers<GenerateResponse>, Error> {
        wire::generate(&request)?;
        let name = self.models.find(&request.model).await?;
        let started = self.started(request.call_id.clone(), &name);
        let mut meter = Meter::start(name.provider);
        let events = self.models.generate(&name, request).await;
        let events = events.inspect_err(|error| meter.failed(error))?;
        meter.first_event();
        Ok(Box::pin(stream::iter([Ok(started)]).chain(answers(events, meter))))
    }

    async fn embedded(&self, request: EmbedRequest) -> Result<EmbedResponse, Error> {
        wire::embed(&request)?;
        let name = self.models.find(&request.model).await?;
        let mut meter = Meter::start(name.provider);
        let answer = self.models.embed(&name, request).await;
        let (embeddings, usage) = answer.inspect_err(|error| meter.failed(error))?;
        meter.finished(Some(&usage));
        Ok(EmbedResponse {
            embeddings,
            model: name.full(),
            provider: name.provider.to_owned(),
            region: self.identity.region.clone(),
            usage: Some(usage),
        })
    }
}

/// Events as answers, up to and including the terminal one.
fn answers(events: Events, meter: Meter) -> impl Stream<Item = Result<GenerateResponse, Status>> {
    stream::unfold(Some((events, meter)), |state| async {
        let (mut events, mut meter) = state?;
        let event = match events.next().await? {
            Ok(Event::Delta(delta)) => generate_response::Event::Delta(delta),
            Ok(Event::Finished(finished)) => {
                meter.finished(finished.usage.as_ref());
                let event = Some(generate_response::Event::Finished(finished));
                return Some((Ok(GenerateResponse { event }), None));
            }
            Err(error) => {
                meter.failed(&error);
                return Some((Err(to_status(&error)), None));
            }
        };
        Some((Ok(GenerateResponse { event: Some(event) }), Some((events, meter))))
    })
}

#[tonic::async_trait]
impl ModelService for ModelRpc {
    type GenerateStream = Answers<GenerateResponse>;
    type GenerateImageStream = Answers<GenerateImageResponse>;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let answers = self.begin(request.into_inner()).await;
        answers.map(Response::new).map_err(|error| to_status(&error))
    }

    async fn embed(
        &self,
        request: Request<EmbedRequest>,
    ) -> Result<Response<EmbedResponse>, Status> {
        let answer = self.embedded(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| to_status(&error))
    }

    async fn generate_image(
        &self,
        _: Request<GenerateImageRequest>,
    ) -> Result<Response<Self::GenerateImageStream>, Status> {
        Err(unimplemented("no provider of pictures is connected in this release"))
    }

    async fn rerank(&self, _: Request<RerankRequest>) -> Result<Response<RerankResponse>, Status> {
        Err(unimplemented("no reranking model is connected in this release"))
    }

    async fn list_models(
        &self,
        _: Request<ListModelsRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        let mut models = self.models.list().await;
        for model in &mut models {
            model.region.clone_from(&self.identity.region);
        }
        tracing::debug!(models = models.len(), "listed models");
        Ok(Response::new(ListModelsResponse { models }))
    }
}
