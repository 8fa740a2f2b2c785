//! A retrieval service and a router that embeds, in one process.

use mesh::keys::{self, Generated};
use mesh::ready::Readiness;
use mesh::{Call, Channel, World, serve};
use retrieval::config::Config;
use skein_proto::model::v1::embed_input::Input;
use skein_proto::model::v1::model_service_server::{ModelService, ModelServiceServer};
use skein_proto::model::v1::{
    EmbedRequest, EmbedResponse, Embedding, GenerateImageRequest, GenerateImageResponse,
    GenerateRequest, GenerateResponse, ListModelsRequest, ListModelsResponse, RerankRequest,
    RerankResponse,
};
use skein_proto::retrieval::v1::retrieval_service_client::RetrievalServiceClient;
use skein_proto::retrieval::v1::{
    Collection, Document, GetCollectionRequest, IngestDocumentsRequest, IngestDocumentsResponse,
    Mode, PutDocumentRequest, PutDocumentResponse, SearchRequest, SearchResponse,
};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

const DIMENSIONS: usize = 32;

/// Embeds a text as the bag of its hashed words.
#[derive(Clone, Default)]
pub(crate) struct Router(Arc<State>);

#[derive(Default)]
struct State {
    off: AtomicBool,
    changed: AtomicBool,
    embedded: AtomicUsize,
    tenants: Mutex<BTreeSet<String>>,
}

impl Router {
    pub(crate) fn switch(&self, on: bool) {
        self.0.off.store(!on, SeqCst);
    }

    pub(crate) fn change_model(&self) {
        self.0.changed.store(true, SeqCst);
    }

    /// Texts embedded so far.
    pub(crate) fn embedded(&self) -> usize {
        self.0.embedded.load(SeqCst)
    }

    pub(crate) fn tenants(&self) -> Vec<String> {
        self.0.tenants.lock().unwrap().iter().cloned().collect()
    }
}

fn vector(text: &str) -> Vec<f32> {
    let mut values = vec![0.0; DIMENSIONS];
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let hash = word
            .to_lowercase()
            .bytes()
            .fold(5381_usize, |hash, byte| hash.wrapping_mul(33) ^ usize::from(byte));
        values[hash % DIMENSIONS] += 1.0;
    }
    values
}

#[tonic::async_trait]
impl ModelService for Router {
    type GenerateStream = tokio_stream::Empty<Result<GenerateResponse, Status>>;
    type GenerateImageStream = tokio_stream::Empty<Result<GenerateImageResponse, Status>>;

    async fn embed(
        &self,
        request: Request<EmbedRequest>,
    ) -> Result<Response<EmbedResponse>, Status> {
        let call = Call::of(&request)?;
        if self.0.off.load(SeqCst) {
            return Err(Status::unavailable("switched off"));
        }
        self.0.tenants.lock().unwrap().insert(call.tenant.to_string());
        let request = request.into_inner();
        let mut embeddings = Vec::new();
        for input in &request.inputs {
            let Some(Input::Text(text)) = &input.input else {
                return Err(Status::internal("not a text"));
            };
            if text.contains("unembeddable") {
                return Err(Status::invalid_argument("input too long"));
            }
            embeddings.push(Embedding { values: vector(text) });
        }
        self.0.embedded.fetch_add(embeddings.len(), SeqCst);
        let model = if self.0.changed.load(SeqCst) { "fake/second" } else { "fake/first" };
        Ok(Response::new(EmbedResponse {
            embeddings,
            model: model.to_owned(),
            ..EmbedResponse::default()
        }))
    }

    async fn generate(
        &self,
        _: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        Err(Status::unimplemented("only embeds"))
    }

    async fn generate_image(
        &self,
        _: Request<GenerateImageRequest>,
    ) -> Result<Response<Self::GenerateImageStream>, Status> {
        Err(Status::unimplemented("only embeds"))
    }

    async fn rerank(&self, _: Request<RerankRequest>) -> Result<Response<RerankResponse>, Status> {
        Err(Status::unimplemented("only embeds"))
    }

    async fn list_models(
        &self,
        _: Request<ListModelsRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        Err(Status::unimplemented("only embeds"))
    }
}

pub(crate) struct Mesh {
    pub(crate) router: Router,
    keys: Arc<Generated>,
    router_at: SocketAddr,
    channel: Channel,
    stop: CancellationToken,
    /// The service's own, so that it can be cut off in the middle of things.
    process: Option<Runtime>,
    folder: Arc<TempDir>,
}

