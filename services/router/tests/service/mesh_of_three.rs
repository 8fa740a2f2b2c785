//! A router between a gateway that calls it and the fakes it calls.

use crate::fakes::{Behaviour, FakeModels, FakeRetrieval, Says};
use mesh::keys::Generated;
use mesh::ready::Readiness;
use mesh::{Call, Channel, World, config::Sources, serve};
use router::Config;
use skein_proto::agent::v1::agent_service_client::AgentServiceClient;
use skein_proto::agent::v1::stream_events_request::Of;
use skein_proto::agent::v1::stream_events_response::Item;
use skein_proto::agent::v1::{
    CreateRunRequest, GetRunRequest, Run, RunEvent, StreamEventsRequest, StreamEventsResponse,
};
use skein_proto::model::v1::model_service_client::ModelServiceClient;
use skein_proto::model::v1::model_service_server::ModelServiceServer;
use skein_proto::model::v1::{ContentPart, Message, Role, content_part};
use skein_proto::retrieval::v1::retrieval_service_server::RetrievalServiceServer;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::service::Routes;
use tonic::{Status, Streaming};

/// A URL of an empty database per dialect; the folder lives as long as the test.
pub(crate) fn databases() -> (tempfile::TempDir, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let mut urls = vec![format!("sqlite:{}", folder.path().join("router.db").display())];
    urls.extend(pg_test::fresh_database());
    (folder, urls)
}

/// One mesh per dialect.
pub(crate) async fn meshes() -> Vec<Mesh> {
    let (folder, urls) = databases();
    let folder = std::sync::Arc::new(folder);
    let mut meshes = Vec::new();
    for url in &urls {
        let mut mesh = Mesh::start(url, "local", &[]).await;
        mesh.folder = Some(std::sync::Arc::clone(&folder));
        meshes.push(mesh);
    }
    meshes
}

pub(crate) struct Mesh {
    pub(crate) models: &'static FakeModels,
    pub(crate) retrieval: &'static FakeRetrieval,
    pub(crate) router: Option<JoinHandle<()>>,
    pub(crate) stop: CancellationToken,
    gateway: World,
    folder: Option<std::sync::Arc<tempfile::TempDir>>,
    _ends: Vec<DropGuard>,
}

async fn serve_routes(
    role: &'static str,
    keys: &Generated,
    routes: Routes,
) -> (SocketAddr, DropGuard) {
    let world = World::local(role, keys, &[]).await.unwrap();
    let (address, stop) = (world.addr().unwrap(), world.stop.clone());
    let issuers = &["router"];
    let service = serve::Private { routes, issuers, readiness: Readiness::default() };
    tokio::spawn(async move { serve::private(world, service).await.unwrap() });
    (address, stop.drop_guard())
}

impl Mesh {
    pub(crate) async fn start(url: &str, machine: &str, settings: &[(&str, &str)]) -> Self {
        let keys =
            mesh::keys::generate(&["gateway", "router", "model-proxy", "retrieval"]).unwrap();
        // Leaked: a test's fakes live as long as the test's process.
        let models: &'static FakeModels = Box::leak(Box::default());
        let retrieval: &'static FakeRetrieval = Box::leak(Box::default());
        let routes = Routes::new(ModelServiceServer::new(models));
        let (models_at, models_end) = serve_routes("model-proxy", &keys, routes).await;
        let routes = Routes::new(RetrievalServiceServer::new(retrieval));
        let (retrieval_at, retrieval_end) = serve_routes("retrieval", &keys, routes).await;

        let mut all = vec![
            ("SKEIN_MESH_KEY", "unused"),
            ("SKEIN_MESH_PEERS", "unused"),
            ("DATABASE_URL", url),
            ("SKEIN_ROUTER__POLL", "20ms"),
        ];
        all.extend_from_slice(settings);
        let (config, _) = Config::read(&Sources::of(&all)).unwrap();
        let peers = [("model-proxy", models_at), ("retrieval", retrieval_at)];
        let mut world = World::local("router", &keys, &peers).await.unwrap();
        world.identity.machine = machine.to_owned();
        let (address, stop) = (world.addr().unwrap(), world.stop.clone());
        let router = tokio::spawn(async move { router::run(config, world).await.unwrap() });
        let gateway = World::local("gateway", &keys, &[("router", address)]).await.unwrap();
        let ends = vec![models_end, retrieval_end, stop.clone().drop_guard()];
        Self { models, retrieval, router: Some(router), stop, gateway, folder: None, _ends: ends }
    }

