//! What a client sends and gets, in OpenAI's words.

use super::*;
use skein_proto::model::v1::Usage;

fn read(more: &Value) -> Result<Draw, Refusal> {
    let mut body = json!({"model": "m", "prompt": "a goose"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    parse(body.to_string().as_bytes())
}

fn piece(index: u32, data: &'static [u8], more: bool) -> Event {
    let image = Image { source: Some(Source::Data(Bytes::from_static(data))), ..Image::default() };
    Event::Image(ImageDone { index, image: Some(image), more, ..ImageDone::default() })
}

fn finished() -> Event {
    let usage = Usage {
        input_uncached: 7,
        input_image: 2,
        output: 100,
        output_image: 100,
        ..Usage::default()
    };
    let extra_json = r#"{"size":"64x64"}"#.to_owned();
    Event::Finished(ImagesFinished { usage: Some(usage), extra_json })
}

#[test]
fn a_request_says_how_it_is_delivered_and_keeps_the_rest() {
    for (more, delivery) in [
        (json!({}), ImageDelivery::Unspecified),
        (json!({"response_format": "url"}), ImageDelivery::Url),
        (json!({"response_format": "b64_json"}), ImageDelivery::Data),
        (json!({"stream": true}), ImageDelivery::Data),
    ] {
        assert_eq!(read(&more).unwrap().request.delivery(), delivery, "{more}");
    }
    let all = json!({"n": 2, "size": "64x64", "quality": "low", "output_format": "webp",
        "background": "opaque", "user": "u", "style": null});
    let request = read(&all).unwrap().request;
    assert_eq!((request.n, request.size.as_str(), request.quality.as_str()), (2, "64x64", "low"));
    assert_eq!(request.extra_json, r#"{"output_format":"webp","background":"opaque","user":"u"}"#);
    let streamed = read(&json!({"stream": true, "partial_images": 2})).unwrap();
    assert!(streamed.stream && streamed.request.extra_json == r#"{"partial_images":2}"#);
}

#[test]
fn what_is_wrong_is_named() {
    for (more, param) in [
        (json!({"model": ""}), "model"),
        (json!({"prompt": " "}), "prompt"),
        (json!({"prompt": null}), "prompt"),
        (json!({"n": 0}), "n"),
        (json!({"n": 11}), "n"),
        (json!({"size": 5}), "size"),
        (json!({"response_format": "png"}), "response_format"),
        (json!({"response_format": "url", "stream": true}), "response_format"),
        (json!({"partial_images": 1}), "partial_images"),
        (json!({"partial_images": 4, "stream": true}), "partial_images"),
    ] {
        assert_eq!(read(&more).err().unwrap().param.as_deref(), Some(param), "{more}");
    }
}

#[test]
fn pieces_are_joined_and_the_order_is_kept() {
    let mut gathered = Gathered::default();
    for event in [piece(0, b"ab", true), piece(0, b"c", false), piece(1, b"d", false), finished()] {
        gathered.push(event);
    }
    assert_eq!(
        gathered.answer(5),
        json!({"size": "64x64", "created": 5, "data": [{"b64_json": "YWJj"}, {"b64_json": "ZA=="}],
            "usage": {"input_tokens": 7, "output_tokens": 100, "total_tokens": 107,
                "input_tokens_details": {"text_tokens": 5, "image_tokens": 2},
                "output_tokens_details": {"text_tokens": 0, "image_tokens": 100}}})
    );
    let mut gathered = Gathered::default();
    let image = Image { source: Some(Source::Url("https://x/y".into())), ..Image::default() };
    let revised_prompt = "better".to_owned();
    gathered.push(Event::Image(ImageDone {
        image: Some(image),
        revised_prompt,
        ..ImageDone::default()
    }));
    gathered.push(Event::Finished(ImagesFinished::default()));
    let data = json!([{"url": "https://x/y", "revised_prompt": "better"}]);
    assert_eq!(gathered.answer(5), json!({"created": 5, "data": data}));
}

#[test]
fn a_stream_has_its_usage_with_its_last_picture() {
    let mut encoder = Encoder::new(5);
    let mut out = String::new();
    let preview =
        Image { source: Some(Source::Data(Bytes::from_static(b"p"))), ..Image::default() };
    let progress = |preview| Event::Progress(ImageProgress { preview, ..ImageProgress::default() });
    for event in [
        progress(None),
        progress(Some(preview.clone())),
        progress(Some(preview)),
        piece(0, b"a", false),
        piece(1, b"b", false),
        finished(),
    ] {
        encoder.push(event, &mut out);
    }
    let events: Vec<(&str, Value)> = out
        .split_terminator("\n\n")
        .map(|event| {
            let (name, data) = event.split_once("\ndata: ").unwrap();
            (name.strip_prefix("event: ").unwrap(), serde_json::from_str(data).unwrap())
        })
        .collect();
    let names: Vec<_> = events.iter().map(|(name, _)| *name).collect();
    let (partial, completed) = ("image_generation.partial_image", "image_generation.completed");
    assert_eq!(names, [partial, partial, completed, completed]);
    assert!(events.iter().all(|(name, event)| event["type"] == *name && event["created_at"] == 5));
    assert_eq!(
        (&events[1].1["partial_image_index"], &events[1].1["b64_json"]),
        (&json!(1), &json!("cA=="))
    );
    assert!(events[2].1.get("usage").is_none() && events[2].1["b64_json"] == "YQ==");
    assert_eq!(
        (&events[3].1["usage"]["total_tokens"], &events[3].1["size"]),
        (&json!(107), &json!("64x64"))
    );
}
