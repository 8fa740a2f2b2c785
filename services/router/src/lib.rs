//! The router: what has to happen, where, and what may it cost?
//!
//! Read in this order: `wire` checks what callers send; `agent_rpc`,
//! `events_rpc` and `model_rpc` answer them; `runs` executes runs, each of them a
//! `turn`; `store` keeps threads, runs and events, and `fold` says what events add
//! up to; `route` chooses models among the `catalogue`.
//!
//! Invariant: the event log is the truth. Nothing is shown before it is committed,
//! and everything that is shown can be read again.

pub mod agent_rpc;
pub mod agents;
pub mod catalogue;
pub mod citations;
pub mod config;
pub mod error;
pub mod events_rpc;
pub mod fold;
pub mod later_rpc;
pub mod model_rpc;
pub mod models;
pub mod peers;
pub mod plan;
pub mod route;
pub mod runs;
pub mod store;
pub mod tails;
pub mod turn;
pub mod wire;

pub use config::Config;
pub use error::Error;

use agent_rpc::AgentRpc;
use mesh::database::{Database, DatabaseError};
use mesh::h2::MAX_MESSAGE;
use mesh::ready::Readiness;
use mesh::{World, serve};
use model_rpc::ModelRpc;
use models::Models;
use runs::{Parts, Runs};
use skein_proto::admin::v1::admin_service_server::AdminServiceServer;
use skein_proto::agent::v1::agent_service_server::AgentServiceServer;
use skein_proto::model::v1::model_service_server::ModelServiceServer;
use skein_proto::model::v1::usage_service_server::UsageServiceServer;
use std::sync::Arc;
use store::Store;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// Retrieval embeds and reranks through us, and has no other business here.
const ISSUERS: &[&str] = &[
    "gateway",
    "router",
    "retrieval/skein.model.v1.ModelService/Embed",
    "retrieval/skein.model.v1.ModelService/Rerank",
];

/// Why the router stopped or could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("run store: {0}")]
    Store(#[from] DatabaseError),
    #[error("run store: {0}")]
    Recover(#[from] Error),
    #[error(
        "{0} machines of this app are started, but SQLite serves one: set DATABASE_URL to a \
         Postgres, or run `fly scale count 1`"
    )]
    SecondMachine(usize),
    #[error("serve: {0}")]
    Serve(#[from] std::io::Error),
}

/// Serves until the world says stop, then lets runs finish within the grace time.
pub async fn run(config: Config, world: World) -> Result<(), RunError> {
    if config.common.on_fly && config.database_url.starts_with("sqlite:") {
        let machines = world.network.own_machines().await.unwrap_or(1);
        if machines > 1 {
            return Err(RunError::SecondMachine(machines));
        }
    }
    let database = Database::open(&config.database_url, "router", store::MIGRATIONS).await?;
    let model_proxy = world.network.channel("model-proxy");
    let retrieval = world.network.channel("retrieval");
    let agents = Arc::new(config.agents);
    let runs = Runs::new(Parts {
        store: Store::new(database.clone()),
        models: Models::new(peers::model_proxy(model_proxy.clone()), Arc::clone(&agents)),
        agents,
        retrieval: peers::Retrieval(retrieval.clone()),
        here: world.identity.clone(),
        load: world.load.clone(),
    });
    runs.recover().await?;
    let readiness = Readiness::default();
    let ended = CancellationToken::new();
    let _ended = ended.clone().drop_guard();
    tokio::spawn(runs.tails.clone().poll(runs.store.clone(), config.poll, ended.clone()));
    tokio::spawn(runs.clone().poll_cancellations(config.poll, ended.clone()));
    for peer in [model_proxy, retrieval] {
        let missing = peer.report_missing(readiness.clone());
        tokio::spawn(ended.clone().run_until_cancelled_owned(missing));
    }
    let agent = AgentRpc {
        runs: runs.clone(),
        home: config.home,
        lease: config.lease,
        draining: world.drain.clone(),
    };
    let (routes, grace, draining) = (routes(agent), world.grace, world.drain.clone());
    let private = serve::Private { routes, issuers: ISSUERS, readiness };
    // Runs have the same grace time as connections; they depend on none.
    let (served, ()) = tokio::join!(serve::private(world, private), async {
        draining.cancelled().await;
        runs.drain(grace).await;
    });
    database.close().await;
    Ok(served?)
}

fn routes(agent: AgentRpc) -> Routes {
    let model = ModelRpc { models: agent.runs.models.clone() };
    Routes::new(
        ModelServiceServer::new(model)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE),
    )
    .add_service(
        AgentServiceServer::new(agent)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE),
    )
    .add_service(UsageServiceServer::new(later_rpc::LaterRpc))
    .add_service(AdminServiceServer::new(later_rpc::LaterRpc))
}
