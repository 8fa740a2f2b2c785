//! The instant provider: OpenAI's chat endpoint with an answer that is ready
//! before the question has been read.
//!
//! Three models: `instant` answers at once; `hold` says one word and then only
//! sends a comment now and then, until its caller goes; `flood` sends as fast as
//! it is read, without an end.
//!
//! Invariant: whether a request is streamed is found by looking for the bytes,
//! not by parsing: this side of a call shall cost as little as can be.

use crate::{Failure, child};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::{Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, time::Duration};

/// How often a silent stream says that it lives; below anybody's idle timer.
const PING: Duration = Duration::from_secs(15);
/// One piece of the flood.
const FLOOD: usize = 16 << 10;

const WORDS: [&str; 8] = ["The", " three", " hops", " of", " this", " call", " were", " measured."];

type Body = BoxBody<Bytes, Infallible>;

pub(crate) async fn serve() -> Result<(), Failure> {
    let listener = child::listen().await?;
    let (whole, streamed) = (whole(), streamed());
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let (whole, streamed) = (whole.clone(), streamed.clone());
        let service = service_fn(move |request| answer(request, whole.clone(), streamed.clone()));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
    }
}

async fn answer(
    request: Request<Incoming>,
    whole: Bytes,
    streamed: Bytes,
) -> Result<Response<Body>, hyper::Error> {
    if request.uri().path().ends_with("/models") {
        return Ok(reply("application/json", full(models())));
    }
    let asked = request.into_body().collect().await?.to_bytes();
    let has = |text: &str| asked.windows(text.len()).any(|window| window == text.as_bytes());
    const EVENTS: &str = "text/event-stream";
    Ok(if has("\"hold\"") {
        reply(EVENTS, endless(stream::once(async { word("held") }).chain(pings())))
    } else if has("\"flood\"") {
        let piece = word(&"x".repeat(FLOOD));
        reply(EVENTS, endless(stream::repeat(piece)))
    } else if has("\"stream\":true") || has("\"stream\": true") {
        reply(EVENTS, full(streamed))
    } else {
        reply("application/json", full(whole))
    })
}

fn reply(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).boxed()
}

fn endless(pieces: impl Stream<Item = Bytes> + Send + Sync + 'static) -> Body {
    BodyExt::boxed(StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece)))))
}

fn pings() -> impl Stream<Item = Bytes> {
    stream::unfold((), |()| async {
        tokio::time::sleep(PING).await;
        Some((Bytes::from_static(b": ping\n\n"), ()))
    })
}

fn models() -> Bytes {
    let model = |id| serde_json::json!({"id": id, "object": "model", "owned_by": "bench"});
    let data = ["instant", "hold", "flood"].map(model);
    serde_json::json!({"object": "list", "data": data}).to_string().into()
}

fn usage() -> serde_json::Value {
    serde_json::json!({"prompt_tokens": 90, "completion_tokens": 8, "total_tokens": 98})
}

fn whole() -> Bytes {
    let message = serde_json::json!({"role": "assistant", "content": WORDS.concat()});
    let choice = serde_json::json!({"index": 0, "message": message, "finish_reason": "stop"});
    let answer = serde_json::json!({
        "id": "chatcmpl-bench", "object": "chat.completion", "created": 1, "model": "instant",
        "choices": [choice], "usage": usage(),
    });
    answer.to_string().into()
}

fn streamed() -> Bytes {
    let pieces: Vec<_> = WORDS.iter().map(|text| word(text)).collect();
    let mut all = pieces.concat();
    let end = serde_json::json!({"index": 0, "delta": {}, "finish_reason": "stop"});
    all.extend(chunk(&[end], None));
    all.extend(chunk(&[], Some(&usage())));
    all.extend(b"data: [DONE]\n\n");
    all.into()
}

fn word(text: &str) -> Bytes {
    let delta = serde_json::json!({"role": "assistant", "content": text});
    chunk(&[serde_json::json!({"index": 0, "delta": delta, "finish_reason": null})], None)
}

fn chunk(choices: &[serde_json::Value], usage: Option<&serde_json::Value>) -> Bytes {
    let chunk = serde_json::json!({
        "id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1,
        "model": "instant", "choices": choices, "usage": usage,
    });
    format!("data: {chunk}\n\n").into()
}
