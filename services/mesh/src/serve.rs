//! Serving until told to stop, and stopping in three steps.
//!
//! 1. *Notice*: health says NOT_SERVING, new calls are still answered, so that
//!    callers and DNS have time to look elsewhere.
//! 2. *Drain*: every connection gets a GOAWAY and new ones are refused; open
//!    streams may finish.
//! 3. *End*: when `grace` is over the process leaves, streams or not.
//!
//! A machine that leaves because it has nothing to do ([`crate::idle`]) goes the
//! same way with a shorter notice.
//!
//! Invariant: notice + grace stay below Fly's `kill_timeout` (a test compares
//! them with `fly/*.toml`).

use crate::{
    auth,
    deadline::DeadlineLayer,
    front::Front,
    grow, health,
    idle::{Idle, Siblings},
    observe,
    peer::Peer,
    process,
    ready::Readiness,
    telemetry,
    token::Checker,
    watchdog::Watchdog,
    world::World,
};
use axum::{
    Router, extract::State, http::StatusCode, middleware, response::IntoResponse, routing::get,
};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown, service::TowerToHyperService};
use skein_proto::mesh::v1::peer_service_server::PeerServiceServer;
use std::{io, sync::Arc, time::Duration};
use tokio::{net::TcpListener, time};
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;

/// A service of the private network.
pub struct Private {
    pub routes: Routes,
    /// Whose tokens are accepted: `role`, or `role/package.Service/Method` for
    /// one that may call nothing else.
    pub issuers: &'static [&'static str],
    pub readiness: Readiness,
}

/// Serves gRPC with health and `PeerService`, and `/healthz`, `/readyz` and
/// `/metrics` beside it, until `world.stop`.
pub async fn private(world: World, service: Private) -> io::Result<()> {
    let checker = Arc::new(Checker::new(Arc::clone(&world.keys), service.issuers));
    let peer = world.peer(service.readiness.clone());
    let app = service
        .routes
        .add_service(reflection().build_v1().map_err(io::Error::other)?)
        .add_service(reflection().build_v1alpha().map_err(io::Error::other)?)
        .add_service(PeerServiceServer::new(peer))
        .add_service(health::service(service.readiness.clone()))
        .prepare()
        .into_axum_router()
        .layer(middleware::from_fn_with_state(checker, auth::require_token))
        .layer(middleware::from_fn_with_state(world.load.clone(), observe::observe))
        .layer(DeadlineLayer { max: world.max_deadline });
    serve(world, app, service.readiness, &Front::default()).await
}

/// Describes the whole contract to those with a token (`skein token`), whichever
/// part of it this service serves.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(skein_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Serves `app` as it is, on HTTP/1.1 and h2c, with the health and metrics
/// listeners of a private service.
pub async fn public(
    world: World,
    app: Router,
    readiness: Readiness,
    front: &Front,
) -> io::Result<()> {
    serve(world, app, readiness, front).await
}

impl World {
    /// What goes on beside the calls: showing what the platform refuses, and
    /// starting siblings.
    fn tend(&self, readiness: &Readiness) -> Vec<AbortOnDropHandle<()>> {
        let Some(machines) = &self.machines else { return Vec::new() };
        let grow = grow::follow(self.load.clone(), machines.clone(), self.identity.region.clone());
        let report = machines.clone().report(readiness.clone());
        [tokio::spawn(report), tokio::spawn(grow)].map(AbortOnDropHandle::new).into()
    }

    /// Until this machine has had nothing to do for so long that it leaves.
    fn idle(&self) -> impl Future<Output = ()> + use<> {
        let idle = self.life.idle_exit.zip(self.machines.clone()).map(|(after, machines)| Idle {
            after,
            core: self.life.core,
            load: self.load.clone(),
            machines,
            siblings: Siblings {
                own: self.identity.machine.clone(),
                network: self.network.clone(),
            },
        });
        async {
            match idle {
                Some(idle) => idle.until_free_to_leave().await,
                None => std::future::pending().await,
            }
        }
    }

    fn watchdog(&self) -> io::Result<Option<Watchdog>> {
        let patience = Some(self.life.watchdog).filter(|patience| !patience.is_zero());
        patience.map(Watchdog::abort_after).transpose()
    }

    /// What this machine says about itself.
    pub fn peer(&self, readiness: Readiness) -> Peer {
        let network = self.network.clone();
        Peer {
            identity: self.identity.clone(),
            keys: Arc::clone(&self.keys),
            readiness,
            settings: self.settings.clone().into(),
            load: self.load.clone(),
            machines: self.machines.clone(),
            since: time::Instant::now(),
            channels: Arc::new(move || network.opened()),
            about: self.about.clone(),
        }
    }
}

async fn serve(
    mut world: World,
    app: Router,
    readiness: Readiness,
    front: &Front,
) -> io::Result<()> {
    let side = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render_metrics))
        .with_state(world.peer(readiness.clone()));
    let _watchdog = world.watchdog()?;
    for listener in [world.health.take(), world.metrics.take()].into_iter().flatten() {
        tokio::spawn(axum::serve(listener, side.clone()).into_future());
    }
    tracing::info!(identity = %world.identity, release = world.identity.release, "serving");
    let graceful = GracefulShutdown::new();
    let _tending = world.tend(&readiness);
    let _upkeep = AbortOnDropHandle::new(tokio::spawn(telemetry::upkeep()));
    let idle = world.idle();
    let listener = world.grpc.open()?;
    let noticed = async {
        let notice = tokio::select! {
            () = world.stop.cancelled() => world.notice,
            // Nobody is being served, and whoever comes now is quicker with
            // another machine than with the end of this one.
            () = idle => world.notice / 10,
        };
        world.stop.cancel();
        tracing::info!(?notice, grace = ?world.grace, "stopping");
        readiness.drain();
        time::sleep(notice).await;
    };
    tokio::select! {
        // Dropped with its listener: whoever connects during the grace time is
        // refused at once and goes elsewhere, instead of waiting for an accept
        // that never comes.
        () = accept(listener, app, &graceful, front) => {}
        () = noticed => {}
    }
    world.drain.cancel();
    if time::timeout(world.grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("streams outlived the grace period");
    }
    Ok(())
}

async fn accept(listener: TcpListener, app: Router, graceful: &GracefulShutdown, front: &Front) {
    let builder = front.builder();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: wait for some to come back.
                tracing::warn!(%error, "cannot accept a connection");
                time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(app.clone());
        let connection =
            builder.serve_connection_with_upgrades(TokioIo::new(front.watch(stream)), service);
        let watched = graceful.watch(connection.into_owned());
        tokio::spawn(async move {
            if let Err(error) = watched.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
}

async fn readyz(State(peer): State<Peer>) -> impl IntoResponse {
    let (ready, body) = peer.readyz();
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, format!("{body}\n"))
}

async fn render_metrics(State(peer): State<Peer>) -> String {
    let Some(handle) = telemetry::prometheus() else { return String::new() };
    process::measure();
    metrics::gauge!("skein_in_flight").set(peer.load.in_flight() as f64);
    handle.run_upkeep();
    handle.render()
}
