//! What every route does: read, log, check the key, look up the script, answer.
//!
//! Invariants:
//! - Every request is logged before anything is decided about it.
//! - A scripted reply comes even where the request is wrong: it stands for a
//!   provider that did not get so far.

use crate::{
    answer::{Answer, Content},
    dialect::Dialect,
    limits::{Left, Limits},
    log::{self, Log, Open},
    replay,
    reply::{Base, Edit, Failure, Reply, Say},
    script::{self, Scripts},
    step::{self, End},
    wire::Conn,
};
use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{FromRef, FromRequest, MatchedPath, Request},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use serde_json::Value;
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

/// Largest body of a request that is read.
const MAX_BODY: usize = 128 << 20;

pub(crate) struct Server {
    pub(crate) dialect: Dialect,
    /// Where it listens, without a path.
    pub(crate) origin: OnceLock<String>,
    pub(crate) log: Arc<Log>,
    pub(crate) scripts: Scripts,
    pub(crate) limits: Limits,
    requests: AtomicU64,
}

impl Server {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            origin: OnceLock::new(),
            log: Arc::default(),
            scripts: Scripts::default(),
            limits: Limits::default(),
            requests: AtomicU64::new(0),
        }
    }

    pub(crate) fn origin(&self) -> &str {
        self.origin.get().map_or("", String::as_str)
    }
}

/// Tells the connection to end without an answer.
#[derive(Clone)]
pub(crate) struct Broken(pub(crate) End, pub(crate) Bytes);

/// What was asked for, with the whole path.
#[derive(Clone)]
pub(crate) struct Target(pub(crate) Uri);

/// A request that is logged and may be answered.
pub(crate) struct Asked {
    /// Null where the body is no JSON.
    pub(crate) request: Arc<Value>,
    pub(crate) body: Bytes,
    pub(crate) headers: HeaderMap,
    pub(crate) path: Arc<str>,
    pub(crate) query: String,
    pub(crate) model: Arc<str>,
    route: Option<MatchedPath>,
    key: Option<Arc<str>>,
    number: u64,
    left: Left,
    open: Open,
    conn: Arc<Conn>,
}

impl<S: Sync> FromRequest<S> for Asked
where
    Arc<Server>: FromRef<S>,
{
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let server = Arc::<Server>::from_ref(state);
        let dialect = server.dialect;
        let (mut parts, body) = request.into_parts();
        let refused = |why| sent(dialect.refused(400, why));
        let body = to_bytes(body, MAX_BODY).await.map_err(|_| refused("the body broke off"))?;
        let conn = parts.extensions.remove::<Arc<Conn>>();
        let conn = conn.ok_or_else(|| refused("no connection"))?;
        let target = parts.extensions.remove::<Target>();
        let uri = target.map_or(parts.uri, |Target(whole)| whole);
        let path: Arc<str> = uri.path().into();
        let route = parts.extensions.remove::<MatchedPath>();
        let request = Arc::new(serde_json::from_slice(&body).unwrap_or(Value::Null));
        let model: Arc<str> = dialect.model(&path, &request).into();
        let key: Option<Arc<str>> = dialect.key(&parts.headers).map(Arc::from);
        let open = server.log.open(log::Record {
            method: parts.method,
            path: Arc::clone(&path),
            model: Arc::clone(&model),
            key: key.clone(),
            headers: parts.headers.clone(),
            body: Arc::clone(&request),
            connection: conn.id,
        });
        let left = server.limits.take(key.as_deref().unwrap_or_default());
        let number = server.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let query = uri.query().unwrap_or_default().to_owned();
        let headers = parts.headers;
        Ok(Self {
            request,
            body,
            headers,
            path,
            query,
            model,
            route,
            key,
            number,
            left,
            open,
            conn,
        })
    }
}

impl Asked {
    /// Answers with what the script says, or with `usual`.
    pub(crate) async fn answer(
        self,
        server: &Server,
        usual: impl AsyncFnOnce(&Self, &Say) -> Answer,
    ) -> Response {
        let queued = |reply: &Reply| !self.is_beside_stream(server, reply);
        let names = [&*self.model, &*self.path, self.route(), "*"];
        let reply = server.scripts.take(&names, queued);
        let named = || script::named(&self.model).filter(queued);
        let drawn = || server.scripts.drawn(queued);
        let reply = reply.or_else(named).or_else(drawn).unwrap_or_default();
        self.perform(server, reply, usual).await
    }

    fn route(&self) -> &str {
        self.route.as_ref().map_or(&*self.path, MatchedPath::as_str)
    }

    /// Replicate answers a create with JSON; what shapes a stream is for the
    /// request that follows.
    fn is_beside_stream(&self, server: &Server, reply: &Reply) -> bool {
        let is_stream = self.route().contains("/streams/");
        match server.dialect {
            Dialect::Replicate => reply.is_of_stream() != is_stream,
            Dialect::OpenAi | Dialect::Anthropic => false,
        }
    }

    async fn perform(
        mut self,
        server: &Server,
        reply: Reply,
        usual: impl AsyncFnOnce(&Self, &Say) -> Answer,
    ) -> Response {
        let dialect = server.dialect;
        // The caller's leaving drops this future and with it the open entry.
        if !reply.late.is_zero() {
            tokio::time::sleep(reply.late).await;
        }
        let answer = match reply.base {
            Base::Silence => std::future::pending().await,
            Base::Broken(end) => return self.broken(end, Bytes::new()),
            Base::Raw(bytes) => return self.broken(End::Close, bytes),
            Base::Failure(failure) => dialect.failure(failure),
            Base::Body { status, kind, body } => Answer::whole(status, kind, body),
            Base::Recording(recording) => Answer::recorded(&replay::stream(dialect, &recording)),
            Base::Usual if self.key.as_deref().is_none_or(|key| key.ends_with("-wrong")) => {
                dialect.failure(Failure::Status(401))
            }
            Base::Usual if !self.left.granted => {
                dialect.failure(Failure::Status(429)).header("retry-after", "60")
            }
            Base::Usual => usual(&self, &reply.say).await,
        };
        let answer = answer.edited(&reply.edits, dialect);
        let own = dialect.headers(self.number, self.left);
        let flush = reply.edits.iter().any(|edit| matches!(edit, Edit::Cut(_)));
        let body = match answer.content {
            Content::Whole(body) => {
                self.open.piece();
                self.open.done();
                Body::from(body)
            }
            Content::Steps(steps) => step::play(steps, flush, self.open, self.conn),
        };
        let mut response = respond(answer.status, own, answer.headers, body);
        set(response.headers_mut(), reply.headers);
        response
    }

    fn broken(mut self, end: End, bytes: Bytes) -> Response {
        self.open.done();
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(Broken(end, bytes));
        response
    }
}

fn respond(status: u16, own: HeaderMap, headers: Vec<(String, String)>, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = own;
    set(response.headers_mut(), headers);
    response
}

/// Later headers replace earlier ones of the same name.
fn set(all: &mut HeaderMap, headers: Vec<(String, String)>) {
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            all.insert(name, value);
        }
    }
}

/// An answer that no script changes.
pub(crate) fn sent(answer: Answer) -> Response {
    let body = match answer.content {
        Content::Whole(body) => Body::from(body),
        Content::Steps(_) => Body::empty(),
    };
    respond(answer.status, HeaderMap::new(), answer.headers, body)
}
