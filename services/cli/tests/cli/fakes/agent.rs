//! Runs that do what their question says.
//!
//! Invariants:
//! - Events come after the cursor asked for, so that a resumed stream is one.

use super::{Answers, Fake, unused};
use futures_util::{StreamExt as _, stream};
use skein_proto::{
    agent::v1::{
        self as wire, CancelRunRequest, CancelRunResponse, CreateRunRequest, CreateRunResponse,
        GetRunRequest, GetRunResponse, LeaseEnded, ModelDelta, PathStep, Run, RunError, RunEvent,
        RunStatus, Snapshot, StatusChanged, StreamEventsRequest, StreamEventsResponse,
        agent_service_server::AgentService, run_event::Body, stream_events_request::Of,
        stream_events_response::Item,
    },
    model::v1::{Citation, Cost, Delta, Span, Usage, content_part::Part, delta::Piece},
};
use tonic::{Request, Response, Status};

const ANSWER: &str = "Geese fly in a skein [2].";

fn run(id: &str, cancelled: bool) -> Run {
    let (question, status) = match id {
        "run_budget" => ("budget", RunStatus::Failed),
        "run_forever" if cancelled => ("forever", RunStatus::Cancelled),
        "run_forever" => ("forever", RunStatus::Running),
        _ => ("geese", RunStatus::Completed),
    };
    let failed = status == RunStatus::Failed;
    Run {
        id: id.to_owned(),
        thread_id: "thr_us_1".to_owned(),
        status: status.into(),
        output: if question == "geese" { ANSWER.to_owned() } else { String::new() },
        citations: vec![Citation {
            passage: 1,
            collection: "default".to_owned(),
            document_id: "birds/geese.md".to_owned(),
            chunk_id: "c1".to_owned(),
            title: "Geese".to_owned(),
            span: Some(Span { start: 10, end: 42 }),
            quote: "a flight of geese is a skein".to_owned(),
        }],
        usage: Some(Usage {
            input_uncached: 30,
            input_cache_read: 12,
            output: 7,
            cost: Some(Cost { nano_usd: (id != "run_unpriced").then_some(1_500_000) }),
            ..Usage::default()
        }),
        error: failed.then(|| RunError {
            reason: "BUDGET_EXCEEDED".to_owned(),
            message: "the budget of tenant dev is spent".to_owned(),
        }),
        path: vec![PathStep {
            app: "skein-router".to_owned(),
            machine: "m1".to_owned(),
            region: "iad".to_owned(),
            duration_us: 12_345,
            what: "run".to_owned(),
        }],
        degraded: if id == "run_degraded" { "no dense search".to_owned() } else { String::new() },
        model: "local/extractive".to_owned(),
        ..Run::default()
    }
}

fn event(run_id: &str, seq: u64, body: Body) -> StreamEventsResponse {
    let event =
        RunEvent { seq, run_id: run_id.to_owned(), body: Some(body), ..RunEvent::default() };
    StreamEventsResponse { item: Some(Item::Event(event)) }
}

fn text(run_id: &str, seq: u64, text: &str) -> StreamEventsResponse {
    let piece = Some(Piece::Text(text.to_owned()));
    let deltas = vec![Delta { piece, ..Delta::default() }];
    event(run_id, seq, Body::ModelDelta(ModelDelta { deltas, ..ModelDelta::default() }))
}

fn ended(run_id: &str, seq: u64, status: RunStatus) -> StreamEventsResponse {
    let changed = StatusChanged { status: status.into(), ..StatusChanged::default() };
    event(run_id, seq, Body::Status(changed))
}

/// The first two events of an answer, then the rest.
fn halves(id: &str) -> (Vec<StreamEventsResponse>, Vec<StreamEventsResponse>) {
    let (one, two) = ANSWER.split_at(10);
    let first = vec![text(id, 3, &one[..4]), text(id, 4, &one[4..])];
    (first, vec![text(id, 6, two), ended(id, 9, RunStatus::Completed)])
}

#[tonic::async_trait]
impl AgentService for Fake {
    type StreamEventsStream = Answers<StreamEventsResponse>;

    async fn create_run(
        &self,
        request: Request<CreateRunRequest>,
    ) -> Result<Response<CreateRunResponse>, Status> {
        let request = request.into_inner();
        let Some(Part::Text(question)) = &request.input[0].content[0].part else {
            return Err(Status::invalid_argument("no text"));
        };
        self.note(format!(
            "create {question} thread={} agent={} model={} collections={} top_k={}",
            request.thread_id,
            request.agent,
            request.model,
            request.collections.join(","),
            request.limits.map_or(0, |limits| limits.top_k),
        ));
        if question == "nobody" {
            return Err(Status::not_found("no agent named nobody"));
        }
        let run = run(&format!("run_{question}"), false);
        Ok(Response::new(CreateRunResponse { run: Some(run), existed: false }))
    }

