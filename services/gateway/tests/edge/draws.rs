//! `POST /v1/images/generations`, when all goes well and when it does not.

use crate::{
    client::{Answer, h1, send},
    grpc::{bearer, models},
    world::{self, ROOT, Running},
};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use skein_proto::model::v1::{GenerateImageRequest, ImageDelivery, generate_image_response::Event};
use tonic::Code;

const PATH: &str = "/v1/images/generations";
/// `whole` in base64.
const WHOLE: &str = "d2hvbGU=";

fn body(model: &str, more: &Value) -> String {
    let mut body = json!({"model": model, "prompt": "a goose"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body.to_string()
}

async fn draw(running: &Running, model: &str, more: &Value) -> Answer {
    send(&h1(), running.post(PATH, body(model, more))).await
}

#[tokio::test]
async fn a_picture_comes_in_openais_shape_and_says_what_it_cost() {
    let running = world::start(&[]).await;
    let more = json!({"n": 1, "response_format": "b64_json", "user": "u"});
    let answer = draw(&running, "gpt-image", &more).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let shown = answer.json();
    assert_eq!(shown["data"], json!([{"b64_json": WHOLE}]));
    assert_eq!(
        (&shown["output_format"], &shown["usage"]["total_tokens"]),
        (&json!("png"), &json!(12))
    );
    assert!(shown["created"].as_i64().unwrap() > 0);
    assert_eq!(answer.header("x-skein-cost-usd"), "0.000012345");
    assert_eq!(answer.header("x-skein-provider"), "openai");
    let seen = running.seen.image.lock().unwrap().clone().unwrap();
    assert_eq!(
        (seen.prompt.as_str(), seen.n, seen.delivery()),
        ("a goose", 1, ImageDelivery::Data)
    );
    assert_eq!(seen.extra_json, r#"{"user":"u"}"#);
    assert!(!seen.call_id.is_empty());
    let call = running.seen.call.lock().unwrap().clone().unwrap();
    assert_eq!(&*call.tenant, "acme");
}

#[tokio::test]
async fn a_streamed_picture_has_its_own_events() {
    let running = world::start(&[]).await;
    let answer = draw(&running, "gpt-image", &json!({"stream": true, "partial_images": 1})).await;
    assert_eq!(answer.header("content-type"), "text/event-stream; charset=utf-8");
    let names: Vec<_> =
        answer.text().lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(names, ["image_generation.partial_image", "image_generation.completed"]);
    assert!(answer.whole && answer.text().contains(WHOLE));
    let broken = draw(&running, "breaks", &json!({"stream": true})).await;
    assert!(!broken.whole && broken.text().contains("the provider went away"));
}

#[tokio::test]
async fn what_fails_fails_as_openai_fails() {
    let running = world::start(&[]).await;
    let answer = draw(&running, "homeless", &json!({"response_format": "url"})).await;
    let error = answer.json()["error"].clone();
    assert_eq!((answer.status.as_u16(), &error["param"]), (400, &json!("response_format")));
    assert_eq!(error["code"], "object_store_missing");
    assert!(error["message"].as_str().unwrap().contains("BUCKET_NAME"));
    for (model, status) in [("cut", 503), ("breaks", 503)] {
        assert_eq!(draw(&running, model, &json!({})).await.status.as_u16(), status, "{model}");
    }
    let answer = draw(&running, "m", &json!({"n": 11})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["param"]), (400, &json!("n")));
    let get = running.request(Method::GET, PATH, &[], "");
    assert_eq!(send(&h1(), get).await.status, 405);
    let large = world::start(&[("SKEIN_GATEWAY__MAX_ANSWER", "2KiB")]).await;
    let answer = draw(&large, "large", &json!({})).await;
    assert_eq!(answer.json()["error"]["code"], "answer_too_large");
}

#[tokio::test]
async fn a_picture_that_is_asked_for_again_is_made_once() {
    let running = world::start(&[]).await;
    let ask = || {
        let headers = [("idempotency-key", "one")];
        running.request(Method::POST, PATH, &headers, body("gpt-image", &json!({})))
    };
    let first = send(&h1(), ask()).await;
    assert!(running.seen.image.lock().unwrap().take().is_some());
    let again = send(&h1(), ask()).await;
    assert_eq!((again.header("idempotent-replayed"), &again.body), ("true", &first.body));
    assert!(running.seen.image.lock().unwrap().is_none());
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_picture_with_it() {
    let running = world::start(&[]).await;
    let client = h1();
    let request = running.post(PATH, body("hangs", &json!({"stream": true})));
    let mut answer = client.request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut cancelled = running.seen.cancelled.subscribe();
    let frame = tokio::time::timeout(std::time::Duration::from_millis(50), answer.frame()).await;
    assert!(frame.is_err(), "nothing has been drawn yet");
    drop(answer);
    let soon = std::time::Duration::from_secs(10);
    tokio::time::timeout(soon, cancelled.wait_for(|count| *count == 1)).await.unwrap().unwrap();
}

#[tokio::test]
async fn over_grpc_the_pieces_come_as_they_are_and_a_key_is_needed() {
    let running = world::start(&[]).await;
    let ask =
        || GenerateImageRequest { model: "gpt-image".into(), ..GenerateImageRequest::default() };
    let mut client = models(&running);
    let mut stream = client.generate_image(bearer(ROOT, ask())).await.unwrap().into_inner();
    let mut more = Vec::new();
    while let Some(answer) = stream.message().await.unwrap() {
        if let Some(Event::Image(piece)) = answer.event {
            more.push(piece.more);
        }
    }
    assert_eq!(more, [true, false]);
    let refused = client.generate_image(bearer("sk-nobody", ask())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}
