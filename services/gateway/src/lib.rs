//! The public edge: who are you, and what may you do?
//!
//! One listener for HTTP/1.1 and h2c. OpenAI's HTTP dialect is translated here
//! ([`openai`], [`chat`], [`mod@run`]); gRPC and gRPC-Web are checked and passed on
//! without being decoded ([`forward`]). Both come in through one [`door`]: is
//! the key good ([`keys`]), within its [`limits`], its body within our memory
//! ([`room`]) and quick enough ([`pace`])? What
//! has an idempotency key is made once ([`idempotency`]); what goes out is on a
//! [`leash`]. Keys are kept here ([`store`], [`admin`]).

pub mod admin;
pub mod body;
pub mod chat;
pub mod config;
pub mod door;
pub mod draw;
pub mod edge;
pub mod embed;
pub mod forward;
pub mod gateway;
pub mod idempotency;
pub mod keys;
pub mod leash;
pub mod leaving;
pub mod limits;
pub mod listing;
pub mod openai;
pub mod pace;
pub mod room;
pub mod routes;
pub mod run;
pub mod sse;
pub mod store;

pub use config::Config;

use gateway::Gateway;
use mesh::{World, database::DatabaseError, ready::Readiness, serve};
use store::Store;
use tokio_util::task::AbortOnDropHandle;

/// Why the gateway stopped or could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("key store: {0}")]
    Store(#[from] DatabaseError),
    #[error(
        "{0} machines of this app are started, but SQLite serves one: set DATABASE_URL to a \
         Postgres, or run `fly scale count 1`"
    )]
    SecondMachine(usize),
    #[error("gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("serve: {0}")]
    Serve(#[from] std::io::Error),
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

/// Serves until `world.stop`.
pub async fn run(config: Config, world: World) -> Result<(), Error> {
    if config.common.on_fly && config.database_url.starts_with("sqlite:") {
        let machines = world.network.own_machines().await.unwrap_or(1);
        if machines > 1 {
            return Err(Error::SecondMachine(machines));
        }
    }
    let readiness = Readiness::default();
    let store = Store::open(&config.database_url).await?;
    if let Some(secret) = &config.bootstrap_key {
        store.bootstrap(secret.expose(), &config.bootstrap_tenant).await?;
    }
    let _polling = spawn(store.clone().follow(config.key_poll, readiness.clone()));
    let gateway = Gateway::new(&config, &world, store, readiness.clone());
    let _router = spawn(gateway.router.clone().report_missing(readiness.clone()));
    let _retrieval = spawn(gateway.retrieval.clone().report_missing(readiness.clone()));
    let limits = gateway.limits.clone();
    let (_sweep, _beat) = (spawn(limits.clone().sweep()), spawn(limits.clone().beat()));
    let _leashes = spawn(gateway.leashes.clone().watch(gateway.store.clone()));
    let _claims = spawn(gateway.claims.clone().sweep());
    let app = routes::routes(gateway, &config.cors_origins, world.max_deadline)?;
    serve::public(world, app, readiness, &config.edge.front).await?;
    limits.leave().await;
    Ok(())
}
