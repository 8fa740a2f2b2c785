//! What every request to the gateway shares, and how a caller is let in.
//!
//! Invariants:
//! - Nothing is forwarded for a caller without a good key of the right scope.
//! - Tenant and principal of a call come from the key and nowhere else.

use crate::{
    config::Config,
    keys::{self, Denied, Key, Scope},
    store::Store,
};
use http::HeaderMap;
use mesh::{Call, Channel, World, clock, load::Load, peer::Peer, ready::Readiness};
use std::{ops::Deref, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Shared>);

pub struct Shared {
    pub store: Store,
    pub router: Channel,
    pub retrieval: Channel,
    pub region: String,
    pub max_body: u64,
    /// For HTTP requests, and gRPC ones that name none.
    pub deadline: Duration,
    pub keep_alive: Duration,
    pub readiness: Readiness,
    pub load: Load,
    /// This machine, as `GetMeshStatus` shows it.
    pub peer: Peer,
}

impl Deref for Gateway {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// The id that follows a request; put there by [`crate::edge`].
#[derive(Clone)]
pub struct RequestId(pub Arc<str>);

/// Somebody with a good key; what it may do is asked per scope.
pub struct Caller {
    key: Arc<Key>,
    request_id: Arc<str>,
    deadline: Instant,
}

impl Caller {
    /// The call to make on this caller's behalf, if the key has the scope.
    pub fn call(&self, scope: Scope) -> Result<Call, Denied> {
        self.key.allows(scope)?;
        Ok(Call {
            tenant: Arc::clone(&self.key.tenant),
            principal: Arc::clone(&self.key.principal),
            issuer: "gateway".into(),
            deadline: self.deadline,
            request_id: Arc::clone(&self.request_id),
        })
    }
}

impl Gateway {
    pub fn new(config: &Config, world: &World, store: Store, readiness: Readiness) -> Self {
        Self(Arc::new(Shared {
            store,
            router: world.network.channel("router"),
            retrieval: world.network.channel("retrieval"),
            region: world.identity.region.clone(),
            max_body: config.max_body,
            deadline: config.deadline.min(world.max_deadline),
            keep_alive: config.keep_alive,
            readiness: readiness.clone(),
            load: world.load.clone(),
            peer: world.peer(readiness),
        }))
    }

    /// Who sent a request, judged by its headers.
    pub fn caller(&self, headers: &HeaderMap, parts: &http::Extensions) -> Result<Caller, Denied> {
        let secret = keys::bearer(headers)?;
        let key = self.store.keys().find(secret, clock::now_micros())?;
        let request_id = parts.get::<RequestId>().map(|id| Arc::clone(&id.0));
        let named = mesh::deadline::grpc_timeout(headers).unwrap_or(self.deadline);
        Ok(Caller {
            key,
            request_id: request_id.unwrap_or_else(|| mesh::call::new_request_id().into()),
            deadline: Instant::now() + named.min(self.deadline),
        })
    }
}
