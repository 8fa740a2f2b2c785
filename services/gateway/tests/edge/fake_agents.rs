//! Agents that answer by their name.

use crate::fakes::{Dropped, Events, Seen, finished, started, text, usage};
use futures_util::{StreamExt as _, stream};
use mesh::error;
use skein_proto::{
    agent::v1::{
        agent_service_server::AgentService, run_event::Body, stream_events_response::Item, *,
    },
    model::v1::{Citation, FinishReason, Span},
};
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub(crate) struct Agents(pub(crate) Arc<Seen>);

pub(crate) fn citation() -> Citation {
    Citation {
        passage: 0,
        collection: "default".into(),
        document_id: "geese.md".into(),
        chunk_id: "c1".into(),
        title: "Geese".into(),
        span: Some(Span { start: 3, end: 9 }),
        quote: "skein.".into(),
    }
}

fn event(run_id: &str, seq: u64, body: Body) -> Result<StreamEventsResponse, Status> {
    let event = RunEvent { seq, run_id: run_id.into(), body: Some(body), ..RunEvent::default() };
    Ok(StreamEventsResponse { item: Some(Item::Event(event)) })
}

fn status(status: RunStatus, error: Option<RunError>) -> Body {
    Body::Status(StatusChanged { status: status.into(), error, ..StatusChanged::default() })
}

fn delta(piece: &str) -> Body {
    Body::ModelDelta(ModelDelta { call_id: "call-1".into(), deltas: vec![text(0, piece)] })
}

fn begun() -> Body {
    Body::ModelStarted(ModelStarted { call_id: "call-1".into(), started: Some(started()) })
}

fn done() -> Body {
    let finished = Some(finished(1, FinishReason::Stop));
    Body::ModelDone(ModelDone { finished, ..ModelDone::default() })
}

/// The run id is the agent's name; `resumed` has its lease end in the middle.
fn events(run: &str, after: u64) -> Vec<Result<StreamEventsResponse, Status>> {
    let all = match run {
        "fails" => vec![status(
            RunStatus::Failed,
            Some(RunError { reason: "MODEL_NOT_FOUND".into(), message: "no such model".into() }),
        )],
        _ => vec![
            status(RunStatus::Running, None),
            begun(),
            delta("Hel"),
            delta("lo"),
            done(),
            status(RunStatus::Completed, None),
        ],
    };
    let snapshot = Ok(StreamEventsResponse { item: Some(Item::Snapshot(Snapshot::default())) });
    let numbered = all.into_iter().zip(1..).map(|(body, seq)| event(run, seq, body));
    let mut events = vec![snapshot];
    if run == "resumed" && after == 0 {
        let lease = LeaseEnded { last_seq: 3, reason: "lease".into() };
        events.extend(numbered.take(3));
        events.push(Ok(StreamEventsResponse { item: Some(Item::LeaseEnded(lease)) }));
    } else {
        events.extend(numbered.skip(usize::try_from(after).unwrap()));
    }
    events
}

fn no<T>() -> Result<Response<T>, Status> {
    Err(error::unimplemented("not in this script"))
}

#[tonic::async_trait]
impl AgentService for Agents {
    async fn create_run(
        &self,
        request: Request<CreateRunRequest>,
    ) -> Result<Response<CreateRunResponse>, Status> {
        self.0.note(&request);
        let request = request.into_inner();
        assert_eq!(request.on_disconnect(), OnDisconnect::Cancel);
        assert!(!request.request_id.is_empty());
        let run = Run { id: request.agent, ..Run::default() };
        Ok(Response::new(CreateRunResponse { run: Some(run), existed: false }))
    }

    async fn get_run(
        &self,
        request: Request<GetRunRequest>,
    ) -> Result<Response<GetRunResponse>, Status> {
        let run = Run {
            id: request.into_inner().id,
            output: "Hello".into(),
            citations: vec![citation()],
            usage: Some(usage()),
            ..Run::default()
        };
        Ok(Response::new(GetRunResponse { run: Some(run) }))
    }

    async fn cancel_run(
        &self,
        request: Request<CancelRunRequest>,
    ) -> Result<Response<CancelRunResponse>, Status> {
        drop(Dropped(Arc::clone(&self.0)));
        self.0.note(&request);
        Ok(Response::new(CancelRunResponse { run: None }))
    }

    type StreamEventsStream = Events<StreamEventsResponse>;
    async fn stream_events(
        &self,
        request: Request<StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        self.0.note(&request);
        let request = request.into_inner();
        let Some(stream_events_request::Of::RunId(run)) = request.of else {
            return Err(error::invalid("of", "must name a run"));
        };
        let told = stream::iter(events(&run, request.after_seq));
        if run == "hangs" {
            return Ok(Response::new(told.take(4).chain(stream::pending()).boxed()));
        }
        Ok(Response::new(told.boxed()))
    }

    async fn list_agents(
        &self,
        _: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        let agent = Agent { name: "default".into(), ..Agent::default() };
        Ok(Response::new(ListAgentsResponse { agents: vec![agent] }))
    }

    async fn create_thread(
        &self,
        _: Request<CreateThreadRequest>,
    ) -> Result<Response<CreateThreadResponse>, Status> {
        no()
    }
    async fn get_thread(
        &self,
        _: Request<GetThreadRequest>,
    ) -> Result<Response<GetThreadResponse>, Status> {
        no()
    }
    async fn list_threads(
        &self,
        _: Request<ListThreadsRequest>,
    ) -> Result<Response<ListThreadsResponse>, Status> {
        no()
    }
    async fn delete_thread(
        &self,
        _: Request<DeleteThreadRequest>,
    ) -> Result<Response<DeleteThreadResponse>, Status> {
        no()
    }
    async fn fork_thread(
        &self,
        _: Request<ForkThreadRequest>,
    ) -> Result<Response<ForkThreadResponse>, Status> {
        no()
    }
    type ExportThreadStream = Events<ExportThreadResponse>;
    async fn export_thread(
        &self,
        _: Request<ExportThreadRequest>,
    ) -> Result<Response<Self::ExportThreadStream>, Status> {
        no()
    }
    async fn list_runs(
        &self,
        _: Request<ListRunsRequest>,
    ) -> Result<Response<ListRunsResponse>, Status> {
        no()
    }
    async fn answer_interrupt(
        &self,
        _: Request<AnswerInterruptRequest>,
    ) -> Result<Response<AnswerInterruptResponse>, Status> {
        no()
    }
    async fn resolve_effect(
        &self,
        _: Request<ResolveEffectRequest>,
    ) -> Result<Response<ResolveEffectResponse>, Status> {
        no()
    }
    async fn explain_route(
        &self,
        _: Request<ExplainRouteRequest>,
    ) -> Result<Response<ExplainRouteResponse>, Status> {
        no()
    }
}
