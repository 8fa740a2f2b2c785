//! A server that speaks Anthropic's dialect: messages, token counts, models.
//!
//! Invariants:
//! - A request without `anthropic-version` is refused.
//! - Token counts are words, as everywhere here; usage in a stream is cumulative.

pub(crate) mod errors;
mod messages;

use crate::{
    answer::Answer,
    dialect::Dialect,
    fake::{Fake, Options},
    reply::Failure,
    server::{Asked, Server},
};
use axum::{
    Router,
    extract::{Path, State},
    response::Response,
    routing::{get, post},
};
use serde_json::{Value, json};
use std::{io, sync::Arc};

/// Starts a server on a free port of the loopback interface. Its `url` is for
/// `ANTHROPIC_BASE_URL`, without a path.
pub async fn start() -> io::Result<Fake> {
    start_with(Options::default()).await
}

/// HTTP/2 over TLS, so many streams a connection.
pub async fn start_tls(max_streams: u32) -> io::Result<Fake> {
    start_with(Options { tls: true, max_streams: Some(max_streams), ..Options::default() }).await
}

pub async fn start_with(options: Options) -> io::Result<Fake> {
    let server = Arc::new(Server::new(Dialect::Anthropic));
    let routes = Router::new()
        .route("/v1/messages", post(create))
        .route("/v1/messages/count_tokens", post(count))
        .route("/v1/models", get(models))
        .route("/v1/models/{model}", get(model))
        .fallback(nothing)
        .with_state(Arc::clone(&server));
    Fake::start(server, routes, "", options).await
}

fn versioned(asked: &Asked, answer: impl FnOnce() -> Answer) -> Answer {
    match asked.headers.contains_key("anthropic-version") {
        true => answer(),
        false => errors::refused(400, "anthropic-version: header is required"),
    }
}

async fn create(State(server): State<Arc<Server>>, asked: Asked) -> Response {
    asked
        .answer(&server, async |asked, say| {
            versioned(asked, || messages::answer(&asked.request, say))
        })
        .await
}

async fn count(State(server): State<Arc<Server>>, asked: Asked) -> Response {
    asked
        .answer(&server, async |asked, _| versioned(asked, || messages::count(&asked.request)))
        .await
}

const MODELS: [&str; 3] = ["claude-opus-5", "claude-sonnet-4-5", "claude-haiku-4-5"];

fn listed(id: &str) -> Value {
    json!({"type": "model", "id": id, "display_name": id, "created_at": "2026-01-01T00:00:00Z"})
}

async fn models(State(server): State<Arc<Server>>, asked: Asked) -> Response {
    let list = async |asked: &Asked, _: &_| {
        let body = json!({"data": MODELS.map(listed), "has_more": false,
            "first_id": MODELS.first(), "last_id": MODELS.last()});
        versioned(asked, || Answer::json(200, &body))
    };
    asked.answer(&server, list).await
}

async fn model(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
    asked: Asked,
) -> Response {
    let one = async |asked: &Asked, _: &_| {
        versioned(asked, || match MODELS.contains(&id.as_str()) {
            true => Answer::json(200, &listed(&id)),
            false => errors::failure(Failure::Status(404)),
        })
    };
    asked.answer(&server, one).await
}

async fn nothing(State(server): State<Arc<Server>>, asked: Asked) -> Response {
    asked.answer(&server, async |_, _| errors::refused(404, "no such route")).await
}
