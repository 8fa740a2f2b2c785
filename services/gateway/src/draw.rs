//! `POST /v1/images/generations`.
//!
//! Invariants:
//! - The response head waits for the first event, so a call that fails early
//!   fails with a status.
//! - An answer that ends without `finished` is an error, streamed or not.
//! - Dropping the answer cancels the work behind it.

use crate::{
    body, chat,
    gateway::{Caller, Gateway},
    keys::Scope,
    leash,
    openai::{error::Refusal, images},
    sse,
};
use axum::{
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use futures_util::{StreamExt as _, stream::BoxStream};
use mesh::{clock, h2};
use prost::Message as _;
use skein_proto::model::v1::{
    Started, generate_image_response::Event, model_service_client::ModelServiceClient,
};
use tonic::Status;

type Events = BoxStream<'static, Result<Event, Status>>;

pub async fn draw(State(gateway): State<Gateway>, request: Request) -> Result<Response, Refusal> {
    let call = Caller::of(&request).and_then(|caller| caller.call(Scope::Model));
    let call = call.map_err(|denied| Refusal::of(&denied))?;
    let (body, room) = body::read_json(&gateway, request).await?;
    let draw = images::parse(&body)?;
    drop(body);
    let mut client = ModelServiceClient::new(gateway.router.clone())
        .max_decoding_message_size(h2::MAX_MESSAGE)
        .max_encoding_message_size(h2::MAX_MESSAGE);
    let events = client.generate_image(call.request(draw.request)).await;
    let events = events.map_err(|status| Refusal::from_status(&status))?.into_inner();
    drop(room); // the call has been passed on
    let mut events = events
        .filter_map(|event| async { event.map(|response| response.event).transpose() })
        .boxed();
    let started = match events.next().await {
        Some(Ok(Event::Started(started))) => started,
        Some(Err(status)) => return Err(Refusal::from_status(&status)),
        Some(Ok(_)) | None => return Err(Refusal::from_status(&chat::cut())),
    };
    if draw.stream {
        Ok(streamed(&started, events, &gateway))
    } else {
        whole(&started, events, gateway.leashes.longest()).await
    }
}

fn streamed(started: &Started, events: Events, gateway: &Gateway) -> Response {
    let headers = chat::headers(started, None);
    let events = gateway.leaving.end(events);
    let encoder = images::Encoder::new(clock::now_seconds());
    let mut response = sse::response(events, encoder, gateway.keep_alive);
    response.headers_mut().extend(headers);
    response
}

/// An answer that is gathered here is in memory whole: `longest` bounds it.
async fn whole(started: &Started, mut events: Events, longest: u64) -> Result<Response, Refusal> {
    let (mut gathered, mut size) = (images::Gathered::default(), 0);
    while let Some(event) = events.next().await {
        let event = event.map_err(|status| Refusal::from_status(&status))?;
        if let Event::Image(piece) = &event {
            size += piece.encoded_len() as u64;
        }
        if size > longest {
            return Err(Refusal::from_status(&leash::too_large(longest)));
        }
        gathered.push(event);
    }
    let Some(finished) = gathered.finished() else {
        return Err(Refusal::from_status(&chat::cut()));
    };
    let headers = chat::headers(started, finished.usage.as_ref());
    Ok((headers, axum::Json(gathered.answer(clock::now_seconds()))).into_response())
}
