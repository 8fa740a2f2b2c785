//! One call, timed from its start to its last byte.
//!
//! Invariants:
//! - An answer counts only if it is whole: a status of success *and* the end
//!   that its kind of answer has.
//! - The first byte of a stream is the first of its body, not of its head.

use crate::{Failure, echo};
use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use skein_proto::model::v1::{
    ContentPart, GenerateRequest, Message, Role, content_part::Part, generate_response::Event,
    model_service_client::ModelServiceClient,
};
use std::{net::SocketAddr, time::Duration};
use tokio::{net::TcpStream, time::Instant};
use tonic::{metadata::MetadataValue, transport::Channel};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `POST …/chat/completions`, answered by one document.
    Whole,
    /// The same, answered by server-sent events.
    Stream,
    /// `ModelService.Generate`, to the end of its stream.
    Grpc,
    /// A message through bare hops.
    Echo,
}

/// Whom to ask.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    /// Of the chat endpoint.
    pub(crate) path: String,
    pub(crate) key: String,
    pub(crate) model: String,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) first: Duration,
    pub(crate) all: Duration,
}

/// About as much as somebody asks in one go: 600 bytes.
fn question() -> String {
    let sentence = "Say in one sentence what a private network of four services costs. ";
    sentence.repeat(echo::SIZE / sentence.len() + 1)[..echo::SIZE].to_owned()
}

/// A caller with a connection of its own.
pub(crate) enum Caller {
    Http(Box<Http>),
    Grpc(Box<Grpc>),
    Echo(Channel, String),
}

pub(crate) struct Http {
    send: http1::SendRequest<Full<Bytes>>,
    request: Request<()>,
    body: Bytes,
    streamed: bool,
}

pub(crate) struct Grpc {
    client: ModelServiceClient<Channel>,
    key: MetadataValue<tonic::metadata::Ascii>,
    request: GenerateRequest,
}

impl Caller {
    pub(crate) async fn connect(target: &Target, kind: Kind) -> Result<Self, Failure> {
        Ok(match kind {
            Kind::Whole => Self::Http(Box::new(Http::connect(target, false).await?)),
            Kind::Stream => Self::Http(Box::new(Http::connect(target, true).await?)),
            Kind::Grpc => Self::Grpc(Box::new(Grpc::connect(target).await?)),
            Kind::Echo => Self::Echo(echo::connect(target.addr).await?, question()),
        })
    }

    pub(crate) async fn call(&mut self) -> Result<Timing, Failure> {
        match self {
            Self::Http(http) => http.call().await,
            Self::Grpc(grpc) => grpc.call().await,
            Self::Echo(channel, text) => {
                let begun = Instant::now();
                let back = echo::say(channel, text.clone()).await?;
                let all = begun.elapsed();
                let same = back.get_ref() == text;
                same.then_some(Timing { first: all, all }).ok_or_else(|| "another message".into())
            }
        }
    }
}

impl Http {
    pub(crate) async fn connect(target: &Target, streamed: bool) -> Result<Self, Failure> {
        let socket = TcpStream::connect(target.addr).await?;
        socket.set_nodelay(true)?;
        let (send, connection) = http1::handshake(TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        let body = serde_json::json!({
            "model": target.model,
            "messages": [{"role": "user", "content": question()}],
            "stream": streamed,
        });
        let mut request = Request::post(&target.path).body(())?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_str(&target.addr.to_string())?);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let key = format!("Bearer {}", target.key);
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&key)?);
        Ok(Self { send, request, body: body.to_string().into(), streamed })
    }

    /// Sends the question; what comes back has a good status.
    pub(crate) async fn open(&mut self) -> Result<Incoming, Failure> {
        self.send.ready().await?;
        let request = self.request.clone().map(|()| Full::new(self.body.clone()));
        let response = self.send.send_request(request).await?;
        let status = response.status();
        if !status.is_success() {
            let said = response.into_body().collect().await?.to_bytes();
            return Err(format!("{status}: {}", String::from_utf8_lossy(&said)).into());
        }
        Ok(response.into_body())
    }

    async fn call(&mut self) -> Result<Timing, Failure> {
        let begun = Instant::now();
        let mut body = self.open().await?;
        let (mut first, mut last) = (None, Bytes::new());
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            first.get_or_insert_with(|| begun.elapsed());
            last = data;
        }
        let all = begun.elapsed();
        let end: &[u8] = if self.streamed { b"data: [DONE]\n\n" } else { b"}" };
        if !last.ends_with(end) {
            return Err(format!("an answer that ends in {last:?}").into());
        }
        Ok(Timing { first: first.unwrap_or(all), all })
    }
}

impl Grpc {
    async fn connect(target: &Target) -> Result<Self, Failure> {
        let part = ContentPart { part: Some(Part::Text(question())), ..ContentPart::default() };
        let message =
            Message { role: Role::User.into(), content: vec![part], ..Message::default() };
        let request = GenerateRequest {
            model: target.model.clone(),
            messages: vec![message],
            ..GenerateRequest::default()
        };
        let client = ModelServiceClient::new(echo::connect(target.addr).await?);
        Ok(Self { client, key: format!("Bearer {}", target.key).parse()?, request })
    }

    async fn call(&mut self) -> Result<Timing, Failure> {
        let begun = Instant::now();
        let mut request = tonic::Request::new(self.request.clone());
        request.metadata_mut().insert("authorization", self.key.clone());
        let mut events = self.client.generate(request).await?.into_inner();
        let (mut first, mut finished) = (None, false);
        while let Some(event) = events.message().await? {
            first.get_or_insert_with(|| begun.elapsed());
            finished = matches!(event.event, Some(Event::Finished(_)));
        }
        let all = begun.elapsed();
        if !finished {
            return Err("a stream without its end".into());
        }
        Ok(Timing { first: first.unwrap_or(all), all })
    }
}
