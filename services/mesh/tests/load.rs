//! A machine that has too much to do, and one whose handler breaks: real
//! sockets, one process.

#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

use mesh::{
    Call, Channel, World, channel,
    discover::Discovery,
    error,
    identity::Identity,
    keys::{self, Generated},
    load::{self, Limits, Load},
    ready::Readiness,
    serve::{self, Private},
};
use skein_proto::{
    mesh::v1::{StatusRequest, peer_service_client::PeerServiceClient},
    tool::v1::{
        CallToolRequest, CallToolResponse, ListToolsRequest, ListToolsResponse,
        tool_service_client::ToolServiceClient,
        tool_service_server::{ToolService, ToolServiceServer},
    },
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, service::Routes};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// `hold` answers when it is let go, `panic` does not answer.
#[derive(Clone, Default)]
struct Tools {
    let_go: CancellationToken,
}

#[tonic::async_trait]
impl ToolService for Tools {
    async fn list_tools(
        &self,
        _: Request<ListToolsRequest>,
    ) -> Result<Response<ListToolsResponse>, Status> {
        Ok(Response::new(ListToolsResponse::default()))
    }

    async fn call_tool(
        &self,
        request: Request<CallToolRequest>,
    ) -> Result<Response<CallToolResponse>, Status> {
        match request.get_ref().name.as_str() {
            "hold" => self.let_go.cancelled().await,
            name => assert_ne!(name, "panic", "a handler that breaks"),
        }
        Ok(Response::new(CallToolResponse::default()))
    }
}

struct Served {
    addr: SocketAddr,
    load: Load,
    tools: Tools,
    _stop: tokio_util::sync::DropGuard,
}

async fn start(made: &Generated, limits: Limits, max_deadline: Duration) -> Served {
    let mut world = World::local("router", made, &[]).await.unwrap();
    world.load = Load::new(limits);
    world.max_deadline = max_deadline;
    let (addr, load, tools) = (world.addr().unwrap(), world.load.clone(), Tools::default());
    let stop = world.stop.clone().drop_guard();
    let routes = Routes::new(ToolServiceServer::new(tools.clone()));
    let service = Private { routes, issuers: &["gateway"], readiness: Readiness::default() };
    tokio::spawn(serve::private(world, service));
    Served { addr, load, tools, _stop: stop }
}

fn made() -> Generated {
    keys::generate(&["gateway", "router"]).unwrap()
}

fn channel(made: &Generated, addr: SocketAddr) -> Channel {
    let target = channel::Target {
        role: "router",
        app: "skein-router".to_owned(),
        own: Identity::local("gateway"),
        keys: Arc::new(made.keys("gateway").unwrap()),
        patience: Duration::from_secs(3),
        wake: None,
    };
    Channel::new(target, Discovery::fixed(&[addr], "local"))
}

fn call() -> Call {
    Call::new("acme", "key:abc", Duration::from_secs(20))
}

fn named(name: &str) -> CallToolRequest {
    CallToolRequest { name: name.to_owned(), ..CallToolRequest::default() }
}

async fn until(what: &str, check: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !check() {
            tokio::task::yield_now().await;
        }
    });
    assert!(waited.await.is_ok(), "{what} did not happen");
}

#[tokio::test]
async fn a_full_machine_refuses_calls_at_once_and_still_answers_questions() {
    let made = made();
    let served = start(&made, Limits { soft: 1, hard: 2 }, Duration::from_secs(60)).await;
    let channel = channel(&made, served.addr);
    channel.connected().await;
    let hold = || {
        let mut client = ToolServiceClient::new(channel.clone());
        tokio::spawn(async move { client.call_tool(call().request(named("hold"))).await })
    };
    let held = [hold(), hold()];
    until("two calls in flight", || served.load.in_flight() == 2).await;
    let machine = channel.machines().remove(0);
    let mut third = ToolServiceClient::new(machine.clone());
    let refused = third.list_tools(call().request(ListToolsRequest {})).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert_eq!(error::reason(&refused).as_deref(), Some(load::OVERLOADED));
    assert!(error::retry_after(&refused).is_some());
    let mut health = HealthClient::new(machine.clone());
    assert!(health.check(HealthCheckRequest::default()).await.is_ok());
    let mut peer = PeerServiceClient::new(machine);
    let status = peer.status(call().request(StatusRequest::default())).await.unwrap();
    let told = status.into_inner().machines.remove(0);
    assert_eq!((told.in_flight, told.soft_limit, told.hard_limit), (2, 1, 2));
    served.tools.let_go.cancel();
    for call in held {
        assert!(call.await.unwrap().is_ok());
    }
    until("room", || served.load.in_flight() == 0).await;
    assert!(third.list_tools(call().request(ListToolsRequest {})).await.is_ok());
}

#[tokio::test]
async fn a_panic_is_one_failed_call() {
    let made = made();
    let served = start(&made, Limits::default(), Duration::from_secs(60)).await;
    let channel = channel(&made, served.addr);
    let mut client = ToolServiceClient::new(channel.clone());
    let mut beside = client.clone();
    let held = tokio::spawn(async move { beside.call_tool(call().request(named("hold"))).await });
    until("a call beside it", || served.load.in_flight() == 1).await;
    let broken = client.call_tool(call().request(named("panic"))).await.unwrap_err();
    assert_eq!(broken.code(), Code::Internal);
    assert!(!broken.message().contains("breaks"), "{}", broken.message());
    served.tools.let_go.cancel();
    assert!(held.await.unwrap().is_ok(), "the connection's other streams live on");
    until("the end of both", || served.load.in_flight() == 0).await;
}

#[tokio::test]
async fn a_health_watch_outlives_the_longest_call() {
    let made = made();
    let longest = Duration::from_millis(100);
    let served = start(&made, Limits::default(), longest).await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", served.addr));
    let bare = endpoint.unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(bare);
    let watch = health.watch(HealthCheckRequest::default()).await.unwrap();
    let mut states = watch.into_inner();
    assert!(states.message().await.unwrap().is_some());
    let next = tokio::time::timeout(longest * 5, states.message()).await;
    assert!(next.is_err(), "the watch ended: {next:?}");
    let mut brief = Request::new(HealthCheckRequest::default());
    brief.set_timeout(longest);
    let mut states = health.watch(brief).await.unwrap().into_inner();
    assert!(states.message().await.unwrap().is_some());
    let ended = states.message().await.unwrap_err();
    assert_eq!(ended.code(), Code::DeadlineExceeded, "a watcher's own timeout holds");
}
