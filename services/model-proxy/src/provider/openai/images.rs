//! `POST /images/generations`: our request in its words, pictures from its
//! answers.
//!
//! Invariants:
//! - `response_format` goes to the models that take it, and to no other: the
//!   gpt-image family gives data always, and refuses the field.
//! - An answer is asked to be streamed only where unfinished pictures are
//!   wanted (`partial_images`): each of them is paid for.
//! - A stream is whole when as many pictures have come as were asked for.

use super::{extra, refusal::Voice};
use crate::{
    error::{Error, Failure},
    pictures,
    provider::{Decoder, Event},
    sse,
};
use serde_json::{Map, Value};
use skein_proto::model::v1::{
    Finished, GenerateImageRequest, Image, ImageDelivery, ImageDone, ImageProgress, Usage,
    image::Source,
};
use std::sync::Arc;

/// Fields of an answer that we have names for, or that only serve the wire.
const FIELDS: [&str; 8] = [
    "created",
    "created_at",
    "data",
    "usage",
    "type",
    "b64_json",
    "partial_image_index",
    "revised_prompt",
];

/// Whether the pictures of a model come as data whatever is asked.
pub(super) fn draws_data(model: &str) -> bool {
    let model = model.rsplit('/').next().unwrap_or(model);
    ["gpt-image", "chatgpt-image"].iter().any(|family| model.starts_with(family))
}

pub(super) fn body(
    model: &str,
    request: &GenerateImageRequest,
) -> Result<Map<String, Value>, Error> {
    let mut body = Map::new();
    body.insert("model".into(), model.into());
    body.insert("prompt".into(), request.prompt.as_str().into());
    if request.n > 0 {
        body.insert("n".into(), request.n.into());
    }
    for (name, value) in [("size", &request.size), ("quality", &request.quality)] {
        if !value.is_empty() {
            body.insert(name.into(), value.as_str().into());
        }
    }
    let format = match request.delivery() {
        ImageDelivery::Url => Some("url"),
        ImageDelivery::Data => Some("b64_json"),
        ImageDelivery::Unspecified => None,
    };
    if let Some(format) = format.filter(|_| !draws_data(model)) {
        body.insert("response_format".into(), format.into());
    }
    extra::merge(&mut body, extra::object("extra_json", &request.extra_json)?, &[]);
    // How we ask is ours to choose.
    body.remove("stream");
    if body.get("partial_images").and_then(Value::as_u64).is_some_and(|count| count > 0) {
        body.insert("stream".into(), true.into());
    }
    Ok(body)
}

pub(super) struct Images {
    voice: Arc<Voice>,
    wanted: u32,
    /// Unfinished pictures that come before each.
    partial: u64,
    come: u32,
    usage: Option<Usage>,
    finished: bool,
}

impl Images {
    pub(super) fn new(voice: Arc<Voice>, body: &Map<String, Value>) -> Self {
        let number = |field: &str| body.get(field).and_then(Value::as_u64);
        let wanted = number("n").and_then(|count| u32::try_from(count).ok());
        Self {
            voice,
            wanted: wanted.unwrap_or(1).max(1),
            partial: number("partial_images").unwrap_or_default().min(99),
            come: 0,
            usage: None,
            finished: false,
        }
    }

    fn picture(&mut self, picture: &Value, out: &mut Vec<Event>) -> Result<(), Error> {
        let image = match (picture["b64_json"].as_str(), picture["url"].as_str()) {
            (Some(data), _) => self.decoded(data)?,
            (None, Some(url)) => {
                Image { source: Some(Source::Url(url.to_owned())), ..Image::default() }
            }
            (None, None) => {
                return Err(self.voice.malformed("a picture with neither data nor a URL"));
            }
        };
        let revised_prompt = picture["revised_prompt"].as_str().unwrap_or_default().to_owned();
        let done = ImageDone {
            index: self.come,
            image: Some(image),
            revised_prompt,
            ..ImageDone::default()
        };
        out.push(Event::Image(done));
        self.come += 1;
        Ok(())
    }

    fn decoded(&self, data: &str) -> Result<Image, Error> {
        let none = || self.voice.malformed("the data of a picture is none");
        pictures::from_base64(data).ok_or_else(none)
    }

    fn count(&mut self, usage: &Value) {
        if usage.is_object() {
            let counted = self.usage.get_or_insert_default();
            add(counted, usage);
        }
    }

