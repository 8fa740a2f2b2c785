//! The instant provider: OpenAI's chat endpoint with an answer that is ready
//! before the question has been read.
//!
//! `instant` answers at once; `hold` says one word and then only sends a comment
//! now and then, until its caller goes; `flood` sends as fast as it is read,
//! without an end; `pace-<ms>` sends a chunk every so many milliseconds, which
//! says which one it is and when it left.
//!
//! Plain it speaks HTTP/1.1, with a certificate HTTP/2 over TLS, as providers do.
//!
//! Invariant: whether a request is streamed is found by looking for the bytes,
//! not by parsing: this side of a call shall cost as little as can be.

use crate::{Failure, child, stamp::Stamp, tls};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::{Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{convert::Infallible, path::Path, time::Duration};
use tokio::{
    net::TcpListener,
    time::{self, Instant, MissedTickBehavior},
};
use tokio_rustls::TlsAcceptor;

/// How often a silent stream says that it lives; below anybody's idle timer.
const PING: Duration = Duration::from_secs(15);
/// One piece of the flood.
const FLOOD: usize = 16 << 10;

const WORDS: [&str; 8] = ["The", " three", " hops", " of", " this", " call", " were", " measured."];

type Body = BoxBody<Bytes, Infallible>;

/// Until the process ends. `ca`: where its certificate is put, if it shall have
/// one.
pub(crate) async fn serve(ca: Option<&Path>) -> Result<(), Failure> {
    let acceptor = ca.map(tls::acceptor).transpose()?;
    listen(child::listen().await?, acceptor).await
}

pub(crate) async fn listen(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
) -> Result<(), Failure> {
    let (whole, streamed) = (whole(), streamed());
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let (whole, streamed) = (whole.clone(), streamed.clone());
        let service = service_fn(move |request| answer(request, whole.clone(), streamed.clone()));
        let Some(acceptor) = acceptor.clone() else {
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
            continue;
        };
        tokio::spawn(async move {
            let socket = acceptor.accept(socket).await.ok()?;
            let builder = http2::Builder::new(TokioExecutor::new());
            builder.serve_connection(TokioIo::new(socket), service).await.ok()
        });
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
    } else if let Some(pause) = pace(&asked) {
        reply(EVENTS, endless(paced(pause)))
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
        time::sleep(PING).await;
        Some((Bytes::from_static(b": ping\n\n"), ()))
    })
}

/// From the model's name.
fn pace(asked: &[u8]) -> Option<Duration> {
    const NAME: &[u8] = b"\"pace-";
    let at = asked.windows(NAME.len()).position(|window| window == NAME)?;
    let digits = asked[at + NAME.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    let millis = digits.fold(0, |number: u64, digit| number * 10 + u64::from(digit - b'0'));
    (millis > 0).then(|| Duration::from_millis(millis))
}

/// The first chunk at once, the others at times that differ from stream to
/// stream.
fn paced(pause: Duration) -> impl Stream<Item = Bytes> {
    let start = Instant::now() + pause.mul_f64(Stamp::now().part());
    let mut ticks = time::interval_at(start, pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    stream::unfold((ticks, 0), |(mut ticks, number)| async move {
        if number > 0 {
            ticks.tick().await;
        }
        Some((word(&Stamp::now().text(number)), (ticks, number + 1)))
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
