//! The least of a client: hyper's, over HTTP/1.1 or h2c.

use crate::world::{ROOT, Running};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tonic::body::Body;

pub(crate) type Http = Client<HttpConnector, Body>;

pub(crate) fn h1() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

pub(crate) fn h2() -> Http {
    Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Whether the body came to a clean end.
    pub(crate) whole: bool,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) fn full(body: impl Into<Bytes>) -> Body {
    Body::new(Full::new(body.into()))
}

impl Running {
    pub(crate) fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) fn post(&self, path: &str, body: impl Into<Bytes>) -> Request<Body> {
        self.request(Method::POST, path, &[], body)
    }

    /// With the key of all scopes and JSON's media type, unless `headers` say
    /// otherwise; an empty value leaves a header out.
    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: impl Into<Bytes>,
    ) -> Request<Body> {
        let mut request = Request::builder().method(method).uri(self.uri(path));
        let all = request.headers_mut().unwrap();
        all.insert("authorization", format!("Bearer {ROOT}").parse().unwrap());
        all.insert("content-type", "application/json".parse().unwrap());
        for (name, value) in headers {
            if value.is_empty() {
                all.remove(*name);
            } else {
                all.insert(*name, value.parse().unwrap());
            }
        }
        request.body(full(body)).unwrap()
    }

    /// The status of listing the models with the key `secret`.
    pub(crate) async fn models_status(&self, secret: &str) -> u16 {
        let authorization = format!("Bearer {secret}");
        let headers = [("authorization", authorization.as_str())];
        let request = self.request(Method::GET, "/v1/models", &headers, "");
        send(&h1(), request).await.status.as_u16()
    }

    pub(crate) async fn chat(&self, body: Value) -> Answer {
        send(&h1(), self.post("/v1/chat/completions", body.to_string())).await
    }
}

pub(crate) async fn send(client: &Http, request: Request<Body>) -> Answer {
    let (head, mut body) = client.request(request).await.unwrap().into_parts();
    let (mut all, mut whole) = (Vec::new(), true);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => all.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
            Err(_) => {
                whole = false;
                break;
            }
        }
    }
    Answer { status: head.status, headers: head.headers, whole, body: all.into() }
}
