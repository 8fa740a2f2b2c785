//! `model: "agent/<name>"` on the chat endpoint.

use crate::{client::h1, world};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

fn ask(agent: &str, more: &Value) -> Value {
    let mut body =
        json!({"model": format!("agent/{agent}"), "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn an_agent_answers_with_citations_and_usage() {
    let running = world::start(&[]).await;
    for agent in ["default", "resumed"] {
        let answer = running.chat(ask(agent, &json!({}))).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let body = answer.json();
        let message = &body["choices"][0]["message"];
        assert_eq!(message["content"], "Hello", "{agent}");
        assert_eq!(message["citations"][0]["span"], json!({"start": 3, "end": 9}));
        assert_eq!(message["citations"][0]["quote"], "skein.");
        assert_eq!(body["usage"]["total_tokens"], 12);
        assert_eq!(answer.header("x-skein-cost-usd"), "0.000012345");
    }
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let streamed = running.chat(ask("resumed", &options)).await;
    let text = streamed.text();
    assert!(streamed.whole && text.ends_with("data: [DONE]\n\n"));
    assert_eq!(text.matches("\"content\":\"Hel\"").count(), 1, "told once: {text}");
    assert!(text.contains("\"delta\":{\"citations\":[{\"passage\":0,"), "{text}");
    assert!(text.contains("\"total_tokens\":12"));
}

#[tokio::test]
async fn a_run_that_fails_is_a_status_of_its_reason() {
    let running = world::start(&[]).await;
    let answer = running.chat(ask("fails", &json!({"stream": true}))).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["error"]["code"]),
        (404, &json!("model_not_found"))
    );
    let answer = running.chat(ask("default", &json!({"n": 2}))).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["param"]), (400, &json!("n")));
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_run() {
    let running = world::start(&[]).await;
    let body = ask("hangs", &json!({"stream": true})).to_string();
    let request = running.post("/v1/chat/completions", body);
    let mut response = h1().request(request).await.unwrap();
    assert!(response.frame().await.unwrap().unwrap().is_data());
    assert_eq!(*running.seen.cancelled.borrow(), 0);
    drop(response);
    running.seen.cancelled.subscribe().wait_for(|count| *count == 1).await.unwrap();
}
