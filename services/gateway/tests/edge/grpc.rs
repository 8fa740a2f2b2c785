//! gRPC and gRPC-Web, forwarded without being decoded.

use crate::{
    client::{Http, full, h1, h2, send},
    fakes::{self, Seen},
    world::{self, ROOT, Running},
};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::Method;
use http_body_util::BodyExt as _;
use mesh::error;
use prost::Message as _;
use skein_proto::{
    admin::v1::admin_service_client::AdminServiceClient,
    model::v1::{
        EmbedInput, EmbedRequest, EmbedResponse, GenerateRequest, GenerateResponse, embed_input,
        generate_response::Event, model_service_client::ModelServiceClient,
    },
    retrieval::v1::{SearchRequest, retrieval_service_client::RetrievalServiceClient},
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, service::Routes};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

pub(crate) fn bearer<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    request
}

pub(crate) fn admin(running: &Running, client: Http) -> AdminServiceClient<Http> {
    AdminServiceClient::with_origin(client, running.uri("").parse().unwrap())
}

pub(crate) fn models(running: &Running) -> ModelServiceClient<Http> {
    ModelServiceClient::with_origin(h2(), running.uri("").parse().unwrap())
}

pub(crate) fn generate(model: &str) -> GenerateRequest {
    GenerateRequest { model: model.into(), ..GenerateRequest::default() }
}

pub(crate) fn embed() -> EmbedRequest {
    let input = EmbedInput { input: Some(embed_input::Input::Text("a".into())) };
    EmbedRequest { model: "m".into(), inputs: vec![input], ..EmbedRequest::default() }
}

#[tokio::test]
async fn unary_and_streaming_calls_pass_with_our_token_and_not_the_clients_key() {
    let running = world::start(&[]).await;
    let mut client = models(&running);
    let mut request = bearer(ROOT, embed());
    request.metadata_mut().insert("x-skein-token", "forged".parse().unwrap());
    request.metadata_mut().insert("fly-region", "mars".parse().unwrap());
    request.metadata_mut().insert("x-mine", "kept".parse().unwrap());
    let response = client.embed(request).await.unwrap();
    assert!(response.metadata().get("x-request-id").is_some());
    assert_eq!(response.into_inner().embeddings.len(), 1);
    {
        let seen = running.seen.metadata.lock().unwrap();
        assert!(seen.get("authorization").is_none() && seen.get("fly-region").is_none());
        assert_ne!(seen.get("x-skein-token").unwrap(), "forged");
        assert_eq!(seen.get("x-mine").unwrap(), "kept");
        assert!(seen.get("grpc-timeout").is_some());
    }
    let mut events = client.generate(bearer(ROOT, generate("hello"))).await.unwrap().into_inner();
    let mut texts = 0;
    while let Some(response) = events.message().await.unwrap() {
        texts += usize::from(matches!(response.event, Some(Event::Delta(_))));
    }
    assert_eq!(texts, 2);
    assert_eq!(&*running.seen.call.lock().unwrap().clone().unwrap().tenant, "acme");
}

