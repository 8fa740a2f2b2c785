//! Pictures of the fake router, by the name of the model.

use crate::fakes::{Dropped, Events, Seen, started, unavailable, usage};
use futures_util::{StreamExt as _, stream};
use mesh::error::{self, Kind};
use skein_proto::model::v1::{
    GenerateImageRequest, GenerateImageResponse, Image, ImageDone, ImageProgress, ImagesFinished,
    generate_image_response::Event, image::Source,
};
use std::sync::Arc;
use tonic::Status;

fn picture(data: &'static [u8]) -> Option<Image> {
    let source = Some(Source::Data(data.into()));
    Some(Image { source, media_type: "image/png".into(), ..Image::default() })
}

fn piece(image: Option<Image>, more: bool) -> Event {
    Event::Image(ImageDone { image, more, ..ImageDone::default() })
}

fn script(model: &str) -> Vec<Result<Event, Status>> {
    let extra_json = r#"{"output_format":"png"}"#.to_owned();
    let finished = Event::Finished(ImagesFinished { usage: Some(usage()), extra_json });
    let progress = Event::Progress(ImageProgress {
        done: 0.5,
        preview: picture(b"half"),
        ..Default::default()
    });
    let head = vec![Ok(Event::Started(started())), Ok(progress), Ok(piece(picture(b"who"), true))];
    let tail = match model {
        "cut" => vec![],
        "breaks" => vec![Err(unavailable())],
        "large" => vec![Ok(piece(picture(&[0; 4096]), true))],
        _ => vec![Ok(piece(picture(b"le"), false)), Ok(finished)],
    };
    [head, tail].concat()
}

pub(crate) fn answer(
    seen: &Arc<Seen>,
    request: GenerateImageRequest,
) -> Result<Events<GenerateImageResponse>, Status> {
    let model = request.model.clone();
    *seen.image.lock().unwrap() = Some(request);
    let response = |event| GenerateImageResponse { event: Some(event) };
    match model.as_str() {
        "homeless" => {
            let message = "a URL is wanted of a picture that comes as data: set BUCKET_NAME";
            let kind = Kind::FailedPrecondition;
            let reason = Some("OBJECT_STORE_MISSING");
            Err(error::status(kind, reason, Some("delivery"), message.into()))
        }
        "hangs" => {
            let guard = Dropped(Arc::clone(seen));
            let head = stream::iter([Ok(response(Event::Started(started())))]);
            let rest = stream::once(async move {
                let _until_dropped = guard;
                std::future::pending().await
            });
            Ok(head.chain(rest).boxed())
        }
        model => {
            let events = script(model).into_iter().map(move |event| event.map(response));
            Ok(stream::iter(events.collect::<Vec<_>>()).boxed())
        }
    }
}
