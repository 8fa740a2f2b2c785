//! The services the router calls.
//!
//! Invariant: every call goes out through its [`Call`](mesh::Call), so it carries
//! the tenant, the deadline and the request id, and ends with its caller.

use mesh::Channel;
use mesh::h2::MAX_MESSAGE;
use skein_proto::model::v1::model_service_client::ModelServiceClient;
use skein_proto::retrieval::v1::retrieval_service_client::RetrievalServiceClient;

pub type ModelProxy = ModelServiceClient<Channel>;

pub fn model_proxy(channel: Channel) -> ModelProxy {
    ModelServiceClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

/// Retrieval, and the machines of it that can be reached.
#[derive(Clone)]
pub struct Retrieval(pub Channel);

impl Retrieval {
    pub fn client(&self) -> RetrievalServiceClient<Channel> {
        RetrievalServiceClient::new(self.0.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }
}
