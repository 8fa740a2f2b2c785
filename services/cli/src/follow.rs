//! One run from its making to its end: the answer as it comes, through ended
//! leases, broken connections and restarts.
//!
//! Invariants:
//! - A stream that ends without the run's end is taken up after the last event
//!   seen: no word twice, none lost. What was lost all the same (a gap) is made
//!   good from the run itself.
//! - A run that nobody waits for any more (Ctrl-C, a closed stdout) is
//!   cancelled: it costs money.
//! - What came after a restart of the run replaces what came before it.

use crate::{
    connect::{Gateway, QUICK},
    errors::{self, Error},
    retry::{self, OnLimit},
    terminal::Terminal,
};
use skein_proto::{
    agent::v1::{
        CancelMode, CancelRunRequest, CreateRunRequest, GetRunRequest, InterruptRaised, Run,
        RunEvent, RunStatus, StreamEventsRequest, run_event::Body, stream_events_request::Of,
        stream_events_response::Item,
    },
    model::v1::delta::Piece,
};
use std::{pin::pin, time::Duration};
use tokio::{signal, time};
use tonic::{Status, Streaming};

/// Streams in a row that end without anything new before we give up.
const PATIENCE: u32 = 8;
/// How long a stopped command waits for its run to be cancelled.
const FAREWELL: Duration = Duration::from_secs(5);

/// Where the words go while they come.
pub(crate) struct Listener<'a> {
    pub(crate) terminal: &'a mut Terminal,
    /// Nothing on stdout before the end.
    pub(crate) silent: bool,
}

/// Makes the run, follows it and gives it back as it ended.
pub(crate) async fn run(
    gateway: &Gateway,
    mut message: CreateRunRequest,
    mut listener: Listener<'_>,
) -> Result<Run, Error> {
    message.request_id = request_id()?;
    let mut stop = pin!(signal::ctrl_c());
    let mut create = pin!(create(gateway, message));
    let (made, stopped) = tokio::select! {
        made = &mut create => (made?, false),
        _ = &mut stop => match time::timeout(FAREWELL, create).await {
            Ok(made) => (made?, true),
            Err(_) => return Err(Error::Interrupted),
        },
    };
    let outcome = if stopped {
        Err(Error::Interrupted)
    } else {
        tokio::select! {
            outcome = follow(gateway, &made.id, &mut listener) => outcome,
            _ = stop => Err(Error::Interrupted),
        }
    };
    if matches!(outcome, Err(Error::Interrupted | Error::Closed)) {
        cancel(gateway, &made.id, listener.terminal).await;
    }
    outcome
}

/// The same run however often the call has to be made.
fn request_id() -> Result<String, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::failed(format!("no randomness from the system: {error}")))?;
    Ok(format!("cli-{}", hex::encode(bytes)))
}

async fn create(gateway: &Gateway, message: CreateRunRequest) -> Result<Run, Error> {
    let made = retry::idempotent(OnLimit::Fail, async || {
        gateway.agent().create_run(gateway.request(message.clone(), QUICK)).await
    });
    let made = made.await.map_err(|status| gateway.explain("ask", &status))?;
    made.run.ok_or_else(|| Error::failed("ask: the gateway answered without a run"))
}

async fn cancel(gateway: &Gateway, id: &str, terminal: &mut Terminal) {
    let message =
        CancelRunRequest { id: id.to_owned(), mode: CancelMode::Interrupt.into(), wait: false };
    let mut client = gateway.agent();
    tokio::select! {
        outcome = client.cancel_run(gateway.request(message, FAREWELL)) => match outcome {
            Ok(_) => terminal.note(&format!("\ncancelled run {id}")),
            Err(status) => {
                let error = gateway.explain(&format!("cancel run {id}"), &status);
                terminal.note(&format!("\nit may go on: {error}"));
            }
        },
        _ = signal::ctrl_c() => terminal.note(&format!("\nrun {id} may go on")),
    }
}

/// What has been seen of the run so far.
#[derive(Default)]
struct Progress {
    seq: u64,
    text: String,
    ended: bool,
}

async fn follow(gateway: &Gateway, id: &str, listener: &mut Listener<'_>) -> Result<Run, Error> {
    let mut seen = Progress::default();
    let mut idle = 0;
    loop {
        let before = seen.seq;
        let broken = match listen(gateway, id, &mut seen, listener).await? {
            Err(status) if !may_pass(&status) => return Err(gateway.explain("ask", &status)),
            broken => broken.err(),
        };
        let run = get(gateway, id).await?;
        if seen.ended || has_ended(run.status()) {
            return finish(run, &seen, listener);
        }
        idle = if seen.seq > before { 0 } else { idle + 1 };
        if idle == PATIENCE {
            let status =
                broken.unwrap_or_else(|| Status::unavailable("the event stream ends early"));
            return Err(gateway.explain(&format!("follow run {id}"), &status));
        }
        if idle > 0 {
            time::sleep(retry::backoff(idle)).await;
        }
    }
}

fn may_pass(status: &Status) -> bool {
    errors::is_transport(status) || status.code() == tonic::Code::Unavailable
}

fn has_ended(status: RunStatus) -> bool {
    matches!(status, RunStatus::Completed | RunStatus::Failed | RunStatus::Cancelled)
}

