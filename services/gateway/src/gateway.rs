//! What every request to the gateway shares, and how a caller is let in.
//!
//! Invariants:
//! - Nothing is forwarded for a caller without a good key of the right scope.
//! - Tenant and principal of a call come from the key and nowhere else.

use crate::{
    config::Config,
    idempotency::claims::Claims,
    keys::{self, Denied, Key, Scope},
    leash::Leashes,
    leaving::Leaving,
    limits::{Limits, store::LimitStore},
    pace::Pace,
    room::Bodies,
    store::Store,
};
use axum::extract::Request;
use http::HeaderMap;
use mesh::{
    Call, Channel, World, clock,
    load::{InFlight, Load},
    peer::Peer,
    ready::Readiness,
};
use std::{ops::Deref, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Shared>);

pub struct Shared {
    pub store: Store,
    pub bodies: Bodies,
    pub limits: Limits,
    pub leashes: Leashes,
    pub claims: Claims,
    pub pace: Pace,
    pub leaving: Leaving,
    pub max_headers: usize,
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

/// A request's place among those in flight; put there by [`crate::edge`].
#[derive(Clone)]
pub struct Counted(pub Arc<InFlight>);

/// Of an answer whose leash holds its request's place.
#[derive(Clone, Copy)]
pub struct OnLeash;

/// Somebody with a good key; what it may do is asked per scope.
#[derive(Clone)]
pub struct Caller {
    key: Arc<Key>,
    request_id: Arc<str>,
    deadline: Instant,
}

impl Caller {
    /// Who was let in through the door; nobody else gets anywhere.
    pub fn of(request: &Request) -> Result<&Self, Denied> {
        request.extensions().get().ok_or(Denied::Missing)
    }

    /// When the time for this call is over, in microseconds since 1970.
    pub fn lapses(&self) -> i64 {
        let left = self.deadline.saturating_duration_since(Instant::now()).as_micros();
        clock::now_micros().saturating_add(i64::try_from(left).unwrap_or(i64::MAX))
    }

    pub const fn deadline(&self) -> Instant {
        self.deadline
    }

    pub const fn key(&self) -> &Arc<Key> {
        &self.key
    }

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
        let database = store.database();
        let limits = Limits::new(LimitStore::new(database.clone(), config.heartbeat));
        Self(Arc::new(Shared {
            store,
            claims: Claims::new(
                database,
                config.edge.idempotency_keep,
                usize::try_from(config.edge.idempotency_max).unwrap_or(usize::MAX),
            ),
            bodies: Bodies::new(config.edge.bytes_in_flight),
            limits,
            leashes: Leashes::new(config.edge.reader_timeout, config.edge.max_answer),
            pace: config.edge.pace,
            leaving: Leaving { drain: world.drain.clone(), grace: world.grace },
            max_headers: config.edge.front.max_headers,
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
