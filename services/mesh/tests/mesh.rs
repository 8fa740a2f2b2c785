//! Two processes' worth of mesh in one: a served app and a channel to it, over
//! real sockets.

#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

use mesh::{
    Call, Channel, World, channel,
    discover::{self, Discovery},
    error,
    identity::Identity,
    keys::{self, Generated},
    ready::Readiness,
    serve::{self, Private},
    token::{self, Claims},
};
use skein_proto::{
    mesh::v1::{StatusRequest, peer_service_client::PeerServiceClient},
    tool::v1::{
        CallToolRequest, CallToolResponse, ListToolsRequest, ListToolsResponse,
        tool_service_client::ToolServiceClient,
        tool_service_server::{ToolService, ToolServiceServer},
    },
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, service::Routes};

/// Answers with the tenant it serves; `slow` never answers.
#[derive(Clone, Default)]
struct Tools {
    calls: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
}

struct Running(Arc<AtomicUsize>);
impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[tonic::async_trait]
impl ToolService for Tools {
    async fn list_tools(
        &self,
        _: Request<ListToolsRequest>,
    ) -> Result<Response<ListToolsResponse>, Status> {
        self.calls.fetch_add(1, SeqCst);
        Ok(Response::new(ListToolsResponse::default()))
    }

    async fn call_tool(
        &self,
        request: Request<CallToolRequest>,
    ) -> Result<Response<CallToolResponse>, Status> {
        self.calls.fetch_add(1, SeqCst);
        let call = Call::of(&request)?;
        if request.get_ref().name == "slow" {
            self.running.fetch_add(1, SeqCst);
            let _running = Running(Arc::clone(&self.running));
            std::future::pending::<()>().await;
        }
        let result_json = format!("{}/{}/{}", call.tenant, call.principal, call.issuer);
        Ok(Response::new(CallToolResponse { result_json, failed: false }))
    }
}