    /// What has come so far is paid for, whatever becomes of it.
    fn counted(&self) -> Usage {
        Usage { images: self.come.into(), ..self.usage.unwrap_or_default() }
    }

    fn finish(&mut self, extra: Value, out: &mut Vec<Event>) {
        let unnamed =
            |(name, value): &(String, Value)| !FIELDS.contains(&name.as_str()) && !value.is_null();
        let extra: Map<_, _> = match extra {
            Value::Object(fields) => fields.into_iter().filter(unnamed).collect(),
            _ => Map::new(),
        };
        let extra_json =
            if extra.is_empty() { String::new() } else { Value::Object(extra).to_string() };
        self.finished = true;
        out.push(Event::Finished(Finished {
            usage: Some(self.counted()),
            extra_json,
            ..Finished::default()
        }));
    }

    #[expect(clippy::cast_precision_loss, reason = "a share of at most a few pictures")]
    fn progress(&self, event: &Value) -> Result<ImageProgress, Error> {
        let preview = self.decoded(event["b64_json"].as_str().unwrap_or_default())?;
        let at = event["partial_image_index"].as_u64().unwrap_or_default().min(99);
        // Those that come first, and then the whole.
        let done = (at + 1) as f64 / (self.partial.max(at + 1) + 1) as f64;
        Ok(ImageProgress { index: self.come, done, preview: Some(preview) })
    }
}

impl Decoder for Images {
    fn push(&mut self, event: &sse::Event, out: &mut Vec<Event>) -> Result<(), Error> {
        if self.finished || event.data.trim().is_empty() || event.data.trim() == "[DONE]" {
            return Ok(());
        }
        let event = self.voice.parse(event.data.as_bytes())?;
        if !event["error"].is_null() {
            return Err(self.voice.refusal_inside(&event));
        }
        match event["type"].as_str().unwrap_or_default() {
            "image_generation.partial_image" => out.push(Event::Progress(self.progress(&event)?)),
            "image_generation.completed" => {
                self.picture(&event, out)?;
                self.count(&event["usage"]);
                if self.come == self.wanted {
                    self.finish(event, out);
                }
            }
            "error" => return Err(self.voice.refusal_inside(&event)),
            _ => {} // kinds of a later day
        }
        Ok(())
    }

    fn end(&mut self, _: &mut Vec<Event>) -> Result<(), Error> {
        if self.finished {
            return Ok(());
        }
        let message = format!("the stream ended after {} of {} pictures", self.come, self.wanted);
        Err(self.voice.error(Failure::Cut, message))
    }

    fn whole(&mut self, body: &[u8], out: &mut Vec<Event>) -> Result<(), Error> {
        let answer = self.voice.parse(body)?;
        if !answer["error"].is_null() {
            return Err(self.voice.refusal_inside(&answer));
        }
        let pictures = answer["data"].as_array().filter(|pictures| !pictures.is_empty());
        let none = || self.voice.malformed("an answer without pictures");
        for picture in pictures.ok_or_else(none)? {
            self.picture(picture, out)?;
        }
        self.count(&answer["usage"]);
        self.finish(answer, out);
        Ok(())
    }

    fn used(&self) -> Option<Usage> {
        Some(self.counted()).filter(|usage| *usage != Usage::default())
    }
}