impl Mesh {
    pub(crate) async fn start() -> Self {
        let keys = Arc::new(keys::generate(&["gateway", "router", "retrieval"]).unwrap());
        let router = Router::default();
        let world = World::local("router", &keys, &[]).await.unwrap();
        let router_at = world.addr().unwrap();
        tokio::spawn(serve::private(
            world,
            serve::Private {
                routes: Routes::new(ModelServiceServer::new(router.clone())),
                issuers: &["retrieval"],
                readiness: Readiness::default(),
            },
        ));
        Self::open(router, keys, router_at, Arc::new(tempfile::tempdir().unwrap())).await
    }

    async fn open(
        router: Router,
        keys: Arc<Generated>,
        router_at: SocketAddr,
        folder: Arc<TempDir>,
    ) -> Self {
        let process = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let own = Arc::clone(&keys);
        let path = format!("sqlite:{}", folder.path().join("retrieval.db").display());
        let (at, stop) = process
            .spawn(async move {
                let world =
                    World::local("retrieval", &own, &[("router", router_at)]).await.unwrap();
                let (at, stop) = (world.addr().unwrap(), world.stop.clone());
                tokio::spawn(retrieval::run(config(&path), world));
                (at, stop)
            })
            .await
            .unwrap();
        let gateway = World::local("gateway", &keys, &[("retrieval", at)]).await.unwrap();
        let channel = gateway.network.channel("retrieval");
        Self { router, keys, router_at, channel, stop, process: Some(process), folder }
    }

    /// Stops as at a deploy and starts again on the same files.
    pub(crate) async fn restart(mut self) -> Self {
        self.stop.cancel();
        let process = self.process.take().unwrap();
        tokio::task::spawn_blocking(move || process.shutdown_timeout(Duration::from_secs(5)))
            .await
            .unwrap();
        self.again().await
    }

    /// Every task is dropped where it stands, and the service starts again.
    pub(crate) async fn abort(mut self) -> Self {
        self.process.take().unwrap().shutdown_background();
        self.again().await
    }

    async fn again(&self) -> Self {
        let folder = Arc::clone(&self.folder);
        Self::open(self.router.clone(), Arc::clone(&self.keys), self.router_at, folder).await
    }

    pub(crate) fn call(tenant: &str) -> Call {
        Call::new(tenant, "key:test", Duration::from_secs(30))
    }

    pub(crate) fn client(&self) -> RetrievalServiceClient<Channel> {
        RetrievalServiceClient::new(self.channel.clone())
    }

    pub(crate) async fn put(
        &self,
        tenant: &str,
        put: PutDocumentRequest,
    ) -> Result<PutDocumentResponse, Status> {
        let request = Self::call(tenant).request(put);
        self.client().put_document(request).await.map(Response::into_inner)
    }

    pub(crate) async fn search(
        &self,
        tenant: &str,
        collection: &str,
        query: &str,
        mode: Mode,
    ) -> Result<SearchResponse, Status> {
        let search = SearchRequest { mode: mode.into(), ..search(collection, query) };
        let request = Self::call(tenant).request(search);
        self.client().search(request).await.map(Response::into_inner)
    }

    pub(crate) async fn ingest(
        &self,
        tenant: &str,
        requests: Vec<IngestDocumentsRequest>,
    ) -> Vec<IngestDocumentsResponse> {
        let request = Self::call(tenant).request(tokio_stream::iter(requests));
        let mut stream = self.client().ingest_documents(request).await.unwrap().into_inner();
        let mut results = Vec::new();
        while let Some(result) = stream.message().await.unwrap() {
            results.push(result);
        }
        results
    }

    pub(crate) async fn collection(&self, tenant: &str, name: &str) -> Collection {
        let request = Self::call(tenant).request(GetCollectionRequest { name: name.to_owned() });
        let response = self.client().get_collection(request).await.unwrap();
        response.into_inner().collection.unwrap()
    }

    /// Until no chunk waits for its vector.
    pub(crate) async fn embedded(&self, tenant: &str, name: &str) {
        let all = async {
            while self.collection(tenant, name).await.pending_chunks > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.shutdown_background();
        }
    }
}

fn config(path: &str) -> Config {
    let sources = mesh::config::Sources::of(&[
        ("SKEIN_MESH_KEY", "unused"),
        ("SKEIN_MESH_PEERS", "unused"),
        ("VECTOR_DB_URL", path),
        ("SKEIN_RETRIEVAL__EMBED_PAUSE", "50ms"),
    ]);
    Config::read(&sources).unwrap().0
}

pub(crate) fn document(collection: &str, id: &str, text: &str) -> PutDocumentRequest {
    PutDocumentRequest {
        collection: collection.to_owned(),
        document: Some(Document {
            id: id.to_owned(),
            text: text.to_owned(),
            ..Document::default()
        }),
        version: 0,
    }
}

pub(crate) fn search(collection: &str, query: &str) -> SearchRequest {
    SearchRequest {
        collection: collection.to_owned(),
        query: query.to_owned(),
        explain: true,
        ..SearchRequest::default()
    }
}
