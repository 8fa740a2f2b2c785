//! A server that speaks OpenAI's dialect: chat, embeddings, images, models.
//!
//! Invariants:
//! - Token counts are words: of all messages in, of the answer out; a picture
//!   counts 85, a picture made 1,056.

mod chat;
mod embeddings;
pub(crate) mod errors;
mod images;
mod schema;

use crate::{
    answer::Answer,
    dialect::Dialect,
    fake::Options,
    images as pictures,
    server::{Asked, Server, sent},
};
use axum::{
    Router,
    extract::{Path, State},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde_json::json;
use std::{io, net::SocketAddr, sync::Arc};

pub use crate::{fake::Fake, log::Entry};

/// Starts a server on a free port of the loopback interface. Its `url` is for
/// `OPENAI_BASE_URL`, with `/v1`.
pub async fn start() -> io::Result<Fake> {
    start_with(Options::default()).await
}

pub async fn start_on(address: SocketAddr) -> io::Result<Fake> {
    start_with(Options { address, ..Options::default() }).await
}

/// HTTP/2 over TLS, so many streams a connection.
pub async fn start_tls(max_streams: u32) -> io::Result<Fake> {
    start_with(Options { tls: true, max_streams: Some(max_streams), ..Options::default() }).await
}

pub async fn start_with(options: Options) -> io::Result<Fake> {
    let server = Arc::new(Server::new(Dialect::OpenAi));
    let routes = routes(Arc::clone(&server));
    Fake::start(server, routes, "/v1", options).await
}

fn routes(server: Arc<Server>) -> Router {
    // Azure and Groq have the same routes below other paths.
    let usual = Router::new()
        .route("/chat/completions", post(chat))
        .route("/embeddings", post(embeddings))
        .route("/images/generations", post(images))
        .route("/models", get(models))
        .route("/models/{model}", get(model));
    Router::new()
        .nest("/v1", usual.clone())
        .nest("/openai/v1", usual.clone())
        .nest("/openai/deployments/{deployment}", usual)
        .route("/_pictures/{name}", get(picture))
        .route("/_log", get(show_log).delete(clear_log))
        .fallback(nothing)
        .with_state(server)
}

async fn chat(State(server): State<Arc<Server>>, asked: Asked) -> Response {
    asked.answer(&server, async |asked, say| chat::answer(&asked.request, &asked.model, say)).await
}

async fn embeddings(State(server): State<Arc<Server>>, asked: Asked) -> Response {
    asked.answer(&server, async |asked, _| embeddings::answer(&asked.request)).await
}

async fn images(State(server): State<Arc<Server>>, asked: Asked) -> Response {
    let origin = server.origin();
    asked.answer(&server, async |asked, _| images::answer(&asked.request, origin)).await
}

const MODELS: [&str; 8] = [
    "gpt-4o-mini",
    "gpt-4o",
    "gpt-5-mini",
    "text-embedding-3-small",
    "gpt-image-1",
    "dall-e-3",
    "slow-20",
    "tool",
];

fn listed(id: &str) -> serde_json::Value {
    json!({"id": id, "object": "model", "created": 1_700_000_000, "owned_by": "fake"})
}

async fn models(State(server): State<Arc<Server>>, asked: Asked) -> Response {
    let list = async |_: &_, _: &_| {
        Answer::json(200, &json!({"object": "list", "data": MODELS.map(listed)}))
    };
    asked.answer(&server, list).await
}

async fn model(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
    asked: Asked,
) -> Response {
    let one = async |_: &_, _: &_| match MODELS.contains(&id.as_str()) {
        true => Answer::json(200, &listed(&id)),
        false => errors::failure(crate::reply::Failure::Status(404)),
    };
    asked.answer(&server, one).await
}

async fn picture(State(server): State<Arc<Server>>, Path(name): Path<String>) -> Response {
    match pictures::named(&name) {
        Some(png) => sent(Answer::whole(200, "image/png", png)),
        None => sent(server.dialect.refused(404, "no such picture")),
    }
}

async fn nothing(State(server): State<Arc<Server>>, asked: Asked) -> Response {
    let refused = async |_: &_, _: &_| server.dialect.refused(404, "no such route");
    asked.answer(&server, refused).await
}

async fn show_log(State(server): State<Arc<Server>>) -> Response {
    axum::Json(server.log.entries()).into_response()
}

async fn clear_log(State(server): State<Arc<Server>>) {
    server.log.clear();
}
