//! Gateways made of a few answers, on a real socket.
//!
//! Invariants:
//! - The services answer what a test told them and remember what they were
//!   asked; RPCs that the command never calls are refused.

mod admin;
mod agent;
mod retrieval;

use futures_util::Stream;
use skein_proto::{
    admin::v1::admin_service_server::AdminServiceServer,
    agent::v1::agent_service_server::AgentServiceServer,
    retrieval::v1::retrieval_service_server::RetrievalServiceServer,
};
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    sync::Mutex,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Status, service::interceptor::InterceptedService, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};

pub(crate) const KEY: &str = "sk-test";

pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the fake gateway was asked and what it holds.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) log: Arc<Mutex<Vec<String>>>,
    pub(crate) documents: Arc<Mutex<BTreeMap<String, String>>>,
    /// Ids of cancelled runs.
    pub(crate) cancelled: watch::Sender<Vec<String>>,
    pub(crate) address: SocketAddr,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            log: Arc::default(),
            documents: Arc::default(),
            cancelled: watch::Sender::default(),
            address: listener.local_addr().unwrap(),
        };
        let server = Server::builder()
            .add_service(guarded(AgentServiceServer::new(fake.clone())))
            .add_service(guarded(RetrievalServiceServer::new(fake.clone())))
            .add_service(guarded(AdminServiceServer::new(fake.clone())))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        fake
    }

    pub(crate) fn note(&self, line: impl Into<String>) {
        self.log.lock().unwrap().push(line.into());
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

type Guard = fn(Request<()>) -> Result<Request<()>, Status>;

fn guarded<S>(service: S) -> InterceptedService<S, Guard> {
    InterceptedService::new(service, check_key)
}

fn check_key(request: Request<()>) -> Result<Request<()>, Status> {
    let given = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
    if given == Some(&format!("Bearer {KEY}")) {
        return Ok(request);
    }
    let details = ErrorDetails::with_error_info("UNAUTHENTICATED", "skein", HashMap::new());
    Err(Status::with_error_details(Code::Unauthenticated, "unknown API key", details))
}

fn unused() -> Status {
    Status::unimplemented("not part of the fake")
}
