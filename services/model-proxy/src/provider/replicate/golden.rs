//! Requests of ours and Replicate's.

use super::{Replicate, Route, route};
use crate::{
    config::{Kind, Patience, ProviderSettings, Timers},
    provider::Provider as _,
};
use bytes::Bytes;
use mesh::{config::Secret, error::ServiceError as _};
use serde_json::{Value, json};
use skein_proto::model::v1::{
    ContentPart, GenerateImageRequest, GenerateRequest, Image, Message, Passage, Role, Sampling,
    ToolDefinition, content_part::Part,
};
use std::time::Duration;

fn provider() -> Replicate {
    let timer = Duration::from_secs(90);
    Replicate::new(&ProviderSettings {
        name: "replicate".into(),
        kind: Kind::Replicate,
        base_url: "https://api.replicate.com/v1".to_owned(),
        keys: vec![Secret::new("r8_one"), Secret::new("r8_two")],
        variable: "REPLICATE_API_TOKEN",
        version: None,
        beta: None,
        patience: Patience::default(),
        timers: Timers { connect: timer, first_token: timer, idle: timer, total: timer },
    })
    .unwrap()
}

fn say(role: Role, text: &str) -> Message {
    let content =
        vec![ContentPart { part: Some(Part::Text(text.to_owned())), ..ContentPart::default() }];
    Message { role: role.into(), content, ..Message::default() }
}

fn chat(messages: Vec<Message>) -> GenerateRequest {
    GenerateRequest { messages, ..GenerateRequest::default() }
}

fn body(request: &http::Request<Bytes>) -> Value {
    serde_json::from_slice(request.body()).unwrap()
}

#[test]
fn a_model_is_asked_at_its_own_path() {
    let path = |model: &str| route(model).map(|Route { path, version }| (path, version));
    let version = "f".repeat(64);
    assert_eq!(path("meta/llama-3").unwrap(), ("/models/meta/llama-3/predictions".into(), None));
    assert_eq!(path(&format!("a/b:{version}")).unwrap(), ("/predictions".into(), Some(version)));
    assert_eq!(
        path("deployments/acme/fast").unwrap(),
        ("/deployments/acme/fast/predictions".into(), None)
    );
    for wrong in ["meta", "meta/", "a/b/c", "a/b?c", "../b", "a/b:", "deployments/a/b:c", "a b/c"] {
        assert_eq!(path(wrong).unwrap_err().field(), Some("model"), "{wrong}");
    }
}

#[test]
fn a_question_alone_is_the_prompt() {
    let mut request = chat(vec![say(Role::System, "Be brief."), say(Role::User, "Why?")]);
    request.sampling = Some(Sampling {
        max_tokens: Some(9),
        temperature: Some(0.5),
        top_p: Some(0.9),
        stop: vec!["END".into(), "STOP".into()],
        seed: Some(7),
        ..Sampling::default()
    });
    request.passages =
        vec![Passage { title: "Birds".into(), text: "Geese.".into(), ..Passage::default() }];
    request.extra_json = r#"{"min_tokens":2,"prompt":"mine"}"#.into();
    let ask = provider().generate("meta/llama-3", &request).unwrap().request;
    assert_eq!((ask.method().as_str(), ask.uri().host()), ("POST", Some("api.replicate.com")));
    assert_eq!(ask.headers()["cancel-after"], "1800s");
    assert!(!ask.headers().contains_key("prefer") && !ask.headers().contains_key("authorization"));
    let body = body(&ask);
    let system = body["input"]["system_prompt"].as_str().unwrap();
    assert!(
        system.starts_with("Be brief.\n\nAnswer from") && system.ends_with("[1] Birds\nGeese.")
    );
    let mut input = body["input"].clone();
    input.as_object_mut().unwrap().remove("system_prompt");
    assert_eq!(
        input,
        json!({"prompt": "Why?", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9,
            "stop_sequences": "END,STOP", "seed": 7, "min_tokens": 2})
    );
    assert!(body.get("version").is_none());
}

#[test]
fn a_conversation_is_rendered() {
    let messages =
        vec![say(Role::User, "Hi"), say(Role::Assistant, "Hello."), say(Role::User, "Why?")];
    let ask = provider().generate("a/b:0123", &chat(messages)).unwrap().request;
    assert_eq!(
        body(&ask),
        json!({"version": "0123",
            "input": {"prompt": "User: Hi\nAssistant: Hello.\nUser: Why?\nAssistant:"}})
    );
}

#[test]
fn what_there_is_no_word_for_is_refused_by_name() {
    let refused = |change: fn(&mut GenerateRequest)| {
        let mut request = chat(vec![say(Role::User, "x")]);
        request.sampling = Some(Sampling::default());
        change(&mut request);
        let asked = provider().generate("a/b", &request);
        asked.err().and_then(|error| error.field().map(str::to_owned)).unwrap_or_default()
    };
    assert_eq!(refused(|r| r.tools.push(ToolDefinition::default())), "tools");
    assert_eq!(refused(|r| r.sampling.as_mut().unwrap().n = Some(2)), "sampling.n");
    assert_eq!(
        refused(|r| r.sampling.as_mut().unwrap().stop = vec!["a,b".into()]),
        "sampling.stop[0]"
    );
    assert_eq!(refused(|r| r.messages.push(say(Role::Tool, "x"))), "messages[1].role");
    let picture = |r: &mut GenerateRequest| {
        let part = Some(Part::Image(Image::default()));
        r.messages[0].content.push(ContentPart { part, ..ContentPart::default() });
    };
    assert_eq!(refused(picture), "messages[0].content[1]");
    assert_eq!(refused(|_| {}), "");
}

#[test]
fn a_picture_is_asked_in_the_models_words() {
    let input = |size: &str, n| {
        let request = GenerateImageRequest {
            prompt: "a goose".into(),
            size: size.into(),
            n,
            extra_json: r#"{"output_format":"png"}"#.into(),
            ..GenerateImageRequest::default()
        };
        let ask = provider().image("a/flux", &request).unwrap().request;
        assert_eq!(ask.headers()["prefer"], "wait=1");
        body(&ask)["input"].clone()
    };
    assert_eq!(
        input("1024x768", 2),
        json!({"prompt": "a goose", "num_outputs": 2, "width": 1024, "height": 768,
            "output_format": "png"})
    );
    let ratio = json!({"prompt": "a goose", "aspect_ratio": "16:9", "output_format": "png"});
    assert_eq!(input("16:9", 1), ratio);
    assert_eq!(input("auto", 0), json!({"prompt": "a goose", "output_format": "png"}));
}

#[test]
fn files_lie_at_its_hosts_alone() {
    let provider = provider();
    for host in ["replicate.delivery", "pbxt.replicate.delivery", "api.replicate.com"] {
        assert!(provider.owns(host), "{host}");
    }
    for host in ["evil.com", "replicate.delivery.evil.com", "notreplicate.delivery", ""] {
        assert!(!provider.owns(host), "{host}");
    }
}