#[tokio::test]
async fn errors_keep_their_details_before_and_inside_a_stream() {
    let running = world::start(&[]).await;
    let mut client = models(&running);
    let refused = client.generate(bearer(ROOT, generate("none"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(error::reason(&refused).as_deref(), Some("MODEL_NOT_FOUND"));
    let mut events = client.generate(bearer(ROOT, generate("breaks"))).await.unwrap().into_inner();
    let broken = loop {
        match events.message().await {
            Ok(event) => assert!(event.is_some(), "ended without a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(error::reason(&broken).as_deref(), Some("UNAVAILABLE"));
    let nobody = client.embed(embed()).await.unwrap_err();
    assert_eq!(nobody.code(), Code::Unauthenticated);
    assert_eq!(error::reason(&nobody).as_deref(), Some("API_KEY_MISSING"));
}

#[tokio::test]
async fn a_deadline_ends_a_stream() {
    let running = world::start(&[]).await;
    let mut request = bearer(ROOT, generate("hangs"));
    request.set_timeout(Duration::from_millis(300));
    let began = Instant::now();
    let mut events = models(&running).generate(request).await.unwrap().into_inner();
    let mut cancelled = running.seen.cancelled.subscribe();
    let ended = loop {
        match events.message().await {
            Ok(event) => assert!(event.is_some(), "ended without a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::DeadlineExceeded);
    assert!(began.elapsed() >= Duration::from_millis(290));
    cancelled.wait_for(|count| *count == 1).await.unwrap();
}

#[tokio::test]
async fn a_grpc_client_that_leaves_cancels_the_call_behind() {
    let running = world::start(&[]).await;
    let mut events =
        models(&running).generate(bearer(ROOT, generate("hangs"))).await.unwrap().into_inner();
    assert!(events.message().await.unwrap().is_some());
    drop(events);
    running.seen.cancelled.subscribe().wait_for(|count| *count == 1).await.unwrap();
}

#[tokio::test]
async fn what_is_not_public_is_unimplemented() {
    let running = world::start(&[]).await;
    for path in [
        "/skein.model.v1.ModelService/Nope",
        "/skein.model.v1.UsageService/ReportUsage",
        "/skein.mesh.v1.PeerService/Status",
        "/no.such.Service/Call",
    ] {
        let headers = [("content-type", "application/grpc")];
        let request = running.request(Method::POST, path, &headers, Bytes::from_static(&[0; 5]));
        let answer = send(&h2(), request).await;
        assert_eq!((answer.status.as_u16(), answer.header("grpc-status")), (200, "12"), "{path}");
        assert!(!answer.header("grpc-status-details-bin").is_empty());
    }
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused() {
    let running = world::start(&[]).await;
    let large = "x".repeat(41 << 20);
    let input = EmbedInput { input: Some(embed_input::Input::Text(large.clone())) };
    let embed = EmbedRequest { inputs: vec![input], ..embed() };
    let refused = models(&running).embed(bearer(ROOT, embed)).await.unwrap_err();
    assert_eq!(error::reason(&refused).as_deref(), Some("MESSAGE_TOO_LARGE"), "{refused:?}");
    let generate = GenerateRequest { extra_json: large, ..generate("hello") };
    let refused = models(&running).generate(bearer(ROOT, generate)).await.unwrap_err();
    assert_eq!(error::reason(&refused).as_deref(), Some("MESSAGE_TOO_LARGE"), "{refused:?}");
}

#[tokio::test]
async fn no_retrieval_is_an_error_that_names_it() {
    let running = world::start(&[]).await;
    let origin = running.uri("").parse().unwrap();
    let mut client = RetrievalServiceClient::with_origin(h2(), origin);
    let missing = client.search(bearer(ROOT, SearchRequest::default())).await.unwrap_err();
    assert_eq!(missing.code(), Code::Unavailable);
    assert!(missing.message().contains("skein-retrieval"), "{}", missing.message());
}

#[tokio::test]
async fn a_peer_that_goes_away_is_a_status_not_a_reset() {
    let keys = mesh::keys::generate(&["gateway", "router", "retrieval"]).unwrap();
    let (seen, stop) = (Arc::new(Seen::default()), CancellationToken::new());
    // A router whose process ends: its own runtime, shut down in mid-stream.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.unwrap();
    let (send_addr, addr) = tokio::sync::oneshot::channel();
    let (keys, there) = (Arc::new(keys), Arc::clone(&seen));
    runtime.spawn({
        let (keys, stop) = (Arc::clone(&keys), stop.clone());
        async move {
            let routes = fakes::Models(there);
            let service =
                skein_proto::model::v1::model_service_server::ModelServiceServer::new(routes);
            let _ =
                send_addr.send(fakes::private("router", Routes::new(service), &keys, stop).await);
        }
    });
    let peers = [("router", addr.await.unwrap())];
    let running = world::start_with(&[], &keys, seen, &peers, stop).await;
    let mut events =
        models(&running).generate(bearer(ROOT, generate("hangs"))).await.unwrap().into_inner();
    assert!(events.message().await.unwrap().is_some());
    runtime.shutdown_background();
    let lost = loop {
        match events.message().await {
            Ok(event) => assert!(event.is_some(), "ended without a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(
        (lost.code(), error::reason(&lost).as_deref()),
        (Code::Unavailable, Some("CONNECTION_LOST"))
    );
}

fn frame(message: &impl prost::Message) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut frame).unwrap();
    frame.freeze()
}

fn frames(mut body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = body.split_at_checked(5) {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        frames.push((head[0], rest[..length].to_vec()));
        body = &rest[length..];
    }
    frames
}

#[tokio::test]
async fn grpc_web_over_http_1() {
    let running = world::start(&[]).await;
    let headers = [("content-type", "application/grpc-web+proto")];
    let post = |path: &str, body: Bytes| running.request(Method::POST, path, &headers, body);
    let answer = send(&h1(), post("/skein.model.v1.ModelService/Embed", frame(&embed()))).await;
    assert_eq!(answer.header("content-type"), "application/grpc-web+proto");
    let parts = frames(&answer.body);
    assert_eq!(EmbedResponse::decode(&*parts[0].1).unwrap().embeddings.len(), 1);
    let trailers = String::from_utf8(parts[1].1.clone()).unwrap();
    assert!(parts[1].0 == 0x80 && trailers.contains("grpc-status:0"), "{trailers:?}");
    let path = "/skein.model.v1.ModelService/Generate";
    let answer = send(&h1(), post(path, frame(&generate("breaks")))).await;
    let parts = frames(&answer.body);
    assert!(GenerateResponse::decode(&*parts[0].1).unwrap().event.is_some());
    let trailers = String::from_utf8(parts.last().unwrap().1.clone()).unwrap();
    assert!(trailers.contains("grpc-status:14"), "{trailers:?}");
}

#[tokio::test]
async fn health_and_reflection_need_no_key() {
    let running = world::start(&[]).await;
    let origin: http::Uri = running.uri("").parse().unwrap();
    let mut health = HealthClient::with_origin(h2(), origin.clone());
    let answer = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.status, 1);
    let mut reflection = ServerReflectionClient::with_origin(h2(), origin);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = reflection
        .server_reflection_info(futures_util::stream::iter([ask]))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in
        ["skein.agent.v1.AgentService", "skein.admin.v1.AdminService", "grpc.health.v1.Health"]
    {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[tokio::test]
async fn a_stop_lets_an_open_stream_finish() {
    let mut running = world::start(&[]).await;
    let body = serde_json::json!({"model": "waits", "stream": true,
        "messages": [{"role": "user", "content": "x"}]});
    let request = running.post("/v1/chat/completions", body.to_string());
    let mut response = h1().request(request).await.unwrap();
    assert!(response.frame().await.unwrap().unwrap().is_data());
    running.stop.cancel();
    running.seen.go_on.notify_one();
    let rest = response.into_body().collect().await.unwrap().to_bytes();
    assert!(rest.ends_with(b"data: [DONE]\n\n"));
    (&mut running.served).await.unwrap().unwrap();
    let refused =
        h1().request(http::Request::get(running.uri("/healthz")).body(full("")).unwrap()).await;
    assert!(refused.is_err());
}
