//! One run: route → retrieve → generate → done, every step an event.
//!
//! Invariants:
//! - what a client sees has been committed; what was committed is never taken back;
//! - cancel, timeout and a lost model end a run at once, the model's call with it,
//!   and each with its own reason; nothing leaves a run without an end;
//! - retrieval that is away or knows nothing degrades the answer, and the run
//!   goes on; nothing is retried here.

mod answer;
mod ending;
mod journal;
mod search;

use crate::error::Error;
use crate::models::Models;
use crate::peers::Retrieval;
use crate::plan::{Plan, affordable};
use crate::store::Store;
use answer::Answer;
pub use ending::Ending;
pub use journal::Journal;
use mesh::call::Call;
use mesh::identity::Identity;
use skein_proto::agent::v1::run_event::Body;
use skein_proto::agent::v1::{RouteDecided, RunError, RunStatus, StatusChanged};
use skein_proto::model::v1::Passage;
use tonic::{Code, Status};

/// How a run ended when it did not complete.
pub enum Stop {
    Cancelled,
    Failed(RunError),
    /// Nothing more can be written: another machine leads, or the store is away.
    Lost(Error),
}

pub struct Turn<'a> {
    pub plan: Plan,
    pub call: Call,
    pub here: &'a Identity,
    pub models: &'a Models,
    pub retrieval: &'a Retrieval,
    pub store: &'a Store,
    pub ending: Ending,
}

impl Turn<'_> {
    /// Executes the run to its end; an error means that its end is not recorded.
    pub async fn run(&self, mut journal: Journal) -> Result<(), Error> {
        let mut answer = Answer::new(self.here);
        let (status, error) = match self.steps(&mut journal, &mut answer).await {
            Ok(()) => (RunStatus::Completed, None),
            Err(Stop::Lost(error)) => return Err(error),
            Err(Stop::Failed(error)) => {
                answer.broken_off(&mut journal, error.clone()).await?;
                (RunStatus::Failed, Some(error))
            }
            Err(Stop::Cancelled) => {
                let error = failure("CANCELLED", "the run was cancelled");
                answer.broken_off(&mut journal, error).await?;
                (RunStatus::Cancelled, None)
            }
        };
        let changed = StatusChanged { status: status.into(), error, ..StatusChanged::default() };
        journal.end(changed, self.here).await
    }

    async fn steps(&self, journal: &mut Journal, answer: &mut Answer) -> Result<(), Stop> {
        let routed = self.models.route(&self.call, &self.plan.model);
        let decision = self.ending.unless(routed).await??;
        let model = decision.model.clone();
        journal.append(vec![Body::Route(RouteDecided { decision: Some(decision) })]).await?;
        let passages = self.search(journal).await?;
        let past = self.store.past(&self.call.tenant, journal.thread_id()).await?;
        let mut request = self.plan.generate(past, passages.clone());
        self.bound_by_budget(journal, &model, &mut request).await?;
        request.model = model;
        crate::models::name_call(&mut request.call_id);
        answer.call(self, request, &passages, journal).await
    }

    async fn search(&self, journal: &mut Journal) -> Result<Vec<Passage>, Stop> {
        let query = self.plan.query();
        if query.is_empty() || self.plan.collections.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.ending.unless(search::everywhere(self, &query)).await?;
        let mut passages = Vec::new();
        let mut events = Vec::new();
        for one in found {
            passages.extend(one.retrieved.passages.iter().cloned());
            events.push(Body::Retrieved(one.retrieved));
            events.extend(one.usage.map(Body::Usage));
        }
        journal.append(events).await?;
        passages.sort_by(|one, other| other.score.total_cmp(&one.score));
        passages.truncate(usize::try_from(self.plan.limits.top_k).unwrap_or(0));
        Ok(passages)
    }

    /// Checked before each call that costs: what is spent, and what the rest pays.
    async fn bound_by_budget(
        &self,
        journal: &Journal,
        model: &str,
        request: &mut skein_proto::model::v1::GenerateRequest,
    ) -> Result<(), Stop> {
        let Some(limit) = self.plan.limits.max_nano_usd else { return Ok(()) };
        let spent = journal.run().usage.and_then(|usage| usage.cost).and_then(|cost| cost.nano_usd);
        if spent.is_some_and(|spent| spent >= limit) {
            return Err(Stop::Failed(failure("BUDGET_EXCEEDED", "the run has spent its budget")));
        }
        let models = self.ending.unless(self.models.list(&self.call)).await??;
        let price = models.models.iter().find(|known| known.id == model);
        let price = price.and_then(|known| known.price.as_ref());
        if let (Some(tokens), Some(sampling)) =
            (affordable(&self.plan.limits, spent, price), request.sampling.as_mut())
        {
            let most = sampling.max_tokens.map_or(tokens, |asked| asked.min(tokens));
            sampling.max_tokens = Some(most.max(1));
        }
        Ok(())
    }
}

pub fn failure(reason: &str, message: &str) -> RunError {
    RunError { reason: reason.to_owned(), message: message.to_owned() }
}

/// A status of a service behind us, as the reason a run failed.
fn of_status(status: &Status) -> RunError {
    let general = match status.code() {
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::ResourceExhausted => "RATE_LIMITED",
        Code::Unavailable => "UNAVAILABLE",
        _ => "INTERNAL",
    };
    let reason = mesh::error::reason(status).unwrap_or_else(|| general.to_owned());
    RunError { reason, message: status.message().to_owned() }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        match error {
            Error::Fenced | Error::Database(_) => Self::Lost(error),
            other => Self::Failed(of_status(&other.into())),
        }
    }
}