/// One stream, from the last event seen to its end or the run's.
async fn listen(
    gateway: &Gateway,
    id: &str,
    seen: &mut Progress,
    listener: &mut Listener<'_>,
) -> Result<Result<(), Status>, Error> {
    let message = StreamEventsRequest {
        of: Some(Of::RunId(id.to_owned())),
        after_seq: seen.seq,
        live: true,
        ..StreamEventsRequest::default()
    };
    let mut stream: Streaming<_> = match gateway.agent().stream_events(gateway.live(message)).await
    {
        Ok(response) => response.into_inner(),
        Err(status) => return Ok(Err(status)),
    };
    while !seen.ended {
        let item = match stream.message().await {
            Ok(Some(answer)) => answer.item,
            Ok(None) => break,
            Err(status) => return Ok(Err(status)),
        };
        match item {
            Some(Item::Event(event)) if event.run_id == id && event.seq > seen.seq => {
                seen.seq = event.seq;
                hear(event, seen, listener)?;
            }
            Some(Item::Gap(gap)) => {
                seen.seq = seen.seq.max(gap.to_seq);
                let about = format!("events {}..{}: {}", gap.from_seq, gap.to_seq, gap.reason);
                listener.terminal.note(&format!("missed {about}"));
            }
            Some(Item::LeaseEnded(_)) => break,
            Some(Item::Event(_) | Item::Snapshot(_)) | None => {}
        }
    }
    Ok(Ok(()))
}

fn hear(event: RunEvent, seen: &mut Progress, listener: &mut Listener<'_>) -> Result<(), Error> {
    match event.body {
        Some(Body::ModelDelta(delta)) => {
            for piece in delta.deltas.into_iter().filter(|delta| delta.choice == 0) {
                if let Some(Piece::Text(text) | Piece::Refusal(text)) = piece.piece {
                    seen.text += &text;
                    listener.say(&text)?;
                }
            }
        }
        Some(Body::AttemptRestarted(restart)) => {
            listener.restart(&format!("starting again: {}", restart.reason), seen)?;
        }
        Some(Body::InterruptRaised(InterruptRaised { interrupt_id, question_json })) => {
            return Err(Error::failed(format!(
                "run {} waits for an answer to {interrupt_id}: {question_json}; give it with \
                 AgentService.AnswerInterrupt",
                event.run_id
            )));
        }
        Some(Body::Status(changed)) => seen.ended = has_ended(changed.status()),
        _ => {}
    }
    Ok(())
}

impl Listener<'_> {
    fn say(&mut self, text: &str) -> Result<(), Error> {
        if self.silent { Ok(()) } else { self.terminal.text(text) }
    }

    fn restart(&mut self, why: &str, seen: &mut Progress) -> Result<(), Error> {
        self.terminal.note(why);
        if !seen.text.is_empty() {
            self.say("\n\n")?;
            seen.text.clear();
        }
        Ok(())
    }
}

async fn get(gateway: &Gateway, id: &str) -> Result<Run, Error> {
    let answer = retry::idempotent(OnLimit::Fail, async || {
        let message = GetRunRequest { id: id.to_owned() };
        gateway.agent().get_run(gateway.request(message, QUICK)).await
    });
    let answer =
        answer.await.map_err(|status| gateway.explain(&format!("get run {id}"), &status))?;
    Ok(answer.run.unwrap_or_default())
}

/// Says what is still unsaid and tells success from failure.
fn finish(run: Run, seen: &Progress, listener: &mut Listener<'_>) -> Result<Run, Error> {
    match unsaid(&seen.text, &run.output) {
        Unsaid::Nothing => {}
        Unsaid::Rest(rest) => listener.say(rest)?,
        Unsaid::All => {
            listener.terminal.note("\nthe whole answer:");
            listener.say("\n")?;
            listener.say(&run.output)?;
        }
    }
    if !run.output.is_empty() || !seen.text.is_empty() {
        listener.say("\n")?;
    }
    if !run.degraded.is_empty() {
        listener.terminal.note(&format!("degraded: {}", run.degraded));
    }
    match run.status() {
        RunStatus::Failed => {
            let error = run.error.unwrap_or_default();
            let code = errors::exit_code_of_reason(&error.reason).unwrap_or(errors::FAILED);
            let message = format!("run {} failed: {} ({})", run.id, error.message, error.reason);
            Err(Error::Said { message, code })
        }
        RunStatus::Cancelled => Err(Error::failed(format!("run {} was cancelled", run.id))),
        _ => Ok(run),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Unsaid<'a> {
    Nothing,
    Rest(&'a str),
    All,
}

/// What of `output` the reader has not seen; the text of earlier steps of a
/// run may stand before it.
fn unsaid<'a>(said: &str, output: &'a str) -> Unsaid<'a> {
    if said.trim_end().ends_with(output.trim_end()) {
        return Unsaid::Nothing;
    }
    output.strip_prefix(said).map_or(Unsaid::All, Unsaid::Rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unsaid_is_said_once() {
        assert_eq!(unsaid("let me look. yes", "yes"), Unsaid::Nothing);
        assert_eq!(unsaid("the answer\n", "the answer"), Unsaid::Nothing);
        assert_eq!(unsaid("the an", "the answer"), Unsaid::Rest("swer"));
        assert_eq!(unsaid("", "all"), Unsaid::Rest("all"));
        assert_eq!(unsaid("the ...er", "the answer"), Unsaid::All);
        assert_eq!(unsaid("partial", ""), Unsaid::Nothing);
    }
}
