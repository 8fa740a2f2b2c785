//! What the edge adds to and takes from the headers that pass it.

use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version, header, request};
use std::net::{IpAddr, SocketAddr};

/// What the edge tells a machine about a request.
pub(super) struct Told<'a> {
    pub(super) id: &'a str,
    pub(super) region: &'a str,
    pub(super) port: u16,
    pub(super) client: IpAddr,
}

/// The head of a request, as a machine at `host` gets it.
pub(super) fn onward(
    head: &request::Parts,
    host: SocketAddr,
    h2: bool,
    told: &Told<'_>,
) -> Result<request::Builder, http::Error> {
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    // HTTP/2 has no host header: what the client called us stays visible to the app
    let called = head.uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
    let uri = Uri::builder().scheme("http").authority(host.to_string());
    let uri = uri.path_and_query(path).build()?;
    let mut headers = head.headers.clone();
    drop_hop_by_hop(&mut headers);
    let fly: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("fly-")).cloned().collect();
    for name in fly {
        headers.remove(name);
    }
    if let (Some(called), false) = (called, headers.contains_key(header::HOST)) {
        headers.insert(header::HOST, called);
    }
    let (port, ip) = (told.port.to_string(), told.client.to_string());
    let proto = [("x-forwarded-proto", "http"), ("x-forwarded-port", &port)];
    let fly = [("fly-client-ip", ip.as_str()), ("fly-forwarded-port", &port)];
    for (name, value) in proto.into_iter().chain(fly).chain([("fly-region", told.region)]) {
        headers.insert(name, HeaderValue::from_str(value)?);
    }
    headers.append("x-forwarded-for", HeaderValue::from_str(&ip)?);
    mark(&mut headers, told.id, head.version);
    let version = if h2 { Version::HTTP_2 } else { Version::HTTP_11 };
    let mut builder = request::Builder::new().method(head.method.clone()).uri(uri).version(version);
    if let Some(ours) = builder.headers_mut() {
        *ours = headers;
    }
    Ok(builder)
}

pub(super) fn mark(headers: &mut HeaderMap, id: &str, version: Version) {
    let via = if version == Version::HTTP_2 { "2 fly.io" } else { "1.1 fly.io" };
    headers.append(header::VIA, HeaderValue::from_static(via));
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert("fly-request-id", id);
    }
}

/// `te: trailers` stays: gRPC needs it.
pub(super) fn drop_hop_by_hop(headers: &mut HeaderMap) {
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        headers.remove(name);
    }
}
