//! The events of a picture call as `GenerateImage` answers them.
//!
//! Invariants:
//! - `started`, then progress and pictures, then `finished` or an error status.
//! - No message holds more than [`PIECE`] of a finished picture: one that is
//!   larger comes in pieces, all but the last marked `more`.

use super::{Answers, broken};
use crate::{call::Events, error::Error, provider::Event, record::Record};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use skein_proto::model::v1::{
    GenerateImageResponse, Image, ImageDone, ImagesFinished, generate_image_response, image::Source,
};
use tonic::Status;

/// Other calls share the connection: none waits for more than this.
pub(super) const PIECE: usize = 256 << 10;

/// Events as answers, up to and including the terminal one.
pub(super) fn answers(events: Events, record: Record) -> Answers<GenerateImageResponse> {
    let messages = stream::unfold(Some((events, record)), |state| async {
        let (mut events, mut record) = state?;
        let event = match events.next().await? {
            Ok(Event::Image(done)) => {
                record.image();
                let images = pieces(done).into_iter().map(generate_image_response::Event::Image);
                return Some((images.map(answer).collect(), Some((events, record))));
            }
            Ok(Event::Progress(progress)) => generate_image_response::Event::Progress(progress),
            Ok(Event::Finished(mut finished)) => {
                record.finish(&mut finished).await;
                let (usage, extra_json) = (finished.usage, finished.extra_json);
                let finished = ImagesFinished { usage, extra_json };
                let event = generate_image_response::Event::Finished(finished);
                return Some((vec![answer(event)], None));
            }
            Ok(Event::Delta(_)) => {
                drop(events);
                let error = Error::Local("a picture call brought text".to_owned());
                return Some((vec![Err(broken(&mut record, &error).await)], None));
            }
            Err(error) => {
                // A try that has ended says what it used: the picture that could
                // not be delivered is drawn and paid for.
                drop(events);
                return Some((vec![Err(broken(&mut record, &error).await)], None));
            }
        };
        Some((vec![answer(event)], Some((events, record))))
    });
    Box::pin(messages.flat_map(stream::iter))
}

fn answer(event: generate_image_response::Event) -> Result<GenerateImageResponse, Status> {
    Ok(GenerateImageResponse { event: Some(event) })
}

fn pieces(done: ImageDone) -> Vec<ImageDone> {
    let Some(Image { source: Some(Source::Data(data)), media_type, .. }) = &done.image else {
        return vec![done];
    };
    let mut rest = data.clone();
    let piece = |data: Bytes, more: bool| {
        let media_type = media_type.clone();
        let image = Image { source: Some(Source::Data(data)), media_type, ..Image::default() };
        ImageDone { index: done.index, image: Some(image), more, ..ImageDone::default() }
    };
    let mut pieces = Vec::new();
    while rest.len() > PIECE {
        pieces.push(piece(rest.split_to(PIECE), true));
    }
    // What is said of the picture comes with its end.
    let last = piece(rest, false);
    pieces.push(ImageDone { revised_prompt: done.revised_prompt.clone(), ..last });
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_picture_comes_in_pieces() {
        for (size, count) in [(0, 1), (PIECE, 1), (PIECE + 1, 2), (3 * PIECE, 3)] {
            let data: Bytes = (0..size).map(|at| at.to_le_bytes()[0]).collect();
            let image = Image { source: Some(Source::Data(data.clone())), ..Image::default() };
            let pieces = pieces(ImageDone {
                index: 2,
                image: Some(image),
                revised_prompt: "better".into(),
                ..ImageDone::default()
            });
            assert_eq!(pieces.len(), count, "{size}");
            let mut joined = Vec::new();
            for (at, piece) in pieces.iter().enumerate() {
                let last = at + 1 == count;
                assert_eq!((piece.index, piece.more), (2, !last));
                assert_eq!(piece.revised_prompt.is_empty(), !last);
                let Some(Source::Data(data)) = &piece.image.as_ref().unwrap().source else {
                    panic!("no data");
                };
                joined.extend_from_slice(data);
            }
            assert_eq!(joined, data);
        }
    }
}