    pub(crate) fn call() -> Call {
        Self::call_of("acme")
    }

    pub(crate) fn call_of(tenant: &str) -> Call {
        Call::new(tenant, "key:test", Duration::from_secs(60))
    }

    pub(crate) fn agents(&self) -> AgentServiceClient<Channel> {
        AgentServiceClient::new(self.channel())
    }

    pub(crate) fn model_client(&self) -> ModelServiceClient<Channel> {
        ModelServiceClient::new(self.channel())
    }

    pub(crate) fn channel(&self) -> Channel {
        self.gateway.network.channel("router")
    }

    /// The next model call says what the test says.
    pub(crate) fn control(&self) -> Says {
        let (says, heard) = mpsc::channel(64);
        self.models.next.lock().unwrap().push_back(Behaviour::Controlled(heard));
        says
    }

    pub(crate) async fn create(&self, request: CreateRunRequest) -> Result<(Run, bool), Status> {
        let made = self.agents().create_run(Self::call().request(request)).await?.into_inner();
        Ok((made.run.unwrap(), made.existed))
    }

    pub(crate) async fn ask(&self, question: &str) -> Run {
        self.create(asking(question)).await.unwrap().0
    }

    pub(crate) async fn get(&self, id: &str) -> Run {
        let request = Self::call().request(GetRunRequest { id: id.to_owned() });
        self.agents().get_run(request).await.unwrap().into_inner().run.unwrap()
    }

    pub(crate) async fn watch(
        &self,
        request: StreamEventsRequest,
    ) -> Streaming<StreamEventsResponse> {
        self.agents().stream_events(Self::call().request(request)).await.unwrap().into_inner()
    }

    /// All events of a run, to its end.
    pub(crate) async fn follow(&self, id: &str) -> Vec<RunEvent> {
        events(self.watch(live(id, 0)).await).await
    }

    pub(crate) async fn finish(&self, question: &str) -> Run {
        let id = self.ask(question).await.id;
        self.follow(&id).await;
        self.get(&id).await
    }

    pub(crate) async fn stopped(mut self) -> Option<std::sync::Arc<tempfile::TempDir>> {
        self.stop.cancel();
        self.router.take().unwrap().await.unwrap();
        self.folder.take()
    }
}

pub(crate) fn said(role: Role, text: &str) -> Message {
    let part = ContentPart {
        part: Some(content_part::Part::Text(text.to_owned())),
        ..ContentPart::default()
    };
    Message { role: role.into(), content: vec![part], ..Message::default() }
}

pub(crate) fn asking(question: &str) -> CreateRunRequest {
    CreateRunRequest { input: vec![said(Role::User, question)], ..CreateRunRequest::default() }
}

pub(crate) fn live(run: &str, after_seq: u64) -> StreamEventsRequest {
    let of = Some(Of::RunId(run.to_owned()));
    StreamEventsRequest { of, after_seq, live: true, ..StreamEventsRequest::default() }
}

/// The events of a stream to its end.
pub(crate) async fn events(mut stream: Streaming<StreamEventsResponse>) -> Vec<RunEvent> {
    let mut events = Vec::new();
    while let Some(response) = stream.message().await.unwrap() {
        if let Some(Item::Event(event)) = response.item {
            events.push(event);
        }
    }
    events
}

/// The next event that `wanted` accepts.
pub(crate) async fn until(
    stream: &mut Streaming<StreamEventsResponse>,
    wanted: impl Fn(&RunEvent) -> bool,
) -> RunEvent {
    loop {
        let response = stream.message().await.unwrap().unwrap();
        if let Some(Item::Event(event)) = response.item
            && wanted(&event)
        {
            return event;
        }
    }
}
