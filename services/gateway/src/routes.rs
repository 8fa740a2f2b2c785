//! Which path leads where, on one port.
//!
//! Invariants:
//! - Whatever says `content-type: application/grpc…` gets gRPC's answers, all
//!   else OpenAI's; so every client understands its refusal.
//! - Health and reflection answer without a key; nothing else does.

use crate::{
    admin::Admin, chat, door, draw, edge, embed, forward, gateway::Gateway, listing,
    openai::error::Refusal,
};
use axum::{
    Router,
    extract::{Request, State},
    middleware,
    response::{IntoResponse as _, Response},
    routing::{MethodRouter, get, post},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use mesh::{deadline::DeadlineLayer, health};
use skein_proto::{DESCRIPTORS, admin::v1::admin_service_server::AdminServiceServer};
use std::time::Duration;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer as _, ServiceExt as _};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

type Reflection = tonic_reflection::server::Error;

pub fn routes(
    gateway: Gateway,
    cors_origins: &[String],
    max_deadline: Duration,
) -> Result<Router, Reflection> {
    let grpc = GrpcWebLayer::new().layer(grpc(gateway.clone(), max_deadline)?);
    // Work comes in through the door; a wrong method is told without it.
    let work = |route: MethodRouter<Gateway>| {
        route.route_layer(middleware::from_fn_with_state(gateway.clone(), door::openai))
    };
    let app = Router::new()
        .route("/v1/chat/completions", work(post(chat::complete)).fallback(only_post))
        .route("/v1/embeddings", work(post(embed::embed)).fallback(only_post))
        .route("/v1/images/generations", work(post(draw::draw)).fallback(only_post))
        .route("/v1/models", work(get(listing::all)).fallback(only_get))
        .route("/v1/models/{*id}", work(get(listing::one)).fallback(only_get))
        .route("/healthz", get(|| async { "ok\n" }).fallback(only_get))
        .route("/readyz", get(readyz).fallback(only_get))
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(grpc, split))
        .layer(middleware::from_fn_with_state(gateway.clone(), edge::edge))
        .with_state(gateway);
    if cors_origins.is_empty() {
        return Ok(app);
    }
    Ok(app.layer(cors(cors_origins)))
}

/// The gRPC side: what is served here, and everything else to be forwarded.
fn grpc(gateway: Gateway, max_deadline: Duration) -> Result<Router, Reflection> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let admin = AdminServiceServer::new(Admin::new(gateway.clone()));
    Ok(Router::new()
        .route_service("/skein.admin.v1.AdminService/{*method}", admin)
        .route_layer(middleware::from_fn_with_state(gateway.clone(), forward::require_admin))
        .fallback(forward::forward)
        .route_service("/grpc.reflection.v1.ServerReflection/{*method}", reflection().build_v1()?)
        .route_service(
            "/grpc.reflection.v1alpha.ServerReflection/{*method}",
            reflection().build_v1alpha()?,
        )
        .layer(DeadlineLayer { max: max_deadline })
        .route_service(
            "/grpc.health.v1.Health/{*method}",
            health::service(gateway.readiness.clone()),
        )
        .with_state(gateway))
}

/// Takes the gRPC calls out of the stream of requests.
async fn split(
    State(grpc): State<GrpcWebService<Router>>,
    request: Request,
    next: middleware::Next,
) -> Response {
    let media_type = request.headers().get(header::CONTENT_TYPE);
    let media_type = media_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !media_type.starts_with("application/grpc") {
        return next.run(request).await;
    }
    let web = media_type.starts_with("application/grpc-web");
    if !web && request.version() != Version::HTTP_2 {
        let message = "gRPC needs HTTP/2 (h2c without TLS); over HTTP/1.1 use gRPC-Web".to_owned();
        let status = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
        return Refusal::new(status, "invalid_request_error", "http2_required", message)
            .into_response();
    }
    match grpc.oneshot(request).await {
        Ok(response) => response.map(axum::body::Body::new),
        Err(never) => match never {},
    }
}

async fn only_post(request: Request) -> Refusal {
    Refusal::wrong_method(request.method(), request.uri().path(), "POST")
}

async fn only_get(request: Request) -> Refusal {
    Refusal::wrong_method(request.method(), request.uri().path(), "GET, HEAD")
}

async fn unknown(request: Request) -> Refusal {
    let path = request.uri().path();
    if mesh::methods::method(path).is_some() {
        let found = request.headers().get(header::CONTENT_TYPE);
        let found = found.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let message =
            format!("{path} is gRPC: content-type must be application/grpc, is {found:?}");
        return Refusal { message: message.into(), ..Refusal::media_type(found) };
    }
    Refusal::unknown_route(request.method(), path)
}

async fn readyz(State(gateway): State<Gateway>) -> Response {
    let (ready, body) = gateway.peer.readyz();
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, axum::Json(body)).into_response()
}

fn cors(origins: &[String]) -> CorsLayer {
    let allow = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::from(Any)
    } else {
        let parse = |origin: &String| HeaderValue::from_str(origin).ok();
        AllowOrigin::list(origins.iter().filter_map(parse))
    };
    let exposed = [
        "grpc-status",
        "grpc-message",
        "grpc-status-details-bin",
        "retry-after",
        "idempotent-replayed",
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
        "x-request-id",
        "x-skein-region",
        "x-skein-provider",
        "x-skein-model",
        "x-skein-cost-usd",
        "x-skein-cache",
        "x-skein-degraded",
    ];
    CorsLayer::new()
        .allow_origin(allow)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(Any)
        .expose_headers(exposed.map(HeaderName::from_static))
        .max_age(Duration::from_secs(600))
}
