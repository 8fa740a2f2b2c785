//! Machines of one app in this process, and a channel to them.

use crate::relay::Relay;
use mesh::{
    Call, Channel, World, channel,
    discover::{Discovery, Endpoint},
    error::{self, Kind},
    identity::Identity,
    keys::{self, Generated},
    ready::Readiness,
    serve::{self, Private},
};
use skein_proto::tool::v1::{
    CallToolRequest, CallToolResponse, ListToolsRequest, ListToolsResponse, Tool,
    tool_service_client::ToolServiceClient,
    tool_service_server::{ToolService, ToolServiceServer},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, service::Routes};

/// `ListTools` is idempotent, `CallTool` is not.
#[derive(Clone, Default)]
pub(crate) struct Tools {
    pub(crate) listed: Arc<AtomicUsize>,
    pub(crate) called: Arc<AtomicUsize>,
    pub(crate) busy: Arc<AtomicBool>,
    /// Bytes in the answer of `ListTools`.
    pub(crate) long: usize,
    pub(crate) takes: Duration,
}

#[tonic::async_trait]
impl ToolService for Tools {
    async fn list_tools(
        &self,
        _: Request<ListToolsRequest>,
    ) -> Result<Response<ListToolsResponse>, Status> {
        self.listed.fetch_add(1, SeqCst);
        tokio::time::sleep(self.takes).await;
        let tool = Tool { description: "x".repeat(self.long), ..Tool::default() };
        Ok(Response::new(ListToolsResponse { tools: vec![tool] }))
    }

    async fn call_tool(
        &self,
        _: Request<CallToolRequest>,
    ) -> Result<Response<CallToolResponse>, Status> {
        self.called.fetch_add(1, SeqCst);
        if self.busy.load(SeqCst) {
            let kind = Kind::RateLimited { retry_after: Some(Duration::from_secs(2)) };
            return Err(error::status(kind, Some("OVERLOADED"), None, "busy".to_owned()));
        }
        Ok(Response::new(CallToolResponse::default()))
    }
}

/// One machine behind a relay.
pub(crate) struct Machine {
    pub(crate) relay: Relay,
    /// Where it listens itself.
    pub(crate) addr: SocketAddr,
    pub(crate) tools: Tools,
    pub(crate) stop: CancellationToken,
    pub(crate) done: tokio::task::JoinHandle<std::io::Result<()>>,
}

pub(crate) struct App {
    keys: Generated,
    publish: watch::Sender<Arc<[Endpoint]>>,
}

impl App {
    pub(crate) fn new() -> Self {
        let keys = keys::generate(&["gateway", "router"]).unwrap();
        Self { keys, publish: watch::channel(Arc::from([])).0 }
    }

    pub(crate) async fn machine(&self, tools: Tools) -> Machine {
        let world = World::local("router", &self.keys, &[]).await.unwrap();
        let addr = world.addr().unwrap();
        let relay = Relay::to(addr).await;
        let stop = world.stop.clone();
        let routes = Routes::new(ToolServiceServer::new(tools.clone()));
        let service = Private { routes, issuers: &["gateway"], readiness: Readiness::default() };
        let done = tokio::spawn(serve::private(world, service));
        Machine { relay, addr, tools, stop, done }
    }

    /// What DNS says from now on.
    pub(crate) fn list(&self, machines: &[(&Machine, &str)]) {
        let endpoint = |(machine, region): &(&Machine, &str)| Endpoint {
            addr: machine.relay.addr,
            region: (*region).to_owned(),
        };
        self.publish.send_replace(machines.iter().map(endpoint).collect());
    }

    /// A caller in the region `local`, connected.
    pub(crate) async fn channel(&self) -> Channel {
        let channel = self.caller();
        channel.connected().await;
        channel
    }

    /// The same, which may not be connected yet.
    pub(crate) fn caller(&self) -> Channel {
        let target = channel::Target {
            role: "router",
            app: "skein-router".to_owned(),
            own: Identity::local("gateway"),
            keys: Arc::new(self.keys.keys("gateway").unwrap()),
            patience: Duration::from_secs(10),
            wake: None,
        };
        Channel::new(target, Discovery::following(self.publish.subscribe()))
    }
}

pub(crate) async fn list(channel: &Channel) -> Result<ListToolsResponse, Status> {
    let call = Call::new("acme", "key:abc", Duration::from_secs(20));
    let mut client = ToolServiceClient::new(channel.clone());
    Ok(client.list_tools(call.request(ListToolsRequest {})).await?.into_inner())
}

pub(crate) async fn run(channel: &Channel) -> Result<CallToolResponse, Status> {
    let call = Call::new("acme", "key:abc", Duration::from_secs(20));
    let mut client = ToolServiceClient::new(channel.clone());
    Ok(client.call_tool(call.request(CallToolRequest::default())).await?.into_inner())
}

pub(crate) fn addrs(channel: &Channel) -> Vec<SocketAddr> {
    let mut addrs: Vec<_> = channel.machines().iter().map(channel::Machine::addr).collect();
    addrs.sort();
    addrs
}

pub(crate) async fn until(what: &str, check: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what} did not happen");
}
