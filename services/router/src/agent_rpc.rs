//! `AgentService` at the router: one thin method per RPC.
//!
//! Invariant: the tenant is the verified token's; an id of another tenant's does
//! not exist.

use crate::error::Error;
use crate::events_rpc::Watch;
use crate::fold;
use crate::runs::Runs;
use crate::store::{Admitted, Claim, Work};
use crate::wire;
use futures_util::stream::BoxStream;
use mesh::call::Call;
use mesh::error::{invalid, unimplemented};
use skein_proto::agent::v1::agent_service_server::AgentService;
use skein_proto::agent::v1::stream_events_request::Of;
use skein_proto::agent::v1::{
    Agent, AnswerInterruptRequest, AnswerInterruptResponse, CancelRunRequest, CancelRunResponse,
    CreateRunRequest, CreateRunResponse, CreateThreadRequest, CreateThreadResponse,
    DeleteThreadRequest, DeleteThreadResponse, ExplainRouteRequest, ExplainRouteResponse,
    ExportThreadRequest, ExportThreadResponse, ForkThreadRequest, ForkThreadResponse,
    GetRunRequest, GetRunResponse, GetThreadRequest, GetThreadResponse, ListAgentsRequest,
    ListAgentsResponse, ListRunsRequest, ListRunsResponse, ListThreadsRequest, ListThreadsResponse,
    ResolveEffectRequest, ResolveEffectResponse, StreamEventsRequest, StreamEventsResponse,
};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

pub struct AgentRpc {
    pub runs: Runs,
    /// Where this router's threads live; part of their ids.
    pub home: String,
    /// Longest life of a live stream.
    pub lease: Duration,
    pub draining: CancellationToken,
}

impl AgentRpc {
    fn new_thread_id(&self) -> String {
        format!("thr_{}_{}", self.home, uuid::Uuid::now_v7().simple())
    }
}

#[tonic::async_trait]
impl AgentService for AgentRpc {
    type ExportThreadStream = BoxStream<'static, Result<ExportThreadResponse, Status>>;
    type StreamEventsStream = BoxStream<'static, Result<StreamEventsResponse, Status>>;

