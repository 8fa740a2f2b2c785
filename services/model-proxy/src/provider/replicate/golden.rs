//! Requests of ours and Replicate's, and predictions as they are heard.

use super::{Replicate, Route, route};
use crate::{
    config::{Kind, Patience, ProviderSettings, Timers},
    error::{Error, Failure},
    provider::{Decoder, Event, Provider as _},
    sse,
};
use bytes::Bytes;
use mesh::{config::Secret, error::ServiceError as _};
use serde_json::{Value, json};
use skein_proto::model::v1::{
    ContentPart, FinishReason, GenerateImageRequest, GenerateRequest, Image, Message, Passage,
    Role, Sampling, ToolDefinition, content_part::Part, delta::Piece, image::Source,
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
    assert_eq!(
        path(&format!("a/b:{version}")).unwrap(),
        ("/predictions".into(), Some(version.clone()))
    );
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
    assert_eq!(ask.headers()["cancel-after"], "90s");
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

/// A prediction that is told things, and what came of it.
struct Told {
    decoder: Box<dyn Decoder>,
    out: Vec<Event>,
}

impl Told {
    fn chat(prompt: &str) -> Self {
        let request = chat(vec![say(Role::User, prompt)]);
        Self { decoder: provider().generate("a/b", &request).unwrap().decoder, out: vec![] }
    }

    fn picture() -> Self {
        let request =
            GenerateImageRequest { prompt: "x".into(), ..GenerateImageRequest::default() };
        Self { decoder: provider().image("a/b", &request).unwrap().decoder, out: vec![] }
    }

    fn body(&mut self, status: &str, more: Value) -> Result<(), Error> {
        let mut body = json!({"id": "p1", "status": status});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.decoder.whole(body.to_string().as_bytes(), &mut self.out)
    }

    fn event(&mut self, name: &str, id: &str, data: &str) -> Result<(), Error> {
        let event = sse::Event { name: name.into(), id: id.into(), data: data.into() };
        self.decoder.push(&event, &mut self.out)
    }

    /// Where it goes on: method, path and pause.
    fn follow(&mut self, lost: Option<Failure>) -> Option<(String, Duration)> {
        let follow = self.decoder.follow(lost, &mut self.out)?;
        let last = follow.request.headers().get("last-event-id");
        let last = last.map_or(String::new(), |id| format!(" after {}", id.to_str().unwrap()));
        Some((format!("{}{last}", follow.request.uri()), follow.after))
    }

    fn text(&self) -> String {
        let piece = |event: &Event| match event {
            Event::Delta(delta) => match &delta.piece {
                Some(Piece::Text(text)) => text.clone(),
                _ => String::new(),
            },
            _ => String::new(),
        };
        self.out.iter().map(piece).collect()
    }
}

const STREAM: &str = "https://stream.replicate.com/v1/p1";
const GET: &str = "https://api.replicate.com/v1/predictions/p1";

fn with_stream() -> Value {
    json!({"urls": {"stream": STREAM}})
}

#[test]
fn a_stream_that_breaks_is_resumed_and_then_looked_after() {
    let mut told = Told::chat("x");
    told.body("starting", with_stream()).unwrap();
    assert_eq!(told.follow(None).unwrap(), (STREAM.to_owned(), Duration::ZERO));
    told.event("output", "7:0", "one ").unwrap();
    told.event("output", "7:1", "two ").unwrap();
    assert_eq!(told.follow(None).unwrap().0, format!("{STREAM} after 7:1"));
    told.event("output", "7:1", "two ").unwrap(); // said before
    told.event("output", "7:2", "three").unwrap();
    told.event("done", "7:3", "{}").unwrap();
    assert!(told.decoder.is_through());
    assert_eq!(told.follow(None).unwrap(), (GET.to_owned(), Duration::ZERO));
    let metrics = json!({"input_token_count": 4, "output_token_count": 3, "predict_time": 0.1});
    told.body("succeeded", json!({"output": ["one ", "two ", "three"], "metrics": metrics}))
        .unwrap();
    assert_eq!(told.text(), "one two three");
    let Some(Event::Finished(finished)) = told.out.last() else { panic!("no end") };
    let usage = finished.usage.unwrap();
    assert_eq!((usage.input_uncached, usage.output), (4, 3));
    assert_eq!(finished.choices[0].finish_reason(), FinishReason::Stop);
    assert!(told.decoder.abandon().is_none(), "nothing runs there any more");
}

#[test]
fn a_stream_that_never_comes_is_replaced_by_polls() {
    let mut told = Told::chat("x");
    told.body("processing", with_stream()).unwrap();
    let lost = Some(Failure::Reset);
    assert_eq!(told.follow(None).unwrap().0, STREAM);
    for _ in 0..3 {
        assert_eq!(told.follow(lost).unwrap().0, STREAM);
    }
    assert_eq!(told.follow(lost).unwrap().0, GET);
    told.body("processing", json!({"output": ["one "]})).unwrap();
    let pauses: Vec<_> = (0..20).map(|_| told.follow(None).unwrap().1).collect();
    assert!(pauses.is_sorted() && pauses[0] < pauses[3] && pauses[19] == Duration::from_secs(3));
    told.body("succeeded", json!({"output": ["one ", "two"]})).unwrap();
    assert_eq!(told.text(), "one two");
    let Some(Event::Finished(finished)) = told.out.last() else { panic!("no end") };
    assert_eq!(finished.usage, None, "what is not told is not zero");
}

#[test]
fn looks_that_fail_end_the_call_and_a_stream_that_ended_well_does_not_need_them() {
    let lost = Some(Failure::Unavailable);
    let mut told = Told::chat("x");
    told.body("starting", json!({})).unwrap();
    assert_eq!(told.follow(None).unwrap().0, GET);
    let wait = Duration::from_secs(7);
    let limited = Some(Failure::RateLimited { retry_after: Some(wait) });
    assert_eq!(told.follow(limited).unwrap().1, wait);
    assert!(told.follow(lost).is_some() && told.follow(lost).is_some());
    assert!(told.follow(lost).is_none() && told.out.is_empty());
    assert!(told.decoder.abandon().is_some(), "it may still run");

    let mut told = Told::chat("x");
    told.body("starting", with_stream()).unwrap();
    told.follow(None).unwrap();
    told.event("output", "7:0", "all").unwrap();
    told.event("done", "7:1", "").unwrap();
    while told.follow(lost).is_some() {}
    assert!(matches!(told.out.last(), Some(Event::Finished(_))));
}

#[test]
fn every_end_but_success_is_an_error() {
    for (status, says) in
        [("failed", "CUDA"), ("canceled", "somebody else"), ("aborted", "before it began")]
    {
        let mut told = Told::chat("a secret");
        let said = json!({"error": "CUDA out of memory at 'a secret'"});
        let error = told.body(status, said).unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains("a secret"), "{error}");
        assert!(told.decoder.abandon().is_none() && told.follow(None).is_none());
    }
    let mut told = Told::chat("x");
    told.body("starting", with_stream()).unwrap();
    let flagged = r#"{"detail":"The input was flagged as sensitive (E005)"}"#;
    let error = told.event("error", "7:0", flagged).unwrap_err();
    assert_eq!(error.failure(), Some(Failure::ContentFilter));
    assert_eq!(told.decoder.abandon().unwrap().uri().path(), "/v1/predictions/p1/cancel");
    assert!(Told::chat("x").body("weird", json!({})).is_err());
    assert!(Told::chat("x").decoder.whole(b"{\"id\":\"../x\"}", &mut vec![]).is_err());
}

#[test]
fn pictures_come_as_urls_or_in_themselves() {
    let mut told = Told::picture();
    told.body("processing", json!({"logs": " 20%|##  |"})).unwrap();
    told.body("processing", json!({"logs": " 20%|##  |"})).unwrap();
    let url = "https://replicate.delivery/x.png";
    let png = "data:image/png;base64,iVBORw0KGgo=";
    told.body("succeeded", json!({"output": [url, png]})).unwrap();
    let [
        Event::Progress(progress),
        Event::Image(first),
        Event::Image(second),
        Event::Finished(end),
    ] = told.out.as_slice()
    else {
        panic!("{:?}", told.out)
    };
    assert_eq!(progress.done, 0.2);
    assert_eq!((first.index, second.index), (0, 1));
    assert_eq!(first.image.as_ref().unwrap().source, Some(Source::Url(url.into())));
    assert_eq!(second.image.as_ref().unwrap().media_type, "image/png");
    assert_eq!(end.usage.unwrap().images, 2);
    for output in [json!("no picture"), json!([]), json!(null), json!({"a": 1})] {
        assert!(Told::picture().body("succeeded", json!({"output": output})).is_err(), "{output}");
    }
}
