//! Predictions as they are heard.

use super::*;
use serde_json::json;
use skein_proto::model::v1::{FinishReason, image::Source};

/// A prediction that is told things, and what came of it.
struct Told {
    decoder: Prediction,
    out: Vec<Event>,
}

impl Told {
    fn new(prompt: &str, wanted: Wanted) -> Self {
        let base = Arc::from("https://api.replicate.com/v1");
        Self { decoder: Prediction::new(base, wanted, prompt.to_owned()), out: vec![] }
    }

    fn chat(prompt: &str) -> Self {
        Self::new(prompt, Wanted::Text { longest: None })
    }

    fn picture() -> Self {
        Self::new("x", Wanted::Pictures)
    }

    fn body(&mut self, status: &str, more: &Value) -> Result<(), Error> {
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
    told.body("starting", &with_stream()).unwrap();
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
    told.body("succeeded", &json!({"output": ["one ", "two ", "three"], "metrics": metrics}))
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
    told.body("processing", &with_stream()).unwrap();
    let lost = Some(Failure::Reset);
    assert_eq!(told.follow(None).unwrap().0, STREAM);
    for _ in 0..3 {
        assert_eq!(told.follow(lost).unwrap().0, STREAM);
    }
    assert_eq!(told.follow(lost).unwrap().0, GET);
    told.body("processing", &json!({"output": ["one "]})).unwrap();
    let pauses: Vec<_> = (0..20).map(|_| told.follow(None).unwrap().1).collect();
    assert!(pauses.is_sorted() && pauses[0] < pauses[3] && pauses[19] == Duration::from_secs(3));
    told.body("succeeded", &json!({"output": ["one ", "two"]})).unwrap();
    assert_eq!(told.text(), "one two");
    let Some(Event::Finished(finished)) = told.out.last() else { panic!("no end") };
    assert_eq!(finished.usage, None, "what is not told is not zero");
}

#[test]
fn what_was_said_is_never_taken_back() {
    let told = || {
        let mut told = Told::chat("x");
        told.body("processing", &json!({"output": ["one ", "two "]})).unwrap();
        told.body("processing", &json!({"output": ["one "]})).unwrap(); // told late
        told
    };
    told().body("succeeded", &json!({"output": "one two"})).unwrap();
    for changed in ["three four", "one "] {
        let error = told().body("succeeded", &json!({"output": changed})).unwrap_err();
        assert_eq!(error.failure(), Some(Failure::Malformed), "{changed}");
    }
}

#[test]
fn looks_that_fail_end_the_call_and_a_stream_that_ended_well_does_not_need_them() {
    let lost = Some(Failure::Unavailable);
    let mut told = Told::chat("x");
    told.body("starting", &json!({})).unwrap();
    assert_eq!(told.follow(None).unwrap().0, GET);
    let wait = Duration::from_secs(7);
    let limited = Some(Failure::RateLimited { retry_after: Some(wait) });
    assert_eq!(told.follow(limited).unwrap().1, wait);
    assert!(told.follow(lost).is_some() && told.follow(lost).is_some());
    assert!(told.follow(lost).is_none() && told.out.is_empty());
    assert!(told.decoder.abandon().is_some(), "it may still run");

    let mut told = Told::chat("x");
    told.body("starting", &with_stream()).unwrap();
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
        let error = told.body(status, &said).unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains("a secret"), "{error}");
        assert!(told.decoder.abandon().is_none() && told.follow(None).is_none());
    }
    let mut told = Told::chat("x");
    told.body("starting", &with_stream()).unwrap();
    let flagged = r#"{"detail":"The input was flagged as sensitive (E005)"}"#;
    let error = told.event("error", "7:0", flagged).unwrap_err();
    assert_eq!(error.failure(), Some(Failure::ContentFilter));
    assert_eq!(told.decoder.abandon().unwrap().uri().path(), "/v1/predictions/p1/cancel");
    assert!(Told::chat("x").body("weird", &json!({})).is_err());
    assert!(Told::chat("x").decoder.whole(b"{\"id\":\"../x\"}", &mut vec![]).is_err());
}

#[test]
fn pictures_come_as_urls_or_in_themselves() {
    let mut told = Told::picture();
    told.body("processing", &json!({"logs": " 20%|##  |"})).unwrap();
    told.body("processing", &json!({"logs": " 20%|##  |"})).unwrap();
    let url = "https://replicate.delivery/x.png";
    let png = "data:image/png;base64,iVBORw0KGgo=";
    told.body("succeeded", &json!({"output": [url, png]})).unwrap();
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
    assert_eq!(told.decoder.used(), end.usage, "paid for before it is delivered");
    for output in [json!("no picture"), json!([]), json!(null), json!({"a": 1})] {
        assert!(Told::picture().body("succeeded", &json!({"output": output})).is_err(), "{output}");
    }
}

#[test]
fn whatever_comes_is_an_answer_or_an_error_and_the_follows_end() {
    let values = [
        json!(null),
        json!([]),
        json!([1, null, {}]),
        json!({}),
        json!("x"),
        json!(-1),
        json!(1e300),
        json!({"a": [null]}),
        json!(u64::MAX),
        json!("data:image/png;base64,"),
        json!("99999999999%"),
    ];
    for wanted in [Wanted::Text { longest: Some(i64::MIN) }, Wanted::Pictures] {
        for (status, odd) in ["starting", "succeeded", "failed", "?"]
            .iter()
            .flat_map(|s| values.iter().map(move |v| (s, v)))
        {
            let mut told = Told::new("", wanted);
            let metrics = json!({"input_token_count": odd, "output_token_count": odd});
            let body =
                json!({"output": odd, "error": odd, "logs": odd, "urls": odd, "metrics": metrics});
            let _ = told.decoder.whole(odd.to_string().as_bytes(), &mut told.out);
            let _ = told.body(status, &body);
            for name in ["output", "logs", "error", "done", ""] {
                let _ = told.event(name, &odd.to_string(), &odd.to_string());
            }
            let lost = Some(Failure::Reset);
            let follows = (0..100).take_while(|_| told.follow(lost).is_some()).count();
            assert!(follows < 20, "{follows} after {status} {odd}");
            let ends = told.out.iter().filter(|event| matches!(event, Event::Finished(_))).count();
            assert!(ends <= 1, "{ends} ends after {status} {odd}");
        }
    }
}
