//! What stands behind the router: models that say what the test tells them to,
//! and documents that are found whatever is asked.

use skein_proto::model::v1::model_service_server::ModelService;
use skein_proto::model::v1::{
    Choice, Cost, Delta, EmbedRequest, EmbedResponse, Embedding, FinishReason, Finished,
    GenerateImageRequest, GenerateImageResponse, GenerateRequest, GenerateResponse,
    ListModelsRequest, ListModelsResponse, Model, RerankRequest, RerankResponse, Span, Started,
    Usage, delta::Piece, generate_response::Event,
};
use skein_proto::retrieval::v1::retrieval_service_server::RetrievalService;
use skein_proto::retrieval::v1::{
    CreateCollectionRequest, CreateCollectionResponse, DeleteCollectionRequest,
    DeleteCollectionResponse, DeleteDocumentsRequest, DeleteDocumentsResponse, ExportRequest,
    ExportResponse, GetCollectionRequest, GetCollectionResponse, GetDocumentRequest,
    GetDocumentResponse, Hit, ImportRequest, ImportResponse, IngestDocumentsRequest,
    IngestDocumentsResponse, ListCollectionsRequest, ListCollectionsResponse, ListDocumentsRequest,
    ListDocumentsResponse, PutDocumentRequest, PutDocumentResponse, SearchRequest, SearchResponse,
};
use std::collections::VecDeque;
use std::sync::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub(crate) type Says = mpsc::Sender<Result<GenerateResponse, Status>>;
pub(crate) type Heard = mpsc::Receiver<Result<GenerateResponse, Status>>;

pub(crate) enum Behaviour {
    /// These pieces, then `finished`.
    Answer(Vec<Delta>),
    /// What the test sends, when it sends it; closed means the stream just ends.
    Controlled(Heard),
    Refuse(Status),
}

#[derive(Default)]
pub(crate) struct FakeModels {
    pub(crate) next: Mutex<VecDeque<Behaviour>>,
    pub(crate) calls: Mutex<Vec<GenerateRequest>>,
    pub(crate) embeds: Mutex<Vec<EmbedRequest>>,
    pub(crate) away: Mutex<bool>,
}

pub(crate) fn text(text: &str) -> Delta {
    Delta { piece: Some(Piece::Text(text.to_owned())), ..Delta::default() }
}

pub(crate) fn started() -> GenerateResponse {
    event(Event::Started(Started {
        model: "local/extractive".to_owned(),
        provider: "local".to_owned(),
        region: "iad".to_owned(),
        machine: "m1".to_owned(),
        ..Started::default()
    }))
}

pub(crate) fn delta(text: &str) -> GenerateResponse {
    event(Event::Delta(self::text(text)))
}

pub(crate) fn finished() -> GenerateResponse {
    let choice = Choice { finish_reason: FinishReason::Stop.into(), ..Choice::default() };
    event(Event::Finished(Finished {
        choices: vec![choice],
        usage: Some(usage(10, 500)),
        ..Finished::default()
    }))
}

pub(crate) fn usage(output: i64, nano_usd: i64) -> Usage {
    Usage { output, cost: Some(Cost { nano_usd: Some(nano_usd) }), ..Usage::default() }
}

fn event(event: Event) -> GenerateResponse {
    GenerateResponse { event: Some(event) }
}

#[tonic::async_trait]
impl ModelService for &'static FakeModels {
    type GenerateStream = ReceiverStream<Result<GenerateResponse, Status>>;
    type GenerateImageStream = ReceiverStream<Result<GenerateImageResponse, Status>>;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        self.calls.lock().unwrap().push(request.into_inner());
        let next = self.next.lock().unwrap().pop_front();
        let pieces = match next {
            Some(Behaviour::Refuse(status)) => return Err(status),
            Some(Behaviour::Controlled(heard)) => {
                return Ok(Response::new(ReceiverStream::new(heard)));
            }
            Some(Behaviour::Answer(pieces)) => pieces,
            None => vec![text("It is "), text("8080 [1].")],
        };
        let (says, heard) = mpsc::channel(pieces.len() + 2);
        says.try_send(Ok(started())).unwrap();
        for piece in pieces {
            says.try_send(Ok(event(Event::Delta(piece)))).unwrap();
        }
        says.try_send(Ok(finished())).unwrap();
        Ok(Response::new(ReceiverStream::new(heard)))
    }

    async fn embed(
        &self,
        request: Request<EmbedRequest>,
    ) -> Result<Response<EmbedResponse>, Status> {
        let request = request.into_inner();
        let model = request.model.clone();
        self.embeds.lock().unwrap().push(request);
        let embeddings = vec![Embedding { values: vec![1.0, 0.0] }];
        Ok(Response::new(EmbedResponse { embeddings, model, ..EmbedResponse::default() }))
    }

    async fn generate_image(
        &self,
        _: Request<GenerateImageRequest>,
    ) -> Result<Response<Self::GenerateImageStream>, Status> {
        Err(mesh::error::unimplemented("no images here"))
    }

    async fn rerank(&self, _: Request<RerankRequest>) -> Result<Response<RerankResponse>, Status> {
        Err(mesh::error::unimplemented("no reranking here"))
    }

    async fn list_models(
        &self,
        _: Request<ListModelsRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        if *self.away.lock().unwrap() {
            return Err(Status::internal("away"));
        }
        let model = |id: &str| Model {
            id: id.to_owned(),
            provider: "local".to_owned(),
            region: "iad".to_owned(),
            ..Model::default()
        };
        let models = vec![model("local/extractive"), model("local/minilm")];
        Ok(Response::new(ListModelsResponse { models, ..ListModelsResponse::default() }))
    }
}