    async fn create_thread(
        &self,
        request: Request<CreateThreadRequest>,
    ) -> Result<Response<CreateThreadResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        wire::metadata(&request.metadata)?;
        let id = self.new_thread_id();
        let thread = self.runs.store.create_thread(&call.tenant, &id, &request.metadata).await?;
        Ok(Response::new(CreateThreadResponse { thread: Some(thread) }))
    }

    async fn get_thread(
        &self,
        request: Request<GetThreadRequest>,
    ) -> Result<Response<GetThreadResponse>, Status> {
        let call = Call::of(&request)?;
        let id = request.into_inner().id;
        wire::id("id", &id)?;
        let thread = self.runs.store.thread(&call.tenant, &id).await?;
        Ok(Response::new(GetThreadResponse { thread: Some(thread) }))
    }

    async fn list_threads(
        &self,
        request: Request<ListThreadsRequest>,
    ) -> Result<Response<ListThreadsResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let limit = wire::page_size(request.page_size)?;
        let after = wire::cursor(&request.page_token)?;
        let (threads, next) = self.runs.store.threads(&call.tenant, &after, limit).await?;
        let next_page_token = wire::page_token(next);
        Ok(Response::new(ListThreadsResponse { threads, next_page_token }))
    }

    async fn delete_thread(
        &self,
        request: Request<DeleteThreadRequest>,
    ) -> Result<Response<DeleteThreadResponse>, Status> {
        let call = Call::of(&request)?;
        let id = request.into_inner().id;
        wire::id("id", &id)?;
        let existed = self.runs.store.delete_thread(&call.tenant, &id).await?;
        Ok(Response::new(DeleteThreadResponse { existed }))
    }

    async fn fork_thread(
        &self,
        _request: Request<ForkThreadRequest>,
    ) -> Result<Response<ForkThreadResponse>, Status> {
        Err(unimplemented("threads cannot be forked yet"))
    }

    async fn export_thread(
        &self,
        _request: Request<ExportThreadRequest>,
    ) -> Result<Response<Self::ExportThreadStream>, Status> {
        Err(unimplemented("threads cannot be exported yet"))
    }

    async fn create_run(
        &self,
        request: Request<CreateRunRequest>,
    ) -> Result<Response<CreateRunResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        wire::create_run(&request, &self.runs.agents)?;
        let new_thread = request.thread_id.is_empty();
        let thread_id = if new_thread { self.new_thread_id() } else { request.thread_id.clone() };
        let agent = self.runs.agents.get(&request.agent).map(|agent| agent.name.clone());
        let run_id = format!("run_{}", uuid::Uuid::now_v7().simple());
        let claim = Claim {
            work: Work {
                tenant: Arc::clone(&call.tenant),
                principal: Arc::clone(&call.principal),
                call_request_id: Arc::clone(&call.request_id),
                run_id: run_id.as_str().into(),
                thread_id: thread_id.into(),
                request,
            },
            new_thread,
            agent: agent.unwrap_or_default(),
            owner: self.runs.owner(),
        };
        let (id, existed) = match self.runs.create(claim).await? {
            Admitted::New(_) => (run_id, false),
            Admitted::Existing(id) => (id, true),
        };
        let run = self.runs.store.run(&call.tenant, &id).await?;
        Ok(Response::new(CreateRunResponse { run: Some(run), existed }))
    }

    async fn get_run(
        &self,
        request: Request<GetRunRequest>,
    ) -> Result<Response<GetRunResponse>, Status> {
        let call = Call::of(&request)?;
        let id = request.into_inner().id;
        wire::id("id", &id)?;
        let run = self.runs.store.run(&call.tenant, &id).await?;
        Ok(Response::new(GetRunResponse { run: Some(run) }))
    }

    async fn list_runs(
        &self,
        request: Request<ListRunsRequest>,
    ) -> Result<Response<ListRunsResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let limit = wire::page_size(request.page_size)?;
        let after = wire::cursor(&request.page_token)?;
        if !request.thread_id.is_empty() {
            wire::id("thread_id", &request.thread_id)?;
        }
        let found = self.runs.store.runs(&call.tenant, &request.thread_id, &after, limit).await?;
        let next_page_token = wire::page_token(found.1);
        Ok(Response::new(ListRunsResponse { runs: found.0, next_page_token }))
    }

    async fn cancel_run(
        &self,
        request: Request<CancelRunRequest>,
    ) -> Result<Response<CancelRunResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        wire::id("id", &request.id)?;
        wire::cancel_mode(request.mode)?;
        let mut run = self.runs.store.run(&call.tenant, &request.id).await?;
        if !fold::is_over(run.status()) {
            self.runs.cancel(&call.tenant, &request.id, request.mode()).await?;
            run = if request.wait {
                self.runs.ended(&call.tenant, &request.id).await?
            } else {
                self.runs.store.run(&call.tenant, &request.id).await?
            };
        }
        Ok(Response::new(CancelRunResponse { run: Some(run) }))
    }

    async fn stream_events(
        &self,
        request: Request<StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        wire::kinds(&request.kinds)?;
        if request.max_bytes < 0 {
            return Err(invalid("max_bytes", "must not be negative"));
        }
        let store = &self.runs.store;
        let (thread_id, run_id) = match &request.of {
            Some(Of::ThreadId(id)) => {
                wire::id("thread_id", id)?;
                (id.clone(), None)
            }
            Some(Of::RunId(id)) => {
                wire::id("run_id", id)?;
                (store.run(&call.tenant, id).await?.thread_id, Some(id.clone()))
            }
            None => return Err(invalid("of", "thread_id or run_id is required")),
        };
        let last = store.last_seq(&call.tenant, &thread_id).await?;
        let last = last.ok_or_else(|| Error::ThreadNotFound(thread_id.clone()))?;
        if request.after_seq > last {
            return Err(invalid("after_seq", format!("the thread ends with seq {last}")));
        }
        let watch = Watch {
            runs: self.runs.clone(),
            tenant: call.tenant,
            thread_id,
            run_id,
            request,
            lease: self.lease,
            draining: self.draining.clone(),
        };
        Ok(Response::new(Box::pin(watch.stream())))
    }

    async fn answer_interrupt(
        &self,
        _request: Request<AnswerInterruptRequest>,
    ) -> Result<Response<AnswerInterruptResponse>, Status> {
        Err(unimplemented("runs do not ask questions yet"))
    }

    async fn resolve_effect(
        &self,
        _request: Request<ResolveEffectRequest>,
    ) -> Result<Response<ResolveEffectResponse>, Status> {
        Err(unimplemented("runs have no effects yet"))
    }

    async fn explain_route(
        &self,
        request: Request<ExplainRouteRequest>,
    ) -> Result<Response<ExplainRouteResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let model = if request.model.is_empty() {
            let agent = self.runs.agents.get(&request.agent).ok_or_else(|| {
                let name = request.agent.chars().take(100).collect();
                Error::AgentNotFound { name, known: self.runs.agents.names() }
            })?;
            agent.model.clone()
        } else {
            request.model
        };
        let decision = self.runs.models.route(&call, &model).await?;
        Ok(Response::new(ExplainRouteResponse { decision: Some(decision) }))
    }

    async fn list_agents(
        &self,
        request: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        Call::of(&request)?;
        let agent = |agent: &crate::agents::Agent| Agent {
            name: agent.name.clone(),
            description: agent.description.clone(),
            instructions: agent.instructions.clone(),
            model: agent.model.clone(),
            collections: agent.collections.clone(),
        };
        let agents = self.runs.agents.iter().map(agent).collect();
        Ok(Response::new(ListAgentsResponse { agents }))
    }
}