/// Tokens of text and of pictures, each in its class.
fn add(usage: &mut Usage, told: &Value) {
    let count = |value: &Value| extra::count(value).unwrap_or_default();
    let (input, output) = (count(&told["input_tokens"]), count(&told["output_tokens"]));
    let details = &told["output_tokens_details"];
    // Without details all that comes out is picture.
    let drawn =
        if details["image_tokens"].is_i64() { count(&details["image_tokens"]) } else { output };
    let cached = count(&told["input_tokens_details"]["cached_tokens"]).min(input);
    usage.input_uncached = usage.input_uncached.saturating_add(input - cached);
    usage.input_cache_read = usage.input_cache_read.saturating_add(cached);
    usage.input_image = usage
        .input_image
        .saturating_add(count(&told["input_tokens_details"]["image_tokens"]).min(input));
    usage.output = usage.output.saturating_add(output);
    usage.output_image = usage.output_image.saturating_add(drawn.min(output));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::replay;
    use serde_json::json;

    fn voice() -> Voice {
        Voice { name: "openai".into(), variable: "OPENAI_API_KEY" }
    }

    fn decoder(body: &Value) -> Images {
        Images::new(Arc::new(voice()), body.as_object().unwrap())
    }

    fn asked(model: &str, change: impl FnOnce(&mut GenerateImageRequest)) -> Value {
        let mut request =
            GenerateImageRequest { prompt: "a goose".into(), ..GenerateImageRequest::default() };
        change(&mut request);
        Value::Object(body(model, &request).unwrap())
    }

    #[test]
    fn nothing_that_was_not_said_is_sent() {
        assert_eq!(
            asked("gpt-image-2", |_| {}),
            json!({"model": "gpt-image-2", "prompt": "a goose"})
        );
        let all = asked("dall-e-3", |request| {
            (request.n, request.size, request.quality) = (2, "64x64".into(), "hd".into());
            request.delivery = ImageDelivery::Data.into();
            request.extra_json = r#"{"style":"vivid","n":9,"stream":true}"#.into();
        });
        assert_eq!(
            all,
            json!({"model": "dall-e-3", "prompt": "a goose", "n": 2, "size": "64x64",
                "quality": "hd", "response_format": "b64_json", "style": "vivid"})
        );
        for model in ["gpt-image-2", "openai/gpt-image-1-mini", "chatgpt-image-latest"] {
            let data = asked(model, |request| request.delivery = ImageDelivery::Data.into());
            assert!(draws_data(model) && data.get("response_format").is_none(), "{model}");
        }
    }

    #[test]
    fn the_recorded_answer_is_read() {
        let Some(folder) = replay::folder() else { return };
        let recorded = std::fs::read(folder.join("openai-other/openai-image.json")).unwrap();
        let mut out = Vec::new();
        decoder(&json!({"n": 2})).whole(&recorded, &mut out).unwrap();
        let [Event::Image(first), Event::Image(second), Event::Finished(end)] = out.as_slice()
        else {
            panic!("{out:?}")
        };
        assert_eq!(first.image.as_ref().unwrap().media_type, "image/png");
        assert!(first.revised_prompt.starts_with("A small and adorable"));
        assert_eq!((second.index, second.revised_prompt.as_str()), (1, ""));
        assert_eq!((end.usage.unwrap().images, end.extra_json.as_str()), (2, ""));
        let refused = folder.join("openai-other/gpt-image-response-format-error.json");
        let refused = std::fs::read(refused).unwrap();
        let error = voice().refusal(Failure::of_status(400, None), &refused);
        assert_eq!(error.failure(), Some(Failure::BadRequest));
        assert!(
            matches!(error, Error::Provider { param: Some(param), .. } if param == "response_format")
        );
    }

    #[test]
    fn a_stream_is_whole_when_all_pictures_have_come() {
        let png = "iVBORw0KGgo=";
        let mut decoder = decoder(&json!({"n": 2, "partial_images": 1}));
        let mut out = Vec::new();
        let mut push = |decoder: &mut Images, event: Value| {
            let event = sse::Event { data: event.to_string(), ..sse::Event::default() };
            decoder.push(&event, &mut out)
        };
        let usage = json!({"input_tokens": 5, "output_tokens": 100,
            "input_tokens_details": {"text_tokens": 3, "image_tokens": 2}});
        assert_eq!(decoder.used(), None);
        for come in 1..=2 {
            let partial = json!({"type": "image_generation.partial_image", "b64_json": png,
                "partial_image_index": 0});
            push(&mut decoder, partial).unwrap();
            assert!(decoder.end(&mut Vec::new()).is_err(), "not whole yet");
            let done = json!({"type": "image_generation.completed", "b64_json": png,
                "usage": usage, "size": "64x64"});
            push(&mut decoder, done).unwrap();
            let used = decoder.used().unwrap();
            assert_eq!((used.images, used.output), (come, 100 * come), "whatever comes of it");
        }
        let broken = json!({"type": "image_generation.completed", "b64_json": "PHN2Zz4="});
        let mut other = self::decoder(&json!({}));
        assert!(push(&mut other, broken).is_err(), "what is no picture is none");
        assert_eq!(out.len(), 5);
        let Some(Event::Finished(end)) = out.last() else { panic!("no end") };
        let usage = end.usage.unwrap();
        assert_eq!((usage.input_uncached, usage.input_image), (10, 4));
        assert_eq!((usage.output, usage.output_image, usage.images), (200, 200, 2));
        assert_eq!(end.extra_json, r#"{"size":"64x64"}"#);
    }
}
