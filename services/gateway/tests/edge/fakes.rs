//! A router and a retrieval that answer by the name of the model or query.

use crate::{fake_agents::Agents, fake_images};
use futures_util::{StreamExt as _, stream};
use mesh::{
    Call, World,
    error::{self, Kind},
    keys::Generated,
    ready::Readiness,
    serve,
};
use skein_proto::{
    agent::v1::agent_service_server::AgentServiceServer,
    model::v1::{
        Choice, Cost, Delta, EmbedRequest, EmbedResponse, Embedding, FinishReason, Finished,
        GenerateImageRequest, GenerateImageResponse, GenerateRequest, GenerateResponse,
        ListModelsRequest, ListModelsResponse, Model, RerankRequest, RerankResponse, Started,
        ToolCallPiece, Usage,
        delta::Piece,
        generate_response::Event,
        model_service_server::{ModelService, ModelServiceServer},
    },
};
use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, metadata::MetadataMap, service::Routes};

pub(crate) type Events<T> = Pin<Box<dyn futures_util::Stream<Item = Result<T, Status>> + Send>>;

/// What the fakes have seen, and what they wait for.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) metadata: Mutex<MetadataMap>,
    pub(crate) call: Mutex<Option<Call>>,
    pub(crate) request: Mutex<Option<GenerateRequest>>,
    pub(crate) image: Mutex<Option<GenerateImageRequest>>,
    /// Calls whose stream was dropped before its end.
    pub(crate) cancelled: watch::Sender<u32>,
    /// Lets the model `waits` go on.
    pub(crate) go_on: Notify,
}

impl Seen {
    pub(crate) fn note<T>(&self, request: &Request<T>) {
        *self.metadata.lock().unwrap() = request.metadata().clone();
        *self.call.lock().unwrap() = Some(Call::of(request).unwrap());
    }
}

/// Says when it is dropped.
pub(crate) struct Dropped(pub(crate) Arc<Seen>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.cancelled.send_modify(|count| *count += 1);
    }
}

pub(crate) struct Models(pub(crate) Arc<Seen>);

pub(crate) fn started() -> Started {
    Started {
        call_id: "call-1".into(),
        model: "openai/gpt-x".into(),
        provider: "openai".into(),
        region: "iad".into(),
        ..Started::default()
    }
}

pub(crate) fn text(choice: u32, text: &str) -> Delta {
    Delta { choice, piece: Some(Piece::Text(text.into())), extra_json: String::new() }
}

pub(crate) fn usage() -> Usage {
    Usage {
        input_uncached: 7,
        input_cache_read: 2,
        output: 3,
        cost: Some(Cost { nano_usd: Some(12_345) }),
        ..Usage::default()
    }
}

pub(crate) fn finished(choices: u32, reason: FinishReason) -> Finished {
    let choice = |index| Choice { index, finish_reason: reason.into(), ..Choice::default() };
    Finished {
        choices: (0..choices).map(choice).collect(),
        usage: Some(usage()),
        ..Finished::default()
    }
}

fn call_piece(id: &str, name: &str, arguments: &str) -> Delta {
    let [id, name, arguments] = [id, name, arguments].map(str::to_owned);
    let piece = Piece::ToolCall(ToolCallPiece { id, name, arguments, ..ToolCallPiece::default() });
    Delta { piece: Some(piece), ..Delta::default() }
}

pub(crate) fn unavailable() -> Status {
    error::status(Kind::Unavailable, None, None, "the provider went away".into())
}

fn script(model: &str) -> Vec<Result<Event, Status>> {
    let delta = |piece| Ok(Event::Delta(piece));
    let end = |choices, reason| Ok(Event::Finished(finished(choices, reason)));
    let mut events = vec![Ok(Event::Started(started()))];
    match model {
        "tools" => events.extend([
            delta(call_piece("call_a", "look", "")),
            delta(call_piece("", "", "{\"q\":")),
            delta(call_piece("", "", "1}")),
            end(1, FinishReason::ToolCalls),
        ]),
        "two" => {
            events.extend([delta(text(0, "A")), delta(text(1, "B")), end(2, FinishReason::Length)]);
        }
        "cut" => events.push(delta(text(0, "Hal"))),
        "breaks" => events.extend([delta(text(0, "Hal")), Err(unavailable())]),
        _ => {
            events.extend([
                delta(text(0, "Hel")),
                delta(text(0, "lo")),
                end(1, FinishReason::Stop),
            ]);
        }
    }
    events
}

