//! One HTTP/2 connection to a gateway, in the clear (`http://`) or over TLS
//! (`https://`), and the typed clients on it.
//!
//! Invariants:
//! - Every call carries the key; every call but a live stream has a deadline,
//!   which the gateway is told.
//! - A dead connection is noticed by PING, not by waiting for an answer.

use crate::{
    access::Access,
    errors::{self, Error},
};
use skein_proto::{
    admin::v1::admin_service_client::AdminServiceClient,
    agent::v1::agent_service_client::AgentServiceClient,
    retrieval::v1::retrieval_service_client::RetrievalServiceClient,
};
use std::time::Duration;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, ClientTlsConfig, Endpoint},
};

const CONNECT: Duration = Duration::from_secs(5);
/// For calls that look something up or write a line.
pub(crate) const QUICK: Duration = Duration::from_secs(30);
/// For a document of up to 32 MiB that is cut and embedded before the answer.
pub(crate) const UPLOAD: Duration = Duration::from_secs(600);

pub(crate) struct Gateway {
    channel: Channel,
    authorization: MetadataValue<Ascii>,
    url: String,
    key_origin: String,
}

impl Gateway {
    pub(crate) async fn connect(access: Access) -> Result<Self, Error> {
        let Access { url, key, key_origin, .. } = access;
        let Some(key) = key else {
            let message = format!(
                "no API key for {url}: found {key_origin}; set SKEIN_API_KEY or give \
                 --api-key-file, or start a mesh here with `make up`"
            );
            return Err(Error::Said { message, code: errors::NOT_ALLOWED });
        };
        let mut authorization = MetadataValue::try_from(format!("Bearer {key}"))
            .map_err(|_| Error::usage(format!("the key from {key_origin} is not ASCII")))?;
        authorization.set_sensitive(true);
        let channel = dial(&url).await.map_err(|error| Error::Said {
            message: format!(
                "cannot reach {url}: {}; is the mesh up? try `make up`",
                errors::chain(&error)
            ),
            code: errors::UNAVAILABLE,
        })?;
        Ok(Self { channel, authorization, url, key_origin })
    }

    pub(crate) fn agent(&self) -> AgentServiceClient<Channel> {
        AgentServiceClient::new(self.channel.clone())
            .max_decoding_message_size(mesh::h2::MAX_MESSAGE)
            .max_encoding_message_size(mesh::h2::MAX_MESSAGE)
    }

    pub(crate) fn retrieval(&self) -> RetrievalServiceClient<Channel> {
        RetrievalServiceClient::new(self.channel.clone())
            .max_decoding_message_size(mesh::h2::MAX_MESSAGE)
            .max_encoding_message_size(mesh::h2::MAX_MESSAGE)
    }

    pub(crate) fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel.clone())
            .max_decoding_message_size(mesh::h2::MAX_MESSAGE)
            .max_encoding_message_size(mesh::h2::MAX_MESSAGE)
    }

    pub(crate) fn request<T>(&self, message: T, timeout: Duration) -> Request<T> {
        let mut request = self.live(message);
        request.set_timeout(timeout);
        request
    }

    /// Without a deadline: a live stream has a lease instead.
    pub(crate) fn live<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request
    }

    /// What a failed call means here.
    pub(crate) fn explain(&self, what: &str, status: &Status) -> Error {
        errors::of_status(status, what, &self.url, &self.key_origin)
    }
}

async fn dial(url: &str) -> Result<Channel, tonic::transport::Error> {
    let mut endpoint = Endpoint::from_shared(url.to_owned())?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(mesh::h2::PING_INTERVAL)
        .keep_alive_timeout(mesh::h2::PING_TIMEOUT)
        .user_agent(concat!("skein/", env!("CARGO_PKG_VERSION")))?;
    if url.starts_with("https:") {
        endpoint = endpoint.tls_config(ClientTlsConfig::new().with_webpki_roots())?;
    }
    endpoint.connect().await
}
