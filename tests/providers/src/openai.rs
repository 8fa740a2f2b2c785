//! A server that speaks OpenAI's dialect. The model's name is the script:
//!
//! | model | what happens |
//! |---|---|
//! | any other | answers `You said: <last message>`, a word a chunk |
//! | `slow-<ms>` | a word every so many milliseconds, for ever |
//! | `late-<ms>` | the usual answer, after so many milliseconds |
//! | `paced-<ms>` | as any other, a word every so many milliseconds |
//! | `tool` | calls the first tool with `{"city":"Lisbon"}`, in pieces |
//! | `error-<status>` | that status with OpenAI's error body; `error-429` says to wait 7 s |
//! | `error-quota` | 429 `insufficient_quota`, without a wait |
//! | `html-<status>` | that status with a page of HTML |
//! | `silent` | no response headers, ever |
//! | `silent-body` | headers, then nothing |
//! | `stall` | one word, then nothing |
//! | `cut` | two words, then the connection ends without a finish reason |
//! | `error-in-stream` | one word, then an error object |
//! | `no-usage` | an answer without its usage chunk |
//! | `whole` | an answer that is not streamed although a stream was asked |
//!
//! Token counts are words: of all messages in, of the answer out. `GET /_log`
//! shows what was asked, and `aborted` where the caller left in mid-answer.

mod answers;
mod log;

pub use log::Entry;

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::HeaderMap,
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use log::Log;
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, task::JoinHandle};

/// A running server; it stops when this is dropped.
pub struct Fake {
    /// Base URL for `OPENAI_BASE_URL`, with `/v1`.
    pub url: String,
    log: Arc<Log>,
    server: JoinHandle<()>,
}

impl Fake {
    pub fn log(&self) -> Vec<Entry> {
        self.log.entries()
    }

    /// The log as soon as `done` holds for it, or as it is after `patience`.
    pub async fn log_when(
        &self,
        patience: Duration,
        done: impl Fn(&[Entry]) -> bool,
    ) -> Vec<Entry> {
        let waiting = async {
            loop {
                let changed = self.log.changed();
                let entries = self.log.entries();
                if done(&entries) {
                    return entries;
                }
                changed.await;
            }
        };
        let waited = tokio::time::timeout(patience, waiting).await;
        waited.unwrap_or_else(|_| self.log.entries())
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Starts a server on a free port of the loopback interface.
pub async fn start() -> std::io::Result<Fake> {
    start_on(SocketAddr::from(([127, 0, 0, 1], 0))).await
}

pub async fn start_on(address: SocketAddr) -> std::io::Result<Fake> {
    let listener = TcpListener::bind(address).await?;
    let url = format!("http://{}/v1", listener.local_addr()?);
    let log = Arc::new(Log::default());
    let routes = routes(Arc::clone(&log));
    let server = tokio::spawn(async move {
        // A server of tests has nobody to tell; its callers see a closed port.
        let _ = axum::serve(listener, routes).await;
    });
    Ok(Fake { url, log, server })
}

fn routes(log: Arc<Log>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/embeddings", post(embeddings))
        .route("/v1/models", get(models))
        .route("/_log", get(show_log).delete(clear_log))
        .fallback(|| async { answers::error(404, "invalid_request_error", None, "no such route") })
        .layer(middleware::from_fn(authorized))
        .with_state(log)
}

/// Any key will do, but `sk-wrong` and none will not.
async fn authorized(request: Request, next: Next) -> Response {
    let key = request.headers().get("authorization").and_then(|key| key.to_str().ok());
    let open = request.uri().path() == "/_log";
    match key.and_then(|key| key.strip_prefix("Bearer ")) {
        Some(key) if key != "sk-wrong" => next.run(request).await,
        _ if open => next.run(request).await,
        _ => answers::error(
            401,
            "invalid_request_error",
            Some("invalid_api_key"),
            "Incorrect API key provided",
        ),
    }
}

async fn chat(State(log): State<Arc<Log>>, headers: HeaderMap, body: Bytes) -> Response {
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        return answers::error(400, "invalid_request_error", None, "the body is not JSON");
    };
    let entry = log.open("/v1/chat/completions", &headers, request.clone());
    let messages = request["messages"].as_array();
    if messages.is_none_or(Vec::is_empty) {
        return answers::error(400, "invalid_request_error", None, "messages must not be empty");
    }
    answers::chat(&request, entry).await
}

async fn embeddings(State(log): State<Arc<Log>>, headers: HeaderMap, body: Bytes) -> Response {
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        return answers::error(400, "invalid_request_error", None, "the body is not JSON");
    };
    let mut entry = log.open("/v1/embeddings", &headers, request.clone());
    entry.done();
    answers::embeddings(&request)
}

async fn models() -> Response {
    let model = |id: &str| json!({"id": id, "object": "model", "created": 1_700_000_000, "owned_by": "fake"});
    let data = ["gpt-4o-mini", "text-embedding-3-small", "slow-20", "tool"].map(model);
    axum::Json(json!({"object": "list", "data": data})).into_response()
}

async fn show_log(State(log): State<Arc<Log>>) -> Response {
    axum::Json(log.entries()).into_response()
}

async fn clear_log(State(log): State<Arc<Log>>) {
    log.clear();
}