#[tonic::async_trait]
impl ModelService for Models {
    type GenerateStream = Events<GenerateResponse>;
    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        self.0.note(&request);
        let request = request.into_inner();
        let model = request.model.clone();
        *self.0.request.lock().unwrap() = Some(request);
        let wait = Duration::from_secs(3);
        match model.as_str() {
            "none" => {
                let message = "there is no model none".to_owned();
                return Err(error::status(
                    Kind::NotFound,
                    Some("MODEL_NOT_FOUND"),
                    Some("model"),
                    message,
                ));
            }
            "limited" => {
                let kind = Kind::RateLimited { retry_after: Some(wait) };
                return Err(error::status(kind, None, None, "slow down".into()));
            }
            "down" => return Err(unavailable()),
            "bug" => {
                return Err(error::status(Kind::Internal, None, None, "internal error".into()));
            }
            "late" => return Err(mesh::deadline::exceeded()),
            _ => {}
        }
        let response = |event| GenerateResponse { event: Some(event) };
        if model == "hangs" || model == "waits" {
            let guard = Dropped(Arc::clone(&self.0));
            let seen = Arc::clone(&self.0);
            let head = [Event::Started(started()), Event::Delta(text(0, "Hel"))];
            let head = stream::iter(head.map(|event| Ok(response(event))));
            let rest = stream::once(async move {
                if model == "hangs" {
                    std::future::pending::<()>().await;
                }
                seen.go_on.notified().await;
                drop(guard);
                Ok(response(Event::Finished(finished(1, FinishReason::Stop))))
            });
            return Ok(Response::new(head.chain(rest).boxed()));
        }
        if model == "floods" {
            let guard = Dropped(Arc::clone(&self.0));
            let events = stream::repeat_with(move || {
                let _until_dropped = &guard;
                Ok(response(Event::Delta(text(0, &"x".repeat(64 << 10)))))
            });
            return Ok(Response::new(events.boxed()));
        }
        let events = script(&model).into_iter().map(move |event| event.map(response));
        Ok(Response::new(stream::iter(events.collect::<Vec<_>>()).boxed()))
    }

    async fn embed(
        &self,
        request: Request<EmbedRequest>,
    ) -> Result<Response<EmbedResponse>, Status> {
        self.0.note(&request);
        let request = request.into_inner();
        let embedding = |index: usize| Embedding { values: vec![index as f32, 0.5, -1.0] };
        Ok(Response::new(EmbedResponse {
            embeddings: (0..request.inputs.len()).map(embedding).collect(),
            model: "local/minilm".into(),
            provider: "local".into(),
            region: "iad".into(),
            usage: Some(usage()),
        }))
    }

    type GenerateImageStream = Events<GenerateImageResponse>;
    async fn generate_image(
        &self,
        request: Request<GenerateImageRequest>,
    ) -> Result<Response<Self::GenerateImageStream>, Status> {
        self.0.note(&request);
        fake_images::answer(&self.0, request.into_inner()).map(Response::new)
    }

    async fn rerank(&self, _: Request<RerankRequest>) -> Result<Response<RerankResponse>, Status> {
        Err(error::unimplemented("no rerank here"))
    }

    async fn list_models(
        &self,
        request: Request<ListModelsRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        self.0.note(&request);
        let model =
            |id: &str| Model { id: id.into(), provider: "openai".into(), ..Model::default() };
        Ok(Response::new(ListModelsResponse {
            models: vec![model("openai/gpt-x"), model("agent/default")],
            ..ListModelsResponse::default()
        }))
    }
}

/// Starts a router on a free port; it leaves when `stop` is cancelled.
pub(crate) async fn router(
    keys: &Generated,
    seen: &Arc<Seen>,
    stop: CancellationToken,
) -> SocketAddr {
    let routes = Routes::new(ModelServiceServer::new(Models(Arc::clone(seen))))
        .add_service(AgentServiceServer::new(Agents(Arc::clone(seen))));
    private("router", routes, keys, stop).await
}

pub(crate) async fn private(
    role: &'static str,
    routes: Routes,
    keys: &Generated,
    stop: CancellationToken,
) -> SocketAddr {
    let mut world = World::local(role, keys, &[]).await.unwrap();
    world.stop = stop;
    let addr = world.addr().unwrap();
    let readiness = Readiness::default();
    let service = serve::Private { routes, issuers: &["gateway"], readiness };
    tokio::spawn(serve::private(world, service));
    addr
}
