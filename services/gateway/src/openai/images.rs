//! `POST /v1/images/generations`: request, answer, and the events of a streamed
//! one.
//!
//! Invariants:
//! - `response_format` says how pictures are delivered, for every model; where it
//!   is not given, they come as the provider gives them.
//! - A streamed picture is always data: its events have no place for a URL.
//! - The pieces of a large picture are joined before anybody sees it.

use super::{error::Refusal, fields::Fields, usage::ImageUsage};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value, json};
use skein_proto::model::v1::{
    GenerateImageRequest, Image, ImageDelivery, ImageDone, ImageProgress, ImagesFinished,
    generate_image_response::Event, image::Source,
};
use std::collections::BTreeMap;

pub struct Draw {
    pub request: GenerateImageRequest,
    pub stream: bool,
}

pub fn parse(body: &[u8]) -> Result<Draw, Refusal> {
    let body: Value = serde_json::from_slice(body).map_err(|error| Refusal::bad_json(&error))?;
    let mut fields = Fields::of(body, "")?;
    let model = fields.required_text("model")?;
    if model.is_empty() {
        return Err(fields.out_of_range("model", "empty", "the name of a model"));
    }
    let prompt = fields.required_text("prompt")?;
    if prompt.trim().is_empty() {
        return Err(fields.out_of_range("prompt", "empty", "what to draw"));
    }
    let n = fields.integer_in("n", 1, 10)?.and_then(|n| i32::try_from(n).ok());
    let stream = fields.flag("stream")?.unwrap_or_default();
    let delivery = delivery(&mut fields, stream)?;
    if let Some(partial) = fields.integer_in("partial_images", 0, 3)? {
        if !stream {
            return Err(fields.out_of_range(
                "partial_images",
                "given",
                "left out without `stream`",
            ));
        }
        fields.put_back("partial_images", partial.into());
    }
    let request = GenerateImageRequest {
        call_id: uuid::Uuid::now_v7().to_string(),
        model,
        prompt,
        n: n.unwrap_or_default(),
        size: fields.text("size")?.unwrap_or_default(),
        quality: fields.text("quality")?.unwrap_or_default(),
        delivery: delivery.into(),
        extra_json: fields.extra(),
    };
    Ok(Draw { request, stream })
}

fn delivery(fields: &mut Fields, stream: bool) -> Result<ImageDelivery, Refusal> {
    let wrong = |fields: &Fields, found: &str, wanted: &str| {
        Err(fields.out_of_range("response_format", &format!("{found:?}"), wanted))
    };
    match (fields.text("response_format")?.as_deref(), stream) {
        (Some("url"), true) => wrong(fields, "url", "b64_json with `stream`"),
        (Some("url"), false) => Ok(ImageDelivery::Url),
        (Some("b64_json"), _) | (None, true) => Ok(ImageDelivery::Data),
        (None, false) => Ok(ImageDelivery::Unspecified),
        (Some(other), _) => wrong(fields, other, "url or b64_json"),
    }
}

/// A picture that is whole.
struct Picture {
    image: Image,
    revised_prompt: String,
}

impl Picture {
    fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        match &self.image.source {
            Some(Source::Url(url)) => fields.insert("url".into(), url.as_str().into()),
            Some(Source::Data(data)) => {
                fields.insert("b64_json".into(), STANDARD.encode(data).into())
            }
            None => None,
        };
        if !self.revised_prompt.is_empty() {
            fields.insert("revised_prompt".into(), self.revised_prompt.as_str().into());
        }
        fields
    }
}

/// Joins the pieces of pictures.
#[derive(Default)]
struct Pieces(BTreeMap<u32, BytesMut>);

impl Pieces {
    /// The picture that `piece` completes.
    fn push(&mut self, piece: ImageDone) -> Option<Picture> {
        let mut image = piece.image.unwrap_or_default();
        match image.source.take() {
            Some(Source::Data(data)) if piece.more => {
                self.0.entry(piece.index).or_default().extend_from_slice(&data);
                return None;
            }
            Some(Source::Data(data)) => {
                image.source = Some(Source::Data(self.join(piece.index, data)));
            }
            other => image.source = other,
        }
        Some(Picture { image, revised_prompt: piece.revised_prompt })
    }

