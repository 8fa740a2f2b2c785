//! The floor: bare tonic servers that pass a message of about 600 bytes on, and
//! back. Three of them in a row do what three hops must do at the least.
//!
//! Nothing of the mesh is in here: tonic's own channel, no token, no deadline,
//! no telemetry.

use crate::{Failure, child};
use http::{Request, Response, uri::PathAndQuery};
use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Status,
    body::Body,
    client::Grpc,
    server::{NamedService, UnaryService},
    transport::{Channel, Endpoint, Server},
};
use tonic_prost::ProstCodec;
use tower_service::Service;

const PATH: &str = "/bench.Echo/Say";
/// Bytes of the message.
pub(crate) const SIZE: usize = 600;

type Said = Result<tonic::Response<String>, Status>;
type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pub(crate) async fn serve(next: Option<SocketAddr>) -> Result<(), Failure> {
    let next = match next {
        Some(next) => Some(connect(next).await?),
        None => None,
    };
    let incoming = TcpListenerStream::new(child::listen().await?);
    // What a stream accepts is not given TCP_NODELAY by tonic.
    let incoming = tokio_stream::StreamExt::map(incoming, |socket| {
        socket.inspect(|socket| drop(socket.set_nodelay(true)))
    });
    Ok(Server::builder().add_service(Echo { next }).serve_with_incoming(incoming).await?)
}

pub(crate) async fn connect(to: SocketAddr) -> Result<Channel, Failure> {
    Ok(Endpoint::from_shared(format!("http://{to}"))?.tcp_nodelay(true).connect().await?)
}

/// Sends `text` down the row and waits until it is back.
pub(crate) async fn say(channel: &Channel, text: String) -> Said {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<String, String>::default();
    client.unary(tonic::Request::new(text), PathAndQuery::from_static(PATH), codec).await
}

#[derive(Clone)]
struct Echo {
    next: Option<Channel>,
}

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

impl UnaryService<String> for Echo {
    type Response = String;
    type Future = Boxed<Said>;

    fn call(&mut self, request: tonic::Request<String>) -> Self::Future {
        let next = self.next.clone();
        Box::pin(async move {
            let text = request.into_inner();
            match next {
                Some(next) => say(&next, text).await,
                None => Ok(tonic::Response::new(text)),
            }
        })
    }
}

impl Service<Request<Body>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Boxed<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<String, String>::default();
            Ok(tonic::server::Grpc::new(codec).unary(service, request).await)
        })
    }
}
