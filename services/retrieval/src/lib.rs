//! What do we know about this? Documents cut into chunks, found by words and by
//! meaning.
//!
//! In reading order: a document comes in ([`wire`], [`html`], [`chunk`],
//! [`tokens`], [`words`], [`prepare`], [`knowledge`]), is kept ([`store`]) and
//! held in memory ([`index`], [`indexes`], [`bm25`]), gets its vectors
//! ([`embed`], [`pending`]) and is found ([`search`], [`fusion`]).
//!
//! Invariants:
//! - each answer is of the tenant of the call's token and of nobody else;
//! - being without models degrades answers, never refuses documents.

pub mod bm25;
pub mod chunk;
pub mod config;
pub mod embed;
pub mod error;
pub mod fusion;
pub mod html;
pub mod index;
pub mod indexes;
pub mod knowledge;
pub mod model;
pub mod pending;
pub mod prepare;
pub mod search;
pub mod service;
pub mod store;
pub mod tokens;
pub mod wire;
pub mod words;

use config::Config;
use embed::Embedder;
use indexes::Indexes;
use knowledge::Knowledge;
use mesh::database::DatabaseError;
use mesh::{h2, ready::Readiness, serve, world::World};
use service::Service;
use skein_proto::retrieval::v1::retrieval_service_server::RetrievalServiceServer;
use std::sync::Arc;
use store::Store;
use tokio::sync::Notify;
use tonic::service::Routes;

/// Who may call.
const ISSUERS: &[&str] = &["gateway", "router"];

/// Why the service ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Store(#[from] DatabaseError),
    #[error("serve: {0}")]
    Serve(#[from] std::io::Error),
}

/// Serves until `world.stop`, then closes the store.
pub async fn run(config: Config, world: World) -> Result<(), RunError> {
    let store = Store::open(&config.store_url).await?;
    let knowledge = Arc::new(Knowledge {
        store: store.clone(),
        indexes: Indexes::new(config.memory),
        embedder: Embedder::new(world.network.channel("router"), config.embed_pause),
        limits: config.limits,
        pending: Notify::new(),
    });
    let background =
        tokio::spawn(pending::run(Arc::clone(&knowledge), world.load.clone(), world.stop.clone()));
    let service = RetrievalServiceServer::new(Service { knowledge })
        .max_decoding_message_size(h2::MAX_MESSAGE)
        .max_encoding_message_size(h2::MAX_MESSAGE);
    let private = serve::Private {
        routes: Routes::new(service),
        issuers: ISSUERS,
        readiness: Readiness::default(),
    };
    let outcome = serve::private(world, private).await;
    background.abort();
    store.close().await;
    Ok(outcome?)
}