    fn join(&mut self, index: u32, last: Bytes) -> Bytes {
        let Some(mut whole) = self.0.remove(&index) else { return last };
        whole.extend_from_slice(&last);
        whole.freeze()
    }
}

/// An answer that is gathered.
#[derive(Default)]
pub struct Gathered {
    pieces: Pieces,
    data: Vec<Value>,
    finished: Option<ImagesFinished>,
}

impl Gathered {
    pub fn push(&mut self, event: Event) {
        match event {
            Event::Image(piece) => {
                let picture = self.pieces.push(piece);
                self.data.extend(picture.map(|picture| Value::Object(picture.fields())));
            }
            Event::Finished(finished) => self.finished = Some(finished),
            Event::Started(_) | Event::Progress(_) => {}
        }
    }

    pub const fn finished(&self) -> Option<&ImagesFinished> {
        self.finished.as_ref()
    }

    pub fn answer(self, created: i64) -> Value {
        let finished = self.finished.unwrap_or_default();
        let mut answer: Map<String, Value> =
            serde_json::from_str(&finished.extra_json).unwrap_or_default();
        answer.insert("created".into(), created.into());
        answer.insert("data".into(), self.data.into());
        answer.extend(counted(&finished));
        answer.into()
    }
}

/// `usage`, where tokens were counted at all.
fn counted(finished: &ImagesFinished) -> Option<(String, Value)> {
    let usage = finished.usage.as_ref().and_then(ImageUsage::of)?;
    Some(("usage".to_owned(), json!(usage)))
}

/// A streamed answer: from our events to OpenAI's.
pub struct Encoder {
    created: i64,
    pieces: Pieces,
    /// Of the picture under way.
    partial: u64,
    /// Held until it is known whether it is the last, which has the usage.
    last: Option<Picture>,
}

impl Encoder {
    pub fn new(created: i64) -> Self {
        Self { created, pieces: Pieces::default(), partial: 0, last: None }
    }

    /// Appends what `event` is on the wire.
    pub fn push(&mut self, event: Event, out: &mut String) {
        match event {
            Event::Started(_) => {}
            Event::Progress(progress) => self.progress(progress, out),
            Event::Image(piece) => {
                if let Some(picture) = self.pieces.push(piece)
                    && let Some(before) = self.last.replace(picture)
                {
                    self.completed(&before, &ImagesFinished::default(), out);
                }
            }
            Event::Finished(finished) => {
                if let Some(last) = self.last.take() {
                    self.completed(&last, &finished, out);
                }
            }
        }
    }

    fn progress(&mut self, progress: ImageProgress, out: &mut String) {
        // How far it is has no word in OpenAI's events; a picture does.
        let Some(Image { source: Some(Source::Data(data)), .. }) = progress.preview else { return };
        let mut fields = Map::new();
        fields.insert("partial_image_index".into(), self.partial.into());
        fields.insert("b64_json".into(), STANDARD.encode(data).into());
        self.partial += 1;
        self.write("image_generation.partial_image", fields, out);
    }

    fn completed(&mut self, picture: &Picture, finished: &ImagesFinished, out: &mut String) {
        let mut fields: Map<String, Value> =
            serde_json::from_str(&finished.extra_json).unwrap_or_default();
        fields.extend(picture.fields());
        fields.extend(counted(finished));
        self.partial = 0;
        self.write("image_generation.completed", fields, out);
    }

    fn write(&self, kind: &str, mut fields: Map<String, Value>, out: &mut String) {
        fields.insert("type".into(), kind.into());
        fields.insert("created_at".into(), self.created.into());
        out.push_str(&format!("event: {kind}\ndata: {}\n\n", Value::Object(fields)));
    }
}

#[cfg(test)]
#[path = "images_tests.rs"]
mod tests;
