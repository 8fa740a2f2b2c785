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
    estimate,
    meter::Meters,
    models::{Models, Name},
    provider::Event,
    record::{self, Operation, Record},
    wire,
};
use futures_util::{Stream, StreamExt as _, stream};
use mesh::{
    error::{already_retried, to_status, unimplemented, with_metadata},
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
    meters: Meters,
}

impl ModelRpc {
    pub fn new(models: Arc<Models>, identity: Identity) -> Self {
        let meters = Meters::new(&identity.region, Arc::clone(models.prices()));
        Self { models, identity, meters }
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
        let record = Record::open(&self.meters, Operation::Chat, &name, &request.call_id);
        let record = record.of(estimate::request(&request), request.response_format.as_ref());
        let mut record = record.with(&request.extra_json);
        let begun = match self.models.generate(&name, request, record.upstream()).await {
            Ok(begun) => begun,
            Err(error) => return Err(record.refused(error)),
        };
        record.first_event();
        started.provider_request_id = begun.request_id;
        let event = Some(generate_response::Event::Started(started));
        let started = stream::iter([Ok(GenerateResponse { event })]);
        Ok(Box::pin(started.chain(answers(begun.events, record))))
    }

    async fn draw(
        &self,
        request: GenerateImageRequest,
    ) -> Result<Answers<GenerateImageResponse>, Error> {
        wire::image(&request)?;
        let name = self.models.find(&request.model).await?;
        let mut started = self.started(request.call_id.clone(), &name);
        let record = Record::open(&self.meters, Operation::Image, &name, &request.call_id);
        let mut record = record.of(estimate::image(&request), None);
        let begun = match self.models.image(&name, request, record.upstream()).await {
            Ok(begun) => begun,
            Err(error) => return Err(record.refused(error)),
        };
        record.first_event();
        started.provider_request_id = begun.request_id;
        let event = Some(generate_image_response::Event::Started(started));
        let started = stream::iter([Ok(GenerateImageResponse { event })]);
        Ok(Box::pin(started.chain(images::answers(begun.events, record))))
    }

    async fn embedded(&self, request: EmbedRequest) -> Result<EmbedResponse, Error> {
        wire::embed(&request)?;
        let name = self.models.find(&request.model).await?;
        let record = Record::open(&self.meters, Operation::Embeddings, &name, &request.call_id);
        let mut record = record.of(estimate::embed(&request), None);
        let answer = self.models.embed(&name, request, record.upstream()).await;
        let (embeddings, mut usage) = match answer {
            Ok(answer) => answer,
            Err(error) => return Err(record.refused(error)),
        };
        record.settle(&mut usage).await;
        Ok(EmbedResponse {
            embeddings,
            model: name.full(),
            provider: name.provider.as_ref().to_owned(),
            region: self.identity.region.clone(),
            usage,
        })
    }
}

/// Events as answers, up to and including the terminal one.
fn answers(events: Events, record: Record) -> impl Stream<Item = Result<GenerateResponse, Status>> {
    stream::unfold(Some((events, record)), |state| async {
        let (mut events, mut record) = state?;
        let event = match events.next().await? {
            Ok(Event::Delta(delta)) => {
                record.delta(&delta);
                generate_response::Event::Delta(delta)
            }
            // Of calls for pictures, which `Generate` makes none of.
            Ok(Event::Progress(_) | Event::Image(_)) => {
                let error = Error::Local("a chat brought a picture".to_owned());
                return Some((Err(broken(&mut record, &error).await), None));
            }
            Ok(Event::Finished(mut finished)) => {
                record.finish(&mut finished).await;
                let event = Some(generate_response::Event::Finished(finished));
                return Some((Ok(GenerateResponse { event }), None));
            }
            Err(error) => return Some((Err(broken(&mut record, &error).await), None)),
        };
        Some((Ok(GenerateResponse { event: Some(event) }), Some((events, record))))
    })
}

/// The status of an answer that began and did not end well: whoever settles
/// learns from it what was used until then.
async fn broken(record: &mut Record, error: &Error) -> Status {
    let usage = record.fail(error).await;
    let status = status(error);
    let Some(usage) = usage else { return status };
    let status = with_metadata(
        &status,
        [
            ("call_id", record.call_id().to_owned()),
            ("input_tokens", record::input(&usage).to_string()),
            ("output_tokens", usage.output.to_string()),
            ("estimated", usage.estimated.to_string()),
        ],
    );
    match usage.cost.and_then(|cost| cost.nano_usd) {
        Some(cost) => with_metadata(&status, [("cost_nano_usd", cost.to_string())]),
        None => status, // unknown is not zero
    }
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
        let providers = self.models.open(&self.identity.region);
        Ok(Response::new(ListModelsResponse { models, providers }))
    }
}
