//! An agent behind the chat endpoint: a run, told as the events of an answer.
//!
//! An agent brings its own instructions, model and sampling; of the request it
//! takes the messages, the token limit and the metadata. What would change the
//! shape of the answer is refused, not ignored.
//!
//! Invariants:
//! - A client that leaves cancels its run, even while the run is being made.
//! - A stream of events that ends early is taken up again after the last event
//!   that was seen, so nothing is told twice.
//! - The end comes from the run itself: usage of every step, all citations.

use crate::{
    chat::{Answer, begin, cut},
    gateway::Gateway,
    openai::error::Refusal,
};
use futures_util::{StreamExt as _, stream};
use mesh::{
    Call, Channel,
    error::{self, Kind},
    h2,
};
use skein_proto::{
    agent::v1::{
        CancelRunRequest, CreateRunRequest, GetRunRequest, OnDisconnect, Run, RunError, RunEvent,
        RunLimits, RunStatus, StatusChanged, StreamEventsRequest, StreamEventsResponse,
        agent_service_client::AgentServiceClient, run_event::Body, stream_events_request::Of,
        stream_events_response::Item,
    },
    model::v1::{
        Choice, Delta, FinishReason, Finished, GenerateRequest, Started, delta::Piece,
        generate_response::Event,
    },
};
use std::{collections::VecDeque, time::Duration};
use tonic::{Code, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

/// `model: "agent/<name>"` names an agent.
pub const PREFIX: &str = "agent/";
/// Times in a row that an event stream may break without having told anything.
const RESUMES: u32 = 3;
const CANCEL_WITHIN: Duration = Duration::from_secs(10);

pub async fn start(
    gateway: &Gateway,
    call: &Call,
    agent: String,
    request: GenerateRequest,
) -> Result<Answer, Refusal> {
    check(&request)?;
    let fallback = Started {
        call_id: request.call_id.clone(),
        model: request.model.clone(),
        ..Started::default()
    };
    let live = create(gateway, call, agent, request).await;
    let live = live.map_err(|status| Refusal::from_status(&status))?;
    let following = Following {
        live,
        events: None,
        last_seq: 0,
        broken: 0,
        told: VecDeque::new(),
        choices: Vec::new(),
        degraded: String::new(),
        has: Has::default(),
        over: false,
        fallback: fallback.clone(),
    };
    let events = stream::unfold(following, |mut following| async {
        let event = following.next().await?;
        Some((event, following))
    });
    begin(events.boxed(), fallback).await
}

fn check(request: &GenerateRequest) -> Result<(), Refusal> {
    let sampling = request.sampling.clone().unwrap_or_default();
    for (param, given) in [
        ("n", sampling.n.unwrap_or(1) != 1),
        ("stop", !sampling.stop.is_empty()),
        ("tools", !request.tools.is_empty()),
        ("response_format", request.response_format.is_some()),
    ] {
        if given {
            let message = format!("{param} is not supported for an agent; leave it out");
            return Err(Refusal::invalid(param, "unsupported_parameter", message));
        }
    }
    Ok(())
}

/// In a task of its own: if the client leaves before the answer, the run is
/// dropped in there, and thereby cancelled.
async fn create(
    gateway: &Gateway,
    call: &Call,
    agent: String,
    request: GenerateRequest,
) -> Result<Live, Status> {
    let mut client = AgentServiceClient::new(gateway.router.clone())
        .max_decoding_message_size(h2::MAX_MESSAGE)
        .max_encoding_message_size(h2::MAX_MESSAGE);
    let sampling = request.sampling.unwrap_or_default();
    let create = CreateRunRequest {
        request_id: request.call_id,
        agent,
        input: request.messages,
        limits: Some(RunLimits {
            timeout_ms: i64::try_from(call.remaining().as_millis()).unwrap_or(i64::MAX),
            max_output_tokens: sampling.max_tokens.unwrap_or_default(),
            ..RunLimits::default()
        }),
        metadata: request.metadata,
        on_disconnect: OnDisconnect::Cancel.into(),
        ..CreateRunRequest::default()
    };
    let call = call.clone();
    let created = tokio::spawn(async move {
        let created = client.create_run(call.request(create)).await?.into_inner();
        let run = created.run.ok_or_else(cut)?;
        Ok::<_, Status>(Live { client, call, id: run.id, ended: false })
    });
    created.await.unwrap_or_else(|_| Err(cut()))
}

/// A run that somebody waits for; dropped before its end, it is cancelled.
struct Live {
    client: AgentServiceClient<Channel>,
    call: Call,
    id: String,
    ended: bool,
}

impl Drop for Live {
    fn drop(&mut self) {
        let (false, Ok(runtime)) = (self.ended, tokio::runtime::Handle::try_current()) else {
            return;
        };
        let (mut client, id) = (self.client.clone(), std::mem::take(&mut self.id));
        // Not `with_timeout`: that the call's own time is up may be the reason.
        let deadline = tokio::time::Instant::now() + CANCEL_WITHIN;
        let call = Call { deadline, ..self.call.clone() };
        runtime.spawn(async move {
            let cancel = CancelRunRequest { id, ..CancelRunRequest::default() };
            if let Err(status) = client.cancel_run(call.request(cancel)).await {
                tracing::warn!(code = ?status.code(), "cancel a run whose client left");
            }
        });
    }
}

/// What has been told so far.
#[derive(Default)]
struct Has {
    started: bool,
    text: bool,
    citations: bool,
}

struct Following {
    live: Live,
    events: Option<Streaming<StreamEventsResponse>>,
    last_seq: u64,
    broken: u32,
    told: VecDeque<Event>,
    choices: Vec<Choice>,
    degraded: String,
    has: Has,
    over: bool,
    fallback: Started,
}

impl Following {
    async fn next(&mut self) -> Option<Result<Event, Status>> {
        loop {
            if let Some(event) = self.told.pop_front() {
                return Some(Ok(event));
            }
            if self.over {
                return None;
            }
            if let Err(status) = self.advance().await {
                self.over = true;
                return Some(Err(status));
            }
        }
    }

    async fn advance(&mut self) -> Result<(), Status> {
        let item = match &mut self.events {
            Some(events) => events.message().await,
            None => {
                let request = StreamEventsRequest {
                    of: Some(Of::RunId(self.live.id.clone())),
                    after_seq: self.last_seq,
                    live: true,
                    ..StreamEventsRequest::default()
                };
                let opened = self.live.client.stream_events(self.live.call.request(request)).await;
                match opened {
                    Ok(events) => {
                        self.events = Some(events.into_inner());
                        return Ok(());
                    }
                    Err(status) => Err(status),
                }
            }
        };
        match item {
            Ok(Some(StreamEventsResponse { item: Some(item) })) => self.item(item).await,
            Ok(Some(StreamEventsResponse { item: None })) => Ok(()),
            Ok(None) => self.again(cut()),
            Err(status) if status.code() == Code::Unavailable => self.again(status),
            Err(status) => Err(status),
        }
    }

    fn again(&mut self, status: Status) -> Result<(), Status> {
        self.events = None;
        self.broken += 1;
        if self.broken > RESUMES { Err(status) } else { Ok(()) }
    }

    async fn item(&mut self, item: Item) -> Result<(), Status> {
        match item {
            Item::Snapshot(_) => Ok(()),
            Item::Event(event) => {
                self.broken = 0;
                self.last_seq = event.seq;
                self.event(event).await
            }
            Item::Gap(gap) => {
                let message = format!("events of the run are missing: {}", gap.reason);
                Err(error::status(Kind::DataLoss, Some("EVENT_GAP"), None, message))
            }
            Item::LeaseEnded(lease) => {
                self.events = None;
                self.last_seq = self.last_seq.max(lease.last_seq);
                Ok(())
            }
        }
    }

    async fn event(&mut self, event: RunEvent) -> Result<(), Status> {
        if event.run_id != self.live.id {
            return Ok(());
        }
        match event.body {
            Some(Body::Retrieved(retrieved)) => self.note(retrieved.degraded),
            Some(Body::ModelStarted(model)) => self.started(model.started.unwrap_or_default()),
            Some(Body::ModelDelta(model)) => model.deltas.into_iter().for_each(|d| self.delta(d)),
            Some(Body::ModelDone(done)) => {
                let choices = done.finished.map(|finished| finished.choices).unwrap_or_default();
                if !choices.is_empty() {
                    self.choices = choices;
                }
            }
            Some(Body::AttemptRestarted(_)) if self.has.text => {
                let message = "the run began anew after a part of its answer was sent".to_owned();
                return Err(error::status(
                    Kind::Unavailable,
                    Some("ATTEMPT_RESTARTED"),
                    None,
                    message,
                ));
            }
            Some(Body::Status(change)) => return self.status(change).await,
            _ => {}
        }
        Ok(())
    }

    fn note(&mut self, degraded: String) {
        if self.degraded.is_empty() {
            self.degraded = degraded;
        }
    }

    fn started(&mut self, mut started: Started) {
        if std::mem::replace(&mut self.has.started, true) {
            return;
        }
        if started.degraded_reason.is_empty() {
            started.degraded_reason.clone_from(&self.degraded);
        }
        started.degraded |= !started.degraded_reason.is_empty();
        self.told.push_back(Event::Started(started));
    }

    fn delta(&mut self, delta: Delta) {
        match &delta.piece {
            Some(Piece::Citation(_)) => self.has.citations = true,
            Some(Piece::Text(_) | Piece::Refusal(_)) => self.has.text = true,
            _ => {}
        }
        self.told.push_back(Event::Delta(delta));
    }

    async fn status(&mut self, change: StatusChanged) -> Result<(), Status> {
        match change.status() {
            RunStatus::Completed => {
                self.note(change.degraded);
                self.live.ended = true;
                let request = GetRunRequest { id: self.live.id.clone() };
                let run = self.live.client.get_run(self.live.call.request(request)).await?;
                self.finish(run.into_inner().run.unwrap_or_default());
                Ok(())
            }
            RunStatus::Failed => {
                self.live.ended = true;
                Err(failed(change.error.unwrap_or_default()))
            }
            RunStatus::Cancelled => {
                self.live.ended = true;
                let message = "the run was cancelled".to_owned();
                Err(error::status(Kind::Cancelled, Some("RUN_CANCELLED"), None, message))
            }
            RunStatus::Unspecified
            | RunStatus::Queued
            | RunStatus::Running
            | RunStatus::Waiting => Ok(()),
        }
    }

    fn finish(&mut self, run: Run) {
        self.note(run.degraded);
        if !self.has.started {
            let model = if run.model.is_empty() { self.fallback.model.clone() } else { run.model };
            self.started(Started { model, ..self.fallback.clone() });
        }
        let piece = |piece| Delta { piece: Some(piece), ..Delta::default() };
        if !self.has.text && !run.output.is_empty() {
            self.delta(piece(Piece::Text(run.output)));
        }
        if !self.has.citations {
            run.citations.into_iter().for_each(|c| self.delta(piece(Piece::Citation(c))));
        }
        let mut choices = std::mem::take(&mut self.choices);
        if choices.is_empty() {
            choices.push(Choice { finish_reason: FinishReason::Stop.into(), ..Choice::default() });
        }
        let usage = run.usage;
        self.told.push_back(Event::Finished(Finished { choices, usage, ..Finished::default() }));
        self.over = true;
    }
}

/// A run's own reason, as the status its cause would have had.
fn failed(error: RunError) -> Status {
    let code = match error.reason.as_str() {
        "INVALID_ARGUMENT"
        | "CONTEXT_LENGTH_EXCEEDED"
        | "CONTENT_FILTERED"
        | "PROVIDER_BAD_REQUEST" => Code::InvalidArgument,
        "NOT_FOUND" | "MODEL_NOT_FOUND" | "AGENT_NOT_FOUND" | "PROVIDER_NOT_FOUND" => {
            Code::NotFound
        }
        "PERMISSION_DENIED" => Code::PermissionDenied,
        "RATE_LIMITED" | "PROVIDER_RATE_LIMITED" | "PROVIDER_QUOTA" | "BUDGET_EXCEEDED" => {
            Code::ResourceExhausted
        }
        "DEADLINE_EXCEEDED" | "TOTAL_TIMEOUT" => Code::DeadlineExceeded,
        "CANCELLED" => Code::Cancelled,
        "UNIMPLEMENTED" => Code::Unimplemented,
        "INTERNAL" => Code::Internal,
        _ => Code::Unavailable,
    };
    let details = ErrorDetails::with_error_info(error.reason, error::DOMAIN, []);
    Status::with_error_details(code, error.message, details)
}
