//! Pictures that come as data and are wanted as URLs.

use crate::images::{PNG, ask, collect, url, with_openai};
use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
    routing::put,
};
use mesh::error;
use skein_proto::model::v1::{GenerateImageRequest, ImageDelivery};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use tonic::Code;

/// An S3-compatible storage, as far as pictures need it.
type Objects = Arc<Mutex<BTreeMap<String, (String, Bytes)>>>;

async fn storage() -> (String, Objects) {
    let objects = Objects::default();
    let store = |State(objects): State<Objects>,
                 path: Path<String>,
                 headers: HeaderMap,
                 body: Bytes| async move {
        let word = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if !word("authorization").unwrap_or_default().contains("Credential=tid_test/") {
            return Err(StatusCode::FORBIDDEN);
        }
        let kind = word("content-type").unwrap_or_default().to_owned();
        objects.lock().unwrap().insert(path.0, (kind, body));
        Ok([("etag", "\"1\"")])
    };
    let show = |State(objects): State<Objects>, path: Path<String>, uri: Uri| async move {
        let signed = uri.query().unwrap_or_default().contains("X-Amz-Signature=");
        let found = objects.lock().unwrap().get(&path.0).cloned();
        let (kind, body) = found.filter(|_| signed).ok_or(StatusCode::FORBIDDEN)?;
        Ok::<_, StatusCode>(([("content-type", kind)], body))
    };
    let routes = Router::new().route("/{*path}", put(store).get(show));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = routes.with_state(Arc::clone(&objects));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, objects)
}

#[tokio::test]
async fn data_becomes_a_url_where_there_is_a_storage() {
    let (url_of_storage, objects) = storage().await;
    let bucket = [
        ("BUCKET_NAME", "pictures"),
        ("AWS_ENDPOINT_URL_S3", url_of_storage.as_str()),
        ("AWS_ACCESS_KEY_ID", "tid_test"),
        ("AWS_SECRET_ACCESS_KEY", "tsec_test"),
    ];
    let (_fake, proxy) = with_openai(&bucket).await;
    let wanted = || GenerateImageRequest {
        delivery: ImageDelivery::Url.into(),
        ..ask("openai/gpt-image-2")
    };
    let drawn = collect(&proxy, wanted()).await.unwrap();
    let given = url(&drawn.images[0]).unwrap();
    assert!(given.starts_with(&url_of_storage) && given.contains("/pictures/images/"), "{given}");
    assert!(given.contains("X-Amz-Expires=3600") && !given.contains("tsec_test"), "{given}");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(given).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "image/png");
    assert!(answer.bytes().await.unwrap().starts_with(PNG));
    assert_eq!(objects.lock().unwrap().len(), 1);

    // A key that the storage refuses: the error names neither it nor the answer.
    let mut refused = bucket;
    refused[2] = ("AWS_ACCESS_KEY_ID", "tid_other");
    let (_fake, proxy) = with_openai(&refused).await;
    let status = collect(&proxy, wanted()).await.unwrap_err();
    assert_eq!(error::reason(&status).as_deref(), Some("OBJECT_STORE_FAILED"));
    assert!(!status.message().contains("tid_other"), "{}", status.message());
}

#[tokio::test]
async fn without_a_storage_a_url_is_refused_before_it_is_paid_for() {
    let (fake, proxy) = with_openai(&[]).await;
    let delivery = ImageDelivery::Url.into();
    let request = GenerateImageRequest { delivery, ..ask("openai/gpt-image-2") };
    let status = collect(&proxy, request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("BUCKET_NAME"), "{}", status.message());
    assert!(fake.log().is_empty());
}