#[derive(Default)]
pub(crate) struct FakeRetrieval {
    pub(crate) searches: Mutex<Vec<SearchRequest>>,
    pub(crate) refuse: Mutex<Option<Status>>,
}

pub(crate) const SOURCE: &str = "The gateway listens on port 8080.";

fn no<T>() -> Result<Response<T>, Status> {
    Err(mesh::error::unimplemented("not part of these tests"))
}

#[tonic::async_trait]
impl RetrievalService for &'static FakeRetrieval {
    type IngestDocumentsStream = ReceiverStream<Result<IngestDocumentsResponse, Status>>;
    type ExportStream = ReceiverStream<Result<ExportResponse, Status>>;

    async fn search(
        &self,
        request: Request<SearchRequest>,
    ) -> Result<Response<SearchResponse>, Status> {
        self.searches.lock().unwrap().push(request.into_inner());
        if let Some(status) = self.refuse.lock().unwrap().clone() {
            return Err(status);
        }
        let hit = Hit {
            document_id: "ports.md".to_owned(),
            chunk_id: "ports.md#1".to_owned(),
            score: 0.5,
            text: SOURCE.to_owned(),
            span: Some(Span { start: 100, end: 100 + SOURCE.len() as u64 }),
            title: "Ports".to_owned(),
            ..Hit::default()
        };
        let usage = Some(usage(0, 7));
        Ok(Response::new(SearchResponse { hits: vec![hit], usage, ..SearchResponse::default() }))
    }

    async fn create_collection(
        &self,
        _: Request<CreateCollectionRequest>,
    ) -> Result<Response<CreateCollectionResponse>, Status> {
        no()
    }
    async fn get_collection(
        &self,
        _: Request<GetCollectionRequest>,
    ) -> Result<Response<GetCollectionResponse>, Status> {
        no()
    }
    async fn list_collections(
        &self,
        _: Request<ListCollectionsRequest>,
    ) -> Result<Response<ListCollectionsResponse>, Status> {
        no()
    }
    async fn delete_collection(
        &self,
        _: Request<DeleteCollectionRequest>,
    ) -> Result<Response<DeleteCollectionResponse>, Status> {
        no()
    }
    async fn put_document(
        &self,
        _: Request<PutDocumentRequest>,
    ) -> Result<Response<PutDocumentResponse>, Status> {
        no()
    }
    async fn ingest_documents(
        &self,
        _: Request<Streaming<IngestDocumentsRequest>>,
    ) -> Result<Response<Self::IngestDocumentsStream>, Status> {
        no()
    }
    async fn get_document(
        &self,
        _: Request<GetDocumentRequest>,
    ) -> Result<Response<GetDocumentResponse>, Status> {
        no()
    }
    async fn list_documents(
        &self,
        _: Request<ListDocumentsRequest>,
    ) -> Result<Response<ListDocumentsResponse>, Status> {
        no()
    }
    async fn delete_documents(
        &self,
        _: Request<DeleteDocumentsRequest>,
    ) -> Result<Response<DeleteDocumentsResponse>, Status> {
        no()
    }
    async fn export(
        &self,
        _: Request<ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        no()
    }
    async fn import(
        &self,
        _: Request<Streaming<ImportRequest>>,
    ) -> Result<Response<ImportResponse>, Status> {
        no()
    }
}
