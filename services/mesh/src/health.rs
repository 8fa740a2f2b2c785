//! `grpc.health.v1` over our own readiness.
//!
//! Invariants:
//! - A watcher hears NOT_SERVING before the GOAWAY, and its stream then ends,
//!   so that a watch never holds a leaving process open.
//! - Health answers without a token and is never work.

use crate::ready::{Readiness, State};
use futures_util::stream;
use std::pin::Pin;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

#[derive(Clone)]
pub struct ReadinessHealth(Readiness);

/// The health service of a process; every service name gets the same answer.
pub fn service(readiness: Readiness) -> HealthServer<ReadinessHealth> {
    HealthServer::new(ReadinessHealth(readiness))
}

fn answer(state: &State) -> HealthCheckResponse {
    let status = if state.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for ReadinessHealth {
    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(answer(&self.0.state())))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut states = self.0.watch();
        states.mark_changed(); // the present state is the first one told
        let answers = stream::unfold(Some(states), |states| async {
            let mut states = states?;
            states.changed().await.ok()?;
            let state = states.borrow_and_update().clone();
            // The state that says we are leaving is the last one told.
            let rest = (!state.draining).then_some(states);
            Some((Ok(answer(&state)), rest))
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
