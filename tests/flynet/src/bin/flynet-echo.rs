//! The smallest app that lives on Fly, for the tests of flynet itself.
//!
//! It listens where its variables say, is ready after `ECHO_BOOT_MS`, counts its
//! starts in the directory and on the volume, and answers with what it was sent.
#![expect(clippy::print_stdout, reason = "a log for the tests to read")]

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path as AxumPath, Request, State},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::{fmt::Write as _, fs, io, path::Path, time::Duration};
use tokio::{net::TcpListener, sync::watch, time::Instant};
use tokio_stream::{StreamExt as _, wrappers::IntervalStream};

struct Echo {
    ready_at: Instant,
    /// Streams that are open now.
    open: watch::Sender<usize>,
    starts: String,
    /// Not ready until it is well again.
    sick: AtomicBool,
}

impl Echo {
    fn sick(&self, sick: bool) -> &'static str {
        self.sick.store(sick, Ordering::Relaxed);
        if sick { "sick" } else { "well" }
    }
}

#[expect(clippy::disallowed_methods, reason = "a helper of the tests; reads its settings once")]
fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    if variable("ECHO_BROKEN", "") == "1" {
        return Err(io::Error::other("broken, as told"));
    }
    let starts = [("here", "."), ("volume", &variable("DATA_DIR", "."))]
        .into_iter()
        .map(|(name, directory)| Ok(format!("{name}={}", count(Path::new(directory))?)))
        .collect::<io::Result<Vec<_>>>()?
        .join(" ");
    let boot = Duration::from_millis(variable("ECHO_BOOT_MS", "0").parse().unwrap_or_default());
    let sick = AtomicBool::new(false);
    let echo = Arc::new(Echo {
        ready_at: Instant::now() + boot,
        open: watch::Sender::new(0),
        starts,
        sick,
    });
    let app = Router::new()
        .route("/readyz", get(ready))
        .route("/starts", get(async |State(echo): State<Arc<Echo>>| echo.starts.clone()))
        .route("/open", get(async |State(echo): State<Arc<Echo>>| echo.open.borrow().to_string()))
        .route(
            "/env",
            get(async || fs::read_to_string("/proc/self/environ").map_err(|error| failed(&error))),
        )
        .route("/files", get(async || files().map_err(|error| failed(&error))))
        .route("/ticks", get(ticks))
        .route("/crash", get(crash))
        .route("/exit/{code}", get(exit))
        .route("/sick", get(async |State(echo): State<Arc<Echo>>| echo.sick(true)))
        .route("/well", get(async |State(echo): State<Arc<Echo>>| echo.sick(false)))
        .route("/echo", any(echoed))
        .with_state(echo);
    let host = variable("SKEIN_LISTEN__HOST", "127.0.0.1");
    let port = variable("PORT", "8080");
    let listener = TcpListener::bind(format!("{host}:{port}")).await?;
    println!("listening on {}", listener.local_addr()?);
    let stubborn = variable("ECHO_STUBBORN", "") == "1";
    axum::serve(listener, app).with_graceful_shutdown(told(stubborn)).await
}

/// Ends with this code, without a goodbye to anybody.
#[expect(clippy::exit, reason = "what the tests ask for")]
async fn exit(AxumPath(code): AxumPath<i32>) {
    std::process::exit(code);
}

async fn crash() {
    std::process::abort();
}

/// SIGTERM; a stubborn one hears nothing.
async fn told(stubborn: bool) {
    let signal = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    if let Ok(mut signal) = signal {
        signal.recv().await;
        println!("told to go");
    }
    if stubborn {
        std::future::pending::<()>().await;
    }
}

/// How often this directory has seen a start.
fn count(directory: &Path) -> io::Result<usize> {
    let path = directory.join("starts");
    let before = fs::read_to_string(&path).unwrap_or_default();
    let text = before + "x";
    fs::write(path, &text)?;
    Ok(text.len())
}

async fn ready(State(echo): State<Arc<Echo>>) -> Response {
    if Instant::now() < echo.ready_at {
        return (http::StatusCode::SERVICE_UNAVAILABLE, "booting").into_response();
    }
    if echo.sick.load(Ordering::Relaxed) {
        return (http::StatusCode::SERVICE_UNAVAILABLE, "sick").into_response();
    }
    "ready".into_response()
}

/// Every regular file this process may write, of those it holds open or could:
/// its own directory's, and those of its descriptors.
fn files() -> io::Result<String> {
    let mut found = String::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let Ok(path) = fs::read_link(entry?.path()) else { continue };
        if path.is_file() {
            let _infallible = writeln!(found, "{}", path.display());
        }
    }
    for name in ["starts", "tmp"] {
        let path = std::env::current_dir()?.join(name);
        let _infallible = writeln!(found, "{}", path.display());
    }
    Ok(found)
}

fn failed(error: &io::Error) -> (http::StatusCode, String) {
    (http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

/// A line every 10 ms until the client goes.
async fn ticks(State(echo): State<Arc<Echo>>) -> Body {
    struct Open(watch::Sender<usize>);
    impl Drop for Open {
        fn drop(&mut self) {
            self.0.send_modify(|open| *open -= 1);
        }
    }
    echo.open.send_modify(|open| *open += 1);
    let open = Open(echo.open.clone());
    let ticks = IntervalStream::new(tokio::time::interval(Duration::from_millis(10)));
    Body::from_stream(ticks.map(move |_| {
        let _held = &open;
        Ok::<_, io::Error>(Bytes::from_static(b"tick\n"))
    }))
}

/// Frame by frame, with the request's headers, its version and a trailer.
async fn echoed(request: Request) -> Response {
    let (head, body) = request.into_parts();
    let frames = body.into_data_stream().map(|chunk| chunk.map(Frame::data));
    let mut trailers = HeaderMap::new();
    trailers.insert("x-echo-trailer", HeaderValue::from_static("kept"));
    let last = tokio_stream::once(Ok(Frame::trailers(trailers)));
    let body = StreamBody::new(frames.chain(last)).boxed_unsync();
    let mut response = Response::new(Body::new(body));
    for (name, value) in &head.headers {
        if let Ok(name) = http::HeaderName::try_from(format!("x-got-{name}")) {
            response.headers_mut().append(name, value.clone());
        }
    }
    let version = format!("{:?}", head.version);
    if let Ok(version) = HeaderValue::try_from(version) {
        response.headers_mut().insert("x-got-version", version);
    }
    response
}
