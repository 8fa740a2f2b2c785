//! Chat, embeddings and models, when all goes well and when it does not.

use crate::{
    client::{h1, h2, send},
    world,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

fn chat(model: &str, more: &Value) -> Value {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn a_plain_answer_says_where_it_came_from_and_what_it_cost() {
    let running = world::start(&[]).await;
    let answer = running.chat(chat("hello", &json!({"user": "u", "max_tokens": 9}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!(
        (&body["id"], &body["object"]),
        (&json!("chatcmpl-call-1"), &json!("chat.completion"))
    );
    let choice = &body["choices"][0];
    assert_eq!(choice["message"]["content"], "Hello");
    assert_eq!((&choice["finish_reason"], &choice["logprobs"]), (&json!("stop"), &Value::Null));
    assert_eq!(
        (&body["usage"]["prompt_tokens"], &body["usage"]["total_tokens"]),
        (&json!(9), &json!(12))
    );
    for (name, value) in [
        ("x-skein-region", "iad"),
        ("x-skein-provider", "openai"),
        ("x-skein-model", "openai/gpt-x"),
        ("x-skein-cost-usd", "0.000012345"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert!(answer.header("x-request-id").starts_with("req_"));
    let seen = running.seen.request.lock().unwrap().clone().unwrap();
    assert_eq!(seen.extra_json, r#"{"user":"u"}"#);
    assert_eq!(seen.sampling.unwrap().max_tokens, Some(9));
    let call = running.seen.call.lock().unwrap().clone().unwrap();
    assert_eq!((&*call.tenant, &*call.issuer), ("acme", "gateway"));
    assert!(call.principal.starts_with("key:boot"));
}

#[tokio::test]
async fn a_stream_is_framed_as_openai_frames_it() {
    let running = world::start(&[]).await;
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let answer = running.chat(chat("hello", &options)).await;
    assert_eq!(answer.header("content-type"), "text/event-stream; charset=utf-8");
    assert_eq!(answer.header("x-skein-model"), "openai/gpt-x");
    let created = answer.text().split_once("\"created\":").unwrap().1.split_once(',').unwrap().0;
    let head = format!(
        "data: {{\"id\":\"chatcmpl-call-1\",\"object\":\"chat.completion.chunk\",\"created\":{created},\"model\":\"openai/gpt-x\",\"choices\":["
    );
    let chunk = |delta: &str, finish: &str| {
        format!(
            "{head}{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}],\"usage\":null}}\n\n"
        )
    };
    let usage = "\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3,\"total_tokens\":12,\
        \"prompt_tokens_details\":{\"cached_tokens\":2,\"cache_write_tokens\":0,\"audio_tokens\":0},\
        \"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0,\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0},\
        \"cost_usd\":0.000012345}";
    let expected = [
        chunk("{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}", "null"),
        chunk("{\"content\":\"Hel\"}", "null"),
        chunk("{\"content\":\"lo\"}", "null"),
        chunk("{}", "\"stop\""),
        format!("{head}],{usage}}}\n\n"),
        "data: [DONE]\n\n".to_owned(),
    ];
    assert_eq!(answer.text(), expected.concat());
    assert!(answer.whole);
}

#[tokio::test]
async fn tool_calls_and_several_choices_in_both_forms() {
    let running = world::start(&[]).await;
    let called = running.chat(chat("tools", &json!({}))).await.json();
    let message = &called["choices"][0]["message"];
    assert_eq!(
        message["tool_calls"][0]["function"],
        json!({"name": "look", "arguments": "{\"q\":1}"})
    );
    assert_eq!(
        (&message["content"], &called["choices"][0]["finish_reason"]),
        (&Value::Null, &json!("tool_calls"))
    );
    let streamed = running.chat(chat("tools", &json!({"stream": true}))).await;
    let first = streamed.text().split("\n\n").next().unwrap();
    assert!(first.contains(r#""tool_calls":[{"index":0,"id":"call_a","type":"function","function":{"name":"look","arguments":""}}]"#), "{first}");
    assert!(!streamed.text().contains("usage"));
    let two = running.chat(chat("two", &json!({"n": 2}))).await.json();
    assert_eq!(two["choices"][1]["message"]["content"], "B");
    assert_eq!(two["choices"][1]["finish_reason"], "length");
}

#[tokio::test]
async fn a_stream_that_fails_says_so_and_never_ends_cleanly() {
    let running = world::start(&[]).await;
    for client in [h1(), h2()] {
        for model in ["breaks", "cut"] {
            let body = chat(model, &json!({"stream": true})).to_string();
            let answer = send(&client, running.post("/v1/chat/completions", body)).await;
            assert_eq!(answer.status, 200);
            let last = answer.text().trim_end().rsplit("\n\n").next().unwrap();
            let error: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(error["error"]["type"], "service_unavailable_error", "{model}");
            assert!(answer.text().contains("Hal") && !answer.text().contains("[DONE]"));
            assert!(!answer.whole, "{model} must be broken off");
        }
    }
    for model in ["breaks", "cut"] {
        assert_eq!(running.chat(chat(model, &json!({}))).await.status, 503);
    }
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_call_behind() {
    let running = world::start(&[]).await;
    for (stream, client) in [(true, h1()), (true, h2()), (false, h1()), (false, h2())] {
        let mut cancelled = running.seen.cancelled.subscribe();
        let before = *cancelled.borrow_and_update();
        let body = chat("hangs", &json!({"stream": stream})).to_string();
        let request = running.post("/v1/chat/completions", body);
        if stream {
            let mut response = client.request(request).await.unwrap();
            assert!(response.frame().await.unwrap().unwrap().is_data());
            drop(response);
        } else {
            // Away once the call is known to have arrived.
            let arrived = running.seen.request.lock().unwrap().take();
            drop(arrived);
            let sending = tokio::spawn(client.request(request));
            while running.seen.request.lock().unwrap().is_none() {
                tokio::task::yield_now().await;
            }
            sending.abort();
        }
        drop(client);
        cancelled.wait_for(|count| *count > before).await.unwrap();
    }
}

#[tokio::test]
async fn silence_is_filled_with_comments() {
    let running = world::start(&[("SKEIN_GATEWAY__KEEP_ALIVE", "20ms")]).await;
    let body = chat("waits", &json!({"stream": true})).to_string();
    let response = h1().request(running.post("/v1/chat/completions", body)).await.unwrap();
    let mut body = response.into_body();
    let mut text = String::new();
    while let Some(frame) = body.frame().await {
        text.push_str(std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap());
        if text.contains(": keep-alive\n\n: keep-alive\n\n") {
            running.seen.go_on.notify_one();
        }
    }
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
}

#[tokio::test]
async fn embeddings_in_both_encodings() {
    let running = world::start(&[]).await;
    let body = |format: &str| {
        json!({"model": "m", "input": ["a", "b"], "encoding_format": format}).to_string()
    };
    let plain = send(&h1(), running.post("/v1/embeddings", body("float"))).await;
    let answer = plain.json();
    assert_eq!(
        answer["data"][1],
        json!({"object": "embedding", "index": 1, "embedding": [1.0, 0.5, -1.0]})
    );
    assert_eq!(answer["usage"], json!({"prompt_tokens": 9, "total_tokens": 9}));
    assert_eq!(plain.header("x-skein-provider"), "local");
    let encoded = send(&h1(), running.post("/v1/embeddings", body("base64"))).await.json();
    let bytes = STANDARD.decode(encoded["data"][1]["embedding"].as_str().unwrap()).unwrap();
    let expected: Vec<u8> = [1.0_f32, 0.5, -1.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(bytes, expected);
}

#[tokio::test]
async fn models_are_listed_and_found_by_ids_with_slashes() {
    let running = world::start(&[]).await;
    let get = |path: &str| running.request(Method::GET, path, &[("content-type", "")], "");
    let all = send(&h1(), get("/v1/models")).await.json();
    assert_eq!((&all["object"], &all["data"][0]["owned_by"]), (&json!("list"), &json!("openai")));
    for path in ["/v1/models/agent/default", "/v1/models/agent%2Fdefault"] {
        assert_eq!(send(&h1(), get(path)).await.json()["id"], "agent/default", "{path}");
    }
    let missing = send(&h1(), get("/v1/models/nope")).await;
    assert_eq!(
        (missing.status.as_u16(), &missing.json()["error"]["code"]),
        (404, &json!("model_not_found"))
    );
}

#[tokio::test]
async fn a_sane_request_id_is_taken_over() {
    let running = world::start(&[]).await;
    let with = |id: &str| {
        let body = chat("hello", &json!({})).to_string();
        running.request(Method::POST, "/v1/chat/completions", &[("x-request-id", id)], body)
    };
    let answer = send(&h1(), with("mine-1")).await;
    assert_eq!(answer.header("x-request-id"), "mine-1");
    assert_eq!(&*running.seen.call.lock().unwrap().clone().unwrap().request_id, "mine-1");
    let answer = send(&h1(), with("<script>")).await;
    assert!(answer.header("x-request-id").starts_with("req_"));
}