    async fn get_run(
        &self,
        request: Request<GetRunRequest>,
    ) -> Result<Response<GetRunResponse>, Status> {
        let id = request.into_inner().id;
        let mut run = run(&id, self.cancelled.borrow().contains(&id));
        let streams = self.log().iter().filter(|line| line.starts_with("stream")).count();
        if streams < 2 && matches!(id.as_str(), "run_lease" | "run_break") {
            run.status = RunStatus::Running.into();
        }
        Ok(Response::new(GetRunResponse { run: Some(run) }))
    }

    async fn stream_events(
        &self,
        request: Request<StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let request = request.into_inner();
        let Some(Of::RunId(id)) = request.of else { return Err(unused()) };
        self.note(format!("stream {id} after {}", request.after_seq));
        let (first, rest) = halves(&id);
        let snapshot = StreamEventsResponse { item: Some(Item::Snapshot(Snapshot::default())) };
        let start = stream::iter([Ok(snapshot)]);
        let answers = |answers: Vec<_>| stream::iter(answers.into_iter().map(Ok));
        let rest = answers(rest);
        Ok(Response::new(match (id.as_str(), request.after_seq) {
            ("run_lease", 0) => {
                let lease =
                    Item::LeaseEnded(LeaseEnded { last_seq: 4, reason: "lease".to_owned() });
                let lease = Ok(StreamEventsResponse { item: Some(lease) });
                start.chain(answers(first)).chain(stream::iter([lease])).boxed()
            }
            ("run_break", 0) => {
                let broken = Err(Status::unavailable("the machine went away"));
                start.chain(answers(first)).chain(stream::iter([broken])).boxed()
            }
            ("run_lease" | "run_break", 4) => start.chain(rest).boxed(),
            ("run_forever", _) => {
                start.chain(answers(vec![text(&id, 3, "Geese")])).chain(stream::pending()).boxed()
            }
            ("run_budget", _) => {
                start.chain(answers(vec![ended(&id, 3, RunStatus::Failed)])).boxed()
            }
            _ => start.chain(answers(first)).chain(rest).boxed(),
        }))
    }

    async fn cancel_run(
        &self,
        request: Request<CancelRunRequest>,
    ) -> Result<Response<CancelRunResponse>, Status> {
        let id = request.into_inner().id;
        self.cancelled.send_modify(|runs| runs.push(id.clone()));
        Ok(Response::new(CancelRunResponse { run: Some(run(&id, true)) }))
    }

    async fn create_thread(
        &self,
        _: Request<wire::CreateThreadRequest>,
    ) -> Result<Response<wire::CreateThreadResponse>, Status> {
        Err(unused())
    }
    async fn get_thread(
        &self,
        _: Request<wire::GetThreadRequest>,
    ) -> Result<Response<wire::GetThreadResponse>, Status> {
        Err(unused())
    }
    async fn list_threads(
        &self,
        _: Request<wire::ListThreadsRequest>,
    ) -> Result<Response<wire::ListThreadsResponse>, Status> {
        Err(unused())
    }
    async fn delete_thread(
        &self,
        _: Request<wire::DeleteThreadRequest>,
    ) -> Result<Response<wire::DeleteThreadResponse>, Status> {
        Err(unused())
    }
    async fn fork_thread(
        &self,
        _: Request<wire::ForkThreadRequest>,
    ) -> Result<Response<wire::ForkThreadResponse>, Status> {
        Err(unused())
    }
    type ExportThreadStream = Answers<wire::ExportThreadResponse>;
    async fn export_thread(
        &self,
        _: Request<wire::ExportThreadRequest>,
    ) -> Result<Response<Self::ExportThreadStream>, Status> {
        Err(unused())
    }
    async fn list_runs(
        &self,
        _: Request<wire::ListRunsRequest>,
    ) -> Result<Response<wire::ListRunsResponse>, Status> {
        Err(unused())
    }
    async fn answer_interrupt(
        &self,
        _: Request<wire::AnswerInterruptRequest>,
    ) -> Result<Response<wire::AnswerInterruptResponse>, Status> {
        Err(unused())
    }
    async fn resolve_effect(
        &self,
        _: Request<wire::ResolveEffectRequest>,
    ) -> Result<Response<wire::ResolveEffectResponse>, Status> {
        Err(unused())
    }
    async fn explain_route(
        &self,
        _: Request<wire::ExplainRouteRequest>,
    ) -> Result<Response<wire::ExplainRouteResponse>, Status> {
        Err(unused())
    }
    async fn list_agents(
        &self,
        _: Request<wire::ListAgentsRequest>,
    ) -> Result<Response<wire::ListAgentsResponse>, Status> {
        Err(unused())
    }
}
