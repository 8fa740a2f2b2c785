//! What model-proxy can call, remembered for a few seconds.
//!
//! Invariants:
//! - one question is in flight at a time, however many calls wait for it;
//! - an answer that cannot be renewed goes on being used: a blink of model-proxy
//!   must not make every model unknown.

use crate::error::Error;
use crate::peers::ModelProxy;
use mesh::call::Call;
use skein_proto::model::v1::{ListModelsRequest, ListModelsResponse};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

const FRESH: Duration = Duration::from_secs(5);
/// After a failure, and the longest a call waits while an old answer is there.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Catalogue {
    model_proxy: ModelProxy,
    known: Arc<Mutex<Option<Known>>>,
}

struct Known {
    models: Arc<ListModelsResponse>,
    until: Instant,
}

impl Catalogue {
    pub fn new(model_proxy: ModelProxy) -> Self {
        Self { model_proxy, known: Arc::default() }
    }

    pub async fn models(&self, call: &Call) -> Result<Arc<ListModelsResponse>, Error> {
        let mut known = self.known.lock().await;
        match known.as_mut() {
            Some(fresh) if Instant::now() < fresh.until => Ok(Arc::clone(&fresh.models)),
            Some(stale) => {
                match self.ask(&call.with_timeout(RETRY)).await {
                    Ok(models) => *stale = Known { models, until: Instant::now() + FRESH },
                    Err(error) => {
                        tracing::debug!(%error, "models not renewed, the old list serves");
                        stale.until = Instant::now() + RETRY;
                    }
                }
                Ok(Arc::clone(&stale.models))
            }
            None => {
                let models = self.ask(call).await?;
                let first = Known { models: Arc::clone(&models), until: Instant::now() + FRESH };
                *known = Some(first);
                Ok(models)
            }
        }
    }

    async fn ask(&self, call: &Call) -> Result<Arc<ListModelsResponse>, Error> {
        let request = call.request(ListModelsRequest {});
        let mut model_proxy = self.model_proxy.clone();
        let answer = model_proxy.list_models(request);
        let answer =
            tokio::time::timeout_at(call.deadline, answer).await.map_err(|_elapsed| {
                let text = "model-proxy did not say in time which models there are".to_owned();
                mesh::error::status(mesh::error::Kind::DeadlineExceeded, None, None, text)
            })??;
        Ok(answer.into_inner().into())
    }
}
