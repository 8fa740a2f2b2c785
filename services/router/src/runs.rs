//! The runs this process executes.
//!
//! Invariants:
//! - a run is a task of its own: it never ends because whoever asked for it, or
//!   watches it, goes away (unless it was made so);
//! - runs of one thread go one after the other, in the order they were admitted
//!   here;
//! - the wish to cancel is in the store; a run here sees it at once, a run on
//!   another machine at its next poll;
//! - when the process starts, runs it had begun before are ended as INTERRUPTED
//!   and runs it had only queued are executed.

use crate::agents::Agents;
use crate::error::Error;
use crate::fold;
use crate::models::Models;
use crate::peers::Retrieval;
use crate::plan::Plan;
use crate::store::{Admitted, Claim, Store, Work, timestamp};
use crate::tails::Tails;
use crate::turn::{Ending, Journal, Turn, failure};
use mesh::call::Call;
use mesh::clock::now_micros;
use mesh::identity::Identity;
use mesh::load::Load;
use skein_proto::agent::v1::run_event::Body;
use skein_proto::agent::v1::{CancelMode, OnDisconnect, Run, RunEvent, RunStatus, StatusChanged};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[derive(Clone)]
pub struct Runs(Arc<Inner>);

pub struct Inner {
    pub store: Store,
    pub tails: Tails,
    pub agents: Arc<Agents>,
    pub models: Models,
    pub retrieval: Retrieval,
    pub here: Identity,
    load: Load,
    active: Mutex<HashMap<Arc<str>, Active>>,
    /// One lock per thread that has a run here; first come, first served.
    threads: Mutex<HashMap<ThreadKey, Weak<tokio::sync::Mutex<()>>>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

/// Tenant and thread.
type ThreadKey = (Arc<str>, Arc<str>);

struct Active {
    tenant: Arc<str>,
    cancel: CancellationToken,
    cancel_when_unwatched: bool,
}

/// What a process needs to execute runs.
pub struct Parts {
    pub store: Store,
    pub agents: Arc<Agents>,
    pub models: Models,
    pub retrieval: Retrieval,
    pub here: Identity,
    pub load: Load,
}

impl std::ops::Deref for Runs {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Runs {
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            store: parts.store,
            tails: Tails::default(),
            agents: parts.agents,
            models: parts.models,
            retrieval: parts.retrieval,
            here: parts.here,
            load: parts.load,
            active: Mutex::default(),
            threads: Mutex::default(),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        }))
    }

    /// Who leads a run, in the store: a machine, which may come back.
    pub fn owner(&self) -> String {
        format!("{}/{}", self.here.app, self.here.machine)
    }

    pub async fn create(&self, claim: Claim) -> Result<Admitted, Error> {
        let work = claim.work.clone();
        let admitted = self.store.create_run(claim).await?;
        if let Admitted::New(seq) = &admitted {
            self.tails.grown(&work.tenant, &work.thread_id, *seq);
            self.spawn(work);
        }
        Ok(admitted)
    }

    pub async fn cancel(&self, tenant: &str, id: &str, mode: CancelMode) -> Result<(), Error> {
        self.store.cancel(tenant, id, mode).await?;
        let active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = active.get(id).filter(|run| *run.tenant == *tenant) {
            run.cancel.cancel();
        }
        Ok(())
    }

    /// A live watcher of a run has gone before its end.
    pub fn unwatched(&self, tenant: &str, id: &str) {
        let wanted = {
            let active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
            active.get(id).is_some_and(|run| run.cancel_when_unwatched && *run.tenant == *tenant)
        };
        if wanted {
            let (runs, tenant, id) = (self.clone(), tenant.to_owned(), id.to_owned());
            self.tasks.spawn(async move {
                if let Err(error) = runs.cancel(&tenant, &id, CancelMode::Interrupt).await {
                    tracing::warn!(run = id, %error, "cancel a run that nobody watches");
                }
            });
        }
    }

    /// Ends or executes what this machine had not finished when it last stopped.
    pub async fn recover(&self) -> Result<(), Error> {
        for (work, status) in self.store.unfinished(&self.owner()).await? {
            if status == RunStatus::Queued {
                self.spawn(work);
                continue;
            }
            let run = self.store.run(&work.tenant, &work.run_id).await?;
            let lease = self.store.take_over(&work).await?;
            let tails = self.tails.clone();
            let mut journal = Journal::new(
                self.store.clone(),
                tails,
                lease,
                Arc::clone(&work.call_request_id),
                run,
            );
            let why = failure("INTERRUPTED", "the machine that executed the run stopped");
            let changed = StatusChanged {
                status: RunStatus::Failed.into(),
                error: Some(why),
                ..StatusChanged::default()
            };
            journal.end(changed, &self.here).await?;
            tracing::warn!(run = %work.run_id, "run interrupted by the end of its machine");
        }
        Ok(())
    }

    /// Until `stop`: sees cancellations that were recorded by other machines.
    pub async fn poll_cancellations(self, every: Duration, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let mine: Vec<_> = {
                let active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
                active.iter().map(|(id, run)| (Arc::clone(&run.tenant), Arc::clone(id))).collect()
            };
            match self.store.cancelled(&mine).await {
                Ok(runs) => {
                    let active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
                    runs.iter().filter_map(|id| active.get(id)).for_each(|run| run.cancel.cancel());
                }
                Err(error) => tracing::debug!(%error, "poll cancellations"),
            }
        }
    }

    /// Waits for the runs of this process until `patience` is over, then ends
    /// them as interrupted.
    pub async fn drain(&self, patience: Duration) {
        self.tasks.close();
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_err() {
            self.shutdown.cancel();
            self.tasks.wait().await;
        }
    }

    fn spawn(&self, work: Work) {
        let cancel = CancellationToken::new();
        let run = Active {
            tenant: Arc::clone(&work.tenant),
            cancel: cancel.clone(),
            cancel_when_unwatched: work.request.on_disconnect() == OnDisconnect::Cancel,
        };
        let id = Arc::clone(&work.run_id);
        self.active.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(&id), run);
        let runs = self.clone();
        // A run keeps its machine awake though nobody waits for it.
        let busy = self.load.work();
        self.tasks.spawn(async move {
            let _busy = busy;
            if let Err(error) = runs.execute(work, cancel).await {
                tracing::error!(run = %id, %error, "the end of a run could not be recorded");
            }
            runs.active.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        });
    }

    async fn execute(&self, work: Work, cancel: CancellationToken) -> Result<(), Error> {
        let turn_of_thread = self.thread_lock(&work);
        let _alone = tokio::select! {
            biased;
            // Left queued: the next start of this machine executes it.
            () = self.shutdown.cancelled() => return Ok(()),
            alone = turn_of_thread.lock() => alone,
            () = cancel.cancelled() => {
                if self.withdraw(&work).await? {
                    return Ok(());
                }
                return Err(Error::Fenced);
            }
        };
        let running = status_event(&work, RunStatus::Running);
        let (lease, cancelled) = self.store.start(&work, &self.owner(), running).await?;
        if cancelled != CancelMode::Unspecified {
            cancel.cancel();
        }
        let run = self.store.run(&work.tenant, &work.run_id).await?;
        let (store, tails) = (self.store.clone(), self.tails.clone());
        let journal = Journal::new(store, tails, lease, Arc::clone(&work.call_request_id), run);
        self.turn(&work, cancel, journal).await
    }

    /// Ends a run that waits for its turn.
    async fn withdraw(&self, work: &Work) -> Result<bool, Error> {
        let event = status_event(work, RunStatus::Cancelled);
        let mut run = self.store.run(&work.tenant, &work.run_id).await?;
        fold::apply(&mut run, &event);
        let withdrawn = self.store.withdraw(work, event, run).await?;
        let last = self.store.last_seq(&work.tenant, &work.thread_id).await?;
        self.tails.grown(&work.tenant, &work.thread_id, last.unwrap_or(0));
        Ok(withdrawn)
    }

    async fn turn(
        &self,
        work: &Work,
        cancel: CancellationToken,
        journal: Journal,
    ) -> Result<(), Error> {
        let begun = Instant::now();
        let Some(agent) = self.agents.get(&work.request.agent) else {
            let error = failure("AGENT_NOT_FOUND", "the run's agent was removed");
            let changed = StatusChanged {
                status: RunStatus::Failed.into(),
                error: Some(error),
                ..StatusChanged::default()
            };
            let mut journal = journal;
            return journal.end(changed, &self.here).await;
        };
        let plan = Plan::new(agent, &work.request);
        let timeout = plan.limits.timeout;
        let call = Call::new(Arc::clone(&work.tenant), Arc::clone(&work.principal), timeout)
            .with_request_id(Arc::clone(&work.call_request_id));
        let shutdown = self.shutdown.clone();
        let ending = Ending { cancel, shutdown, deadline: call.deadline, timeout };
        let (here, models, retrieval) = (&self.here, &self.models, &self.retrieval);
        let turn = Turn { plan, call, here, models, retrieval, store: &self.store, ending };
        let outcome = turn.run(journal).await;
        metrics::histogram!("skein_router_run_seconds").record(begun.elapsed().as_secs_f64());
        outcome
    }

    fn thread_lock(&self, work: &Work) -> Arc<tokio::sync::Mutex<()>> {
        let key = (Arc::clone(&work.tenant), Arc::clone(&work.thread_id));
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = threads.get(&key).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        threads.insert(key, Arc::downgrade(&lock));
        lock
    }

    /// Waits for the end of a run, wherever it is executed.
    pub async fn ended(&self, tenant: &str, id: &str) -> Result<Run, Error> {
        let thread_id = self.store.run(tenant, id).await?.thread_id;
        let mut grown = self.tails.watch(tenant, &thread_id);
        let mut run = self.store.run(tenant, id).await?;
        loop {
            if fold::is_over(run.status()) || grown.changed().await.is_err() {
                return Ok(run);
            }
            run = self.store.run(tenant, id).await?;
        }
    }
}

fn status_event(work: &Work, status: RunStatus) -> RunEvent {
    let changed = StatusChanged { status: status.into(), ..StatusChanged::default() };
    RunEvent {
        run_id: work.run_id.to_string(),
        attempt: 1,
        at: Some(timestamp(now_micros())),
        request_id: work.call_request_id.to_string(),
        body: Some(Body::Status(changed)),
        ..RunEvent::default()
    }
}
