//! model-proxy: one model call, done right.
//!
//! Read in this order: `rpc` answers the RPCs, `wire` checks what they carry,
//! `models` finds who serves a model, `remote` holds the providers (`listing`),
//! `embed` and `batch` join calls for embeddings, `call` makes the tries
//! (`retry`, `health`), `exchange` is one of them, `provider` translates to its
//! dialect, `transport` speaks to it, `pictures` delivers what was drawn,
//! `record` keeps a call's book (`usage`, `price`, `meter`, `anomaly`, `span`),
//! `local` computes the embedded models.
//!
//! Invariant: nothing is kept beyond a call; any machine can serve any call.

pub mod anomaly;
pub mod batch;
pub mod call;
pub mod config;
pub mod embed;
pub mod error;
pub mod estimate;
pub mod exchange;
pub mod health;
pub mod listing;
#[cfg(feature = "local")]
pub mod local;
pub mod meter;
pub mod models;
pub mod pictures;
pub mod price;
pub mod provider;
pub mod record;
pub mod remote;
pub mod retry;
pub mod rpc;
pub mod schema;
mod span;
pub mod sse;
pub mod tokenizer;
pub mod transport;
pub mod upstream;
pub mod usage;
pub mod wire;

pub use config::Config;
pub use error::Error;

use mesh::{World, h2::MAX_MESSAGE, ready::Readiness, serve};
use skein_proto::model::v1::model_service_server::ModelServiceServer;
use std::{io, sync::Arc};
use tonic::service::Routes;

/// One door for money: only the router calls models.
const ISSUERS: &[&str] = &["router"];

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Models(#[from] Error),
    #[error("serve: {0}")]
    Serve(#[from] io::Error),
}

/// Serves until the world says stop.
pub async fn run(config: &Config, mut world: World) -> Result<(), RunError> {
    let models = Arc::new(models::Models::new(config)?);
    let service =
        ModelServiceServer::new(rpc::ModelRpc::new(Arc::clone(&models), world.identity.clone()))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
    let readiness = Readiness::default();
    let _watching = models.watch(&config.health, &readiness);
    world.about = Some(Arc::new(move |status| status.providers = models.providers()));
    let routes = Routes::new(service);
    serve::private(world, serve::Private { routes, issuers: ISSUERS, readiness }).await?;
    Ok(())
}
