//! A gRPC client of the public edge that says which region it is near.
//!
//! Invariants:
//! - Every call carries the key, the region and a deadline.

use crate::{KEY, Mesh};
use skein_proto::{
    agent::v1::agent_service_client::AgentServiceClient,
    model::v1::model_service_client::ModelServiceClient,
    retrieval::v1::retrieval_service_client::RetrievalServiceClient,
};
use std::time::Duration;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

/// What each call of a client carries.
#[derive(Clone)]
pub struct Stamp {
    key: MetadataValue<Ascii>,
    region: MetadataValue<Ascii>,
    deadline: Duration,
}

pub type Stamped = InterceptedService<Channel, Stamp>;

/// One connection to the edge.
#[derive(Clone)]
pub struct Caller(Stamped);

impl Mesh {
    /// A client near `region`.
    pub async fn caller(&self, region: &str, deadline: Duration) -> Caller {
        let channel = Endpoint::from_shared(self.url.clone()).unwrap().connect().await.unwrap();
        let key = format!("Bearer {KEY}").parse().unwrap();
        let stamp = Stamp { key, region: region.parse().unwrap(), deadline };
        Caller(InterceptedService::new(channel, stamp))
    }
}

impl Interceptor for Stamp {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.key.clone());
        request.metadata_mut().insert("fly-prefer-region", self.region.clone());
        request.set_timeout(self.deadline);
        Ok(request)
    }
}

impl Caller {
    pub fn agents(&self) -> AgentServiceClient<Stamped> {
        AgentServiceClient::new(self.0.clone())
    }

    pub fn models(&self) -> ModelServiceClient<Stamped> {
        ModelServiceClient::new(self.0.clone())
    }

    pub fn retrieval(&self) -> RetrievalServiceClient<Stamped> {
        RetrievalServiceClient::new(self.0.clone())
    }
}
