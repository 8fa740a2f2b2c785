//! `skein ask`: one question, one run.
//!
//! Invariants:
//! - The answer streams; citations, path, tokens and cost follow it.
//! - With `--json` there is one object, at the end, or none.

use crate::{
    args::{Ask, Conversation},
    connect::Gateway,
    errors::Error,
    follow::{self, Listener},
    render,
    terminal::Terminal,
};
use skein_proto::{
    agent::v1::{CreateRunRequest, RunLimits},
    model::v1::{ContentPart, Message, Role, content_part::Part},
};

pub(crate) async fn run(
    gateway: &Gateway,
    wanted: &Ask,
    json: bool,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let question = wanted.question.join(" ");
    if question.trim().is_empty() {
        return Err(Error::usage("the question is empty"));
    }
    let message = request(&wanted.conversation, question);
    turn(gateway, message, json, true, terminal).await.map(drop)
}

/// One question of a conversation.
pub(super) fn request(wanted: &Conversation, question: String) -> CreateRunRequest {
    CreateRunRequest {
        thread_id: wanted.thread.clone().unwrap_or_default(),
        agent: wanted.agent.clone().unwrap_or_default(),
        input: vec![Message {
            role: Role::User.into(),
            content: vec![ContentPart {
                part: Some(Part::Text(question)),
                ..ContentPart::default()
            }],
            ..Message::default()
        }],
        limits: wanted.top_k.map(|top_k| RunLimits { top_k, ..RunLimits::default() }),
        collections: wanted.collections.clone(),
        model: wanted.model.clone().unwrap_or_default(),
        ..CreateRunRequest::default()
    }
}

/// Asks, shows the answer, gives back the thread.
pub(super) async fn turn(
    gateway: &Gateway,
    message: CreateRunRequest,
    json: bool,
    pretty: bool,
    terminal: &mut Terminal,
) -> Result<String, Error> {
    let run = follow::run(gateway, message, Listener { terminal, silent: json }).await?;
    if json {
        terminal.json(&render::run_json(&run), pretty)?;
    } else {
        terminal.text(&format!("\n{}", render::footer(&run)))?;
    }
    Ok(run.thread_id)
}
