//! Webhooks, received by a server of the test's own.

use crate::raw::{Client, key, request};
use axum::{Router, body::Bytes, http::HeaderMap, http::StatusCode, routing::post};
use providers::replicate;
use std::sync::{Arc, Mutex};
use tokio::{net::TcpListener, sync::Notify};

type Received = Arc<Mutex<Vec<(HeaderMap, serde_json::Value)>>>;

/// Refuses the first request, takes all others.
async fn receiver() -> (String, Received, Arc<Notify>) {
    let received = Received::default();
    let changed = Arc::new(Notify::new());
    let (keep, tell) = (Arc::clone(&received), Arc::clone(&changed));
    let take = move |headers: HeaderMap, body: Bytes| async move {
        let mut received = keep.lock().unwrap();
        received.push((headers, serde_json::from_slice(&body).unwrap()));
        tell.notify_one();
        if received.len() == 1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let routes = Router::new().route("/hook", post(take));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (url, received, changed)
}

#[tokio::test]
async fn each_event_comes_signed_and_again_until_it_is_taken() {
    let fake = replicate::start().await.unwrap();
    let (hook, received, changed) = receiver().await;
    let body = format!(
        r#"{{"input":{{"prompt":"a"}},"webhook":"{hook}","webhook_events_filter":["start","completed"]}}"#
    );
    let asked = request("POST", "/v1/models/acme/run-20/predictions", &key("r8_test"), &body);
    assert_eq!(Client::connect(&fake.url).await.ask(&asked).await.status, 201);
    let all = async {
        while received.lock().unwrap().len() < 3 {
            changed.notified().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), all).await.unwrap();
    let received = received.lock().unwrap();
    let ids: Vec<_> = received.iter().map(|(headers, _)| headers["webhook-id"].clone()).collect();
    assert!(ids[0] == ids[1] && ids[1] != ids[2], "{ids:?}");
    let statuses: Vec<_> =
        received.iter().map(|(_, body)| body["status"].as_str().unwrap()).collect();
    assert_eq!(statuses[2], "succeeded");
    for (headers, _) in received.iter() {
        assert!(headers["webhook-signature"].to_str().unwrap().starts_with("v1,"));
    }
}
