//! `ModelService`: one thin method per RPC.
//!
//! Invariants:
//! - A stream is `started`, deltas, and then exactly one of `finished` or an
//!   error status; nothing comes after.
//! - An error before the first event is the answer's status, not a stream.
//! - Neither prompts nor answers are logged.

mod images;

use crate::{
    call::Events,
    error::Error,
    meter::Meter,
    models::{Models, Name},
    provider::Event,
    wire,
};
use futures_util::{Stream, StreamExt as _, stream};
use mesh::{
    error::{already_retried, to_status, unimplemented},
    identity::Identity,
};
use skein_proto::model::v1::{
    EmbedRequest, EmbedResponse, GenerateImageRequest, GenerateImageResponse, GenerateRequest,
    GenerateResponse, ListModelsRequest, ListModelsResponse, RerankRequest, RerankResponse,
    Started, generate_image_response, generate_response, model_service_server::ModelService,
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

    fn started(&self, call_id: String, name: &Name) -> Started {
        Started {
            call_id,
            model: name.full(),
            provider: name.provider.as_ref().to_owned(),
            region: self.identity.region.clone(),
            machine: self.identity.machine.clone(),
            ..Started::default()
        }
    }

    async fn begin(&self, request: GenerateRequest) -> Result<Answers<GenerateResponse>, Error> {
        wire::generate(&request)?;
        let name = self.models.find(&request.model).await?;
        let mut started = self.started(request.call_id.clone(), &name);
        let mut meter = Meter::start(&name.provider);
        let begun = self.models.generate(&name, request).await;
        let begun = begun.inspect_err(|error| meter.failed(error))?;
        meter.first_event();
        started.provider_request_id = begun.request_id;
        let event = Some(generate_response::Event::Started(started));
        let started = stream::iter([Ok(GenerateResponse { event })]);
        Ok(Box::pin(started.chain(answers(begun.events, meter))))
    }

    async fn draw(
        &self,
        request: GenerateImageRequest,
    ) -> Result<Answers<GenerateImageResponse>, Error> {
        wire::image(&request)?;
        let name = self.models.find(&request.model).await?;
        let mut started = self.started(request.call_id.clone(), &name);
        let mut meter = Meter::start(&name.provider);
        let begun = self.models.image(&name, request).await;
        let begun = begun.inspect_err(|error| meter.failed(error))?;
        meter.first_event();
        started.provider_request_id = begun.request_id;
        let event = Some(generate_image_response::Event::Started(started));
        let started = stream::iter([Ok(GenerateImageResponse { event })]);
        Ok(Box::pin(started.chain(images::answers(begun.events, meter))))
    }

    async fn embedded(&self, request: EmbedRequest) -> Result<EmbedResponse, Error> {
        wire::embed(&request)?;
        let name = self.models.find(&request.model).await?;
        let mut meter = Meter::start(&name.provider);
        let answer = self.models.embed(&name, request).await;
        let (embeddings, usage) = answer.inspect_err(|error| meter.failed(error))?;
        meter.finished(Some(&usage));
        Ok(EmbedResponse {
            embeddings,
            model: name.full(),
            provider: name.provider.as_ref().to_owned(),
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
            // Of calls for pictures, which `Generate` makes none of.
            Ok(Event::Progress(_) | Event::Image(_)) => return Some((Err(pictures()), None)),
            Ok(Event::Finished(finished)) => {
                meter.finished(finished.usage.as_ref());
                let event = Some(generate_response::Event::Finished(finished));
                return Some((Ok(GenerateResponse { event }), None));
            }
            Err(error) => {
                meter.failed(&error);
                return Some((Err(status(&error)), None));
            }
        };
        Some((Ok(GenerateResponse { event: Some(event) }), Some((events, meter))))
    })
}

fn pictures() -> Status {
    to_status(&Error::Local("a chat brought a picture".to_owned()))
}

fn status(error: &Error) -> Status {
    let status = to_status(error);
    if error.was_retried() { already_retried(&status) } else { status }
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
        answers.map(Response::new).map_err(|error| status(&error))
    }

    async fn embed(
        &self,
        request: Request<EmbedRequest>,
    ) -> Result<Response<EmbedResponse>, Status> {
        let answer = self.embedded(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| status(&error))
    }

    async fn generate_image(
        &self,
        request: Request<GenerateImageRequest>,
    ) -> Result<Response<Self::GenerateImageStream>, Status> {
        let answers = self.draw(request.into_inner()).await;
        answers.map(Response::new).map_err(|error| status(&error))
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
