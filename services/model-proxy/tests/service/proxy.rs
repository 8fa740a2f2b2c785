//! A model-proxy in this process, and the router's way to call it.

use mesh::{Call, World, config::Sources, keys};
use model_proxy::Config;
use skein_proto::{
    mesh::v1::{MachineStatus, StatusRequest, peer_service_client::PeerServiceClient},
    model::v1::{
        ContentPart, Finished, GenerateRequest, GenerateResponse, ListModelsRequest, Message,
        Model, ModelHealth, Role, Started, content_part::Part, delta::Piece,
        generate_response::Event, model_service_client::ModelServiceClient,
    },
};
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming};

pub(crate) const PROBES: &str = "SKEIN_PROVIDER__PROBE_INTERVAL";

pub(crate) struct Proxy {
    keys: keys::Generated,
    address: SocketAddr,
    caller: World,
    _stop: Option<DropGuard>,
}

impl Proxy {
    pub(crate) async fn start(variables: &[(&str, &str)]) -> Self {
        let keys = keys::generate(&["gateway", "router", "model-proxy"]).unwrap();
        let mut all = vec![("SKEIN_MESH_KEY", "unused"), ("SKEIN_MESH_PEERS", "unused")];
        // Providers are asked what the test asks, and nothing else.
        if !variables.iter().any(|(name, _)| *name == PROBES) {
            all.push((PROBES, "0s"));
        }
        all.extend_from_slice(variables);
        let (config, _) = Config::read(&Sources::of(&all)).unwrap();
        let world = World::local("model-proxy", &keys, &[]).await.unwrap();
        let (address, stop) = (world.addr().unwrap(), world.stop.clone());
        tokio::spawn(async move { model_proxy::run(&config, world).await.unwrap() });
        let caller = World::local("router", &keys, &[("model-proxy", address)]).await.unwrap();
        Self { keys, address, caller, _stop: Some(CancellationToken::drop_guard(stop)) }
    }

    /// The same server, called by another role.
    pub(crate) async fn call_as(
        &self,
        role: &'static str,
        request: GenerateRequest,
    ) -> Result<Streaming<GenerateResponse>, Status> {
        let caller =
            World::local(role, &self.keys, &[("model-proxy", self.address)]).await.unwrap();
        let mut client = ModelServiceClient::new(caller.network.channel("model-proxy"));
        Ok(client.generate(Self::call().request(request)).await?.into_inner())
    }

    pub(crate) fn client(&self) -> ModelServiceClient<mesh::Channel> {
        let channel = self.caller.network.channel("model-proxy");
        ModelServiceClient::new(channel).max_decoding_message_size(mesh::h2::MAX_MESSAGE)
    }

    /// What the machine says about itself.
    pub(crate) async fn status(&self) -> MachineStatus {
        let mut client = PeerServiceClient::new(self.caller.network.channel("model-proxy"));
        let answer = client.status(Self::call().request(StatusRequest::default())).await.unwrap();
        answer.into_inner().machines.remove(0)
    }

    /// The same, as soon as `done` holds for it.
    pub(crate) async fn status_when(&self, done: impl Fn(&MachineStatus) -> bool) -> MachineStatus {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let status = self.status().await;
            if done(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{status:#?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn models(&self) -> Vec<Model> {
        let request = Self::call().request(ListModelsRequest {});
        self.client().list_models(request).await.unwrap().into_inner().models
    }

    /// A model's health in the list of models, and why it is not up.
    pub(crate) async fn health(&self, model: &str) -> (ModelHealth, String) {
        let models = self.models().await;
        let model = models.into_iter().find(|listed| listed.id == model).unwrap();
        (model.health(), model.health_reason)
    }

    /// A call as the router would make it.
    pub(crate) fn call() -> Call {
        Call::new("acme", "key:test", Duration::from_secs(60))
    }

    pub(crate) async fn generate(
        &self,
        request: GenerateRequest,
    ) -> Result<Streaming<GenerateResponse>, Status> {
        self.generate_within(request, Duration::from_secs(60)).await
    }

    pub(crate) async fn generate_within(
        &self,
        request: GenerateRequest,
        timeout: Duration,
    ) -> Result<Streaming<GenerateResponse>, Status> {
        let call = Self::call().with_timeout(timeout);
        Ok(self.client().generate(call.request(request)).await?.into_inner())
    }
}

pub(crate) fn ask(model: &str, question: &str) -> GenerateRequest {
    let content =
        vec![ContentPart { part: Some(Part::Text(question.to_owned())), ..ContentPart::default() }];
    GenerateRequest {
        call_id: "c1".to_owned(),
        model: model.to_owned(),
        messages: vec![Message { role: Role::User.into(), content, ..Message::default() }],
        ..GenerateRequest::default()
    }
}

/// A whole answer, joined.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) started: Started,
    pub(crate) text: String,
    pub(crate) calls: Vec<(String, String, String)>,
    pub(crate) citations: Vec<skein_proto::model::v1::Citation>,
    pub(crate) finished: Finished,
}

#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) text: String,
    pub(crate) status: Status,
}

/// Reads a stream to its end and checks that it ends once and well.
pub(crate) async fn collect(proxy: &Proxy, request: GenerateRequest) -> Result<Answer, Failed> {
    let failed = |text: &str, status| Failed { text: text.to_owned(), status };
    let mut stream = proxy.generate(request).await.map_err(|status| failed("", status))?;
    let (mut text, mut citations) = (String::new(), Vec::new());
    let mut calls: BTreeMap<u32, (String, String, String)> = BTreeMap::new();
    let (mut started, mut finished) = (None, None);
    while let Some(answer) = stream.message().await.map_err(|status| failed(&text, status))? {
        assert!(finished.is_none(), "something after the last event");
        match answer.event.unwrap() {
            Event::Started(event) => assert!(started.replace(event).is_none()),
            Event::Finished(event) => finished = Some(event),
            Event::Delta(delta) => match delta.piece {
                Some(Piece::Text(piece)) => text.push_str(&piece),
                Some(Piece::Citation(citation)) => citations.push(citation),
                Some(Piece::ToolCall(piece)) => {
                    let call = calls.entry(piece.index).or_default();
                    call.0.push_str(&piece.id);
                    call.1.push_str(&piece.name);
                    call.2.push_str(&piece.arguments);
                }
                _ => {}
            },
        }
    }
    let (started, finished) = (started.unwrap(), finished.unwrap());
    Ok(Answer { started, text, calls: calls.into_values().collect(), citations, finished })
}