struct Served {
    addr: SocketAddr,
    stop: CancellationToken,
    tools: Tools,
    done: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn start(made: &Generated, role: &'static str) -> Served {
    let world = World::local(role, made, &[]).await.unwrap();
    let (addr, stop, tools) = (world.addr().unwrap(), world.stop.clone(), Tools::default());
    let routes = Routes::new(ToolServiceServer::new(tools.clone()));
    let service = Private { routes, issuers: &["gateway"], readiness: Readiness::default() };
    Served { addr, stop, tools, done: tokio::spawn(serve::private(world, service)) }
}

fn made() -> Generated {
    keys::generate(&["gateway", "router", "retrieval"]).unwrap()
}

fn target(made: &Generated, from: &'static str, to: &'static str) -> channel::Target {
    channel::Target {
        role: to,
        app: format!("skein-{to}"),
        own: Identity::local(from),
        keys: Arc::new(made.keys(from).unwrap()),
        patience: Duration::from_millis(300),
        wake: None,
    }
}

fn channel(made: &Generated, from: &'static str, addrs: &[SocketAddr]) -> Channel {
    Channel::new(target(made, from, "router"), Discovery::fixed(addrs, "local"))
}

fn call() -> Call {
    Call::new("acme", "key:abc", Duration::from_secs(5))
}

fn slow() -> CallToolRequest {
    CallToolRequest { name: "slow".to_owned(), ..CallToolRequest::default() }
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
async fn a_call_carries_tenant_and_principal() {
    let made = made();
    let router = start(&made, "router").await;
    let mut client = ToolServiceClient::new(channel(&made, "gateway", &[router.addr]));
    let answer = client.call_tool(call().request(CallToolRequest::default())).await.unwrap();
    assert_eq!(answer.into_inner().result_json, "acme/key:abc/gateway");
}

#[tokio::test]
async fn without_a_good_token_nothing_is_done() {
    let made = made();
    let router = start(&made, "router").await;
    let gateway = made.keys("gateway").unwrap();
    let claims = |audience: &str, expires| Claims {
        issuer: "gateway".to_owned(),
        audience: audience.to_owned(),
        principal: "key:abc".to_owned(),
        tenant: "acme".to_owned(),
        expires,
    };
    let now = mesh::clock::now_seconds();
    let foreign = Claims { issuer: "retrieval".to_owned(), ..claims("router", now + 60) };
    let tokens = [
        None,
        Some(token::sign(&gateway, &claims("router", now - token::LEEWAY - 10))),
        Some(token::sign(&gateway, &claims("retrieval", now + 60))),
        Some(token::sign(&made.keys("retrieval").unwrap(), &foreign)),
        Some("garbage".to_owned()),
    ];
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", router.addr));
    let bare = endpoint.unwrap().connect().await.unwrap();
    for token in tokens {
        let mut request = Request::new(CallToolRequest::default());
        if let Some(token) = &token {
            request.metadata_mut().insert(token::HEADER, token.parse().unwrap());
        }
        let status = ToolServiceClient::new(bare.clone()).call_tool(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{token:?}");
    }
    assert_eq!(router.tools.calls.load(SeqCst), 0);
    let status = PeerServiceClient::new(bare).status(StatusRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_stranger_at_the_address_never_gets_a_call() {
    let (made, theirs) = (made(), made());
    let wrong_role = start(&made, "retrieval").await;
    let wrong_keys = start(&theirs, "router").await;
    for addr in [wrong_role.addr, wrong_keys.addr] {
        let mut client = ToolServiceClient::new(channel(&made, "gateway", &[addr]));
        let status = client.list_tools(call().request(ListToolsRequest {})).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(error::reason(&status).as_deref(), Some("NO_ENDPOINT"));
    }
    let reached = [&wrong_role, &wrong_keys].map(|served| served.tools.calls.load(SeqCst));
    assert_eq!(reached, [0, 0]);
}

#[tokio::test]
async fn a_deadline_ends_the_call_on_both_sides() {
    let made = made();
    let router = start(&made, "router").await;
    let mut client = ToolServiceClient::new(channel(&made, "gateway", &[router.addr]));
    let short = call().with_timeout(Duration::from_millis(300));
    let status = client.call_tool(short.request(slow())).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(router.tools.calls.load(SeqCst), 1);
    until("the end of the work", || router.tools.running.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn a_caller_that_leaves_ends_the_work() {
    let made = made();
    let router = start(&made, "router").await;
    let mut client = ToolServiceClient::new(channel(&made, "gateway", &[router.addr]));
    let task = tokio::spawn(async move { client.call_tool(call().request(slow())).await });
    until("the start of the work", || router.tools.running.load(SeqCst) == 1).await;
    task.abort();
    until("the end of the work", || router.tools.running.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn nobody_there_is_an_error_not_a_hang() {
    let made = made();
    let mut client = ToolServiceClient::new(channel(&made, "gateway", &[]));
    let status = client.list_tools(call().request(ListToolsRequest {})).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_under_load_loses_no_idempotent_call() {
    let made = Arc::new(made());
    let (a, b) = (start(&made, "router").await, start(&made, "router").await);
    let endpoint = |addr| discover::Endpoint { addr, region: "local".to_owned() };
    let (_keep, endpoints) = watch::channel(Arc::from([endpoint(a.addr), endpoint(b.addr)]));
    let channel = Channel::new(target(&made, "gateway", "router"), Discovery::following(endpoints));
    channel.connected().await;
    let enough = Arc::new(AtomicUsize::new(0));
    let load: Vec<_> = (0..8)
        .map(|_| {
            let (channel, enough) = (channel.clone(), Arc::clone(&enough));
            tokio::spawn(async move {
                let mut client = ToolServiceClient::new(channel);
                let mut failed = Vec::new();
                for _ in 0..200 {
                    let answer = client.list_tools(call().request(ListToolsRequest {})).await;
                    enough.fetch_add(1, SeqCst);
                    failed.extend(answer.err());
                }
                failed
            })
        })
        .collect();
    until("load", || enough.load(SeqCst) > 200).await;
    a.stop.cancel();
    a.done.await.unwrap().unwrap();
    for task in load {
        assert!(task.await.unwrap().is_empty());
    }
    assert!(b.tools.calls.load(SeqCst) > 0);
}

#[tokio::test]
async fn an_open_call_cannot_hold_the_process() {
    let made = made();
    let router = start(&made, "router").await;
    let mut client = ToolServiceClient::new(channel(&made, "gateway", &[router.addr]));
    let held = tokio::spawn(async move { client.call_tool(call().request(slow())).await });
    until("the start of the work", || router.tools.running.load(SeqCst) == 1).await;
    router.stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(20), router.done).await;
    assert!(ended.unwrap().unwrap().is_ok());
    held.abort();
}

#[tokio::test]
async fn a_machine_tells_its_status_to_those_with_a_token() {
    let made = made();
    let router = start(&made, "router").await;
    let channel = channel(&made, "gateway", &[router.addr]);
    let mut client = PeerServiceClient::new(channel);
    let asked = StatusRequest { settings: true, peers: true };
    let machines = client.status(call().request(asked)).await.unwrap().into_inner().machines;
    assert!(machines[0].ready && machines[0].identity.as_ref().unwrap().role == "router");
}

#[tokio::test]
async fn reflection_needs_a_token() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let made = made();
    let router = start(&made, "router").await;
    let ask = || {
        let list = Some(MessageRequest::ListServices(String::new()));
        tokio_stream::once(ServerReflectionRequest { host: String::new(), message_request: list })
    };
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", router.addr));
    let bare = endpoint.unwrap().connect().await.unwrap();
    let status = ServerReflectionClient::new(bare).server_reflection_info(ask()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let mut client = ServerReflectionClient::new(channel(&made, "gateway", &[router.addr]));
    let mut answers =
        client.server_reflection_info(call().request(ask())).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        unreachable!("asked for the services")
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    assert!(names.iter().any(|name| name == "skein.tool.v1.ToolService"), "{names:?}");
}
