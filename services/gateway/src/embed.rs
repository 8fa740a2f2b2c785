//! `POST /v1/embeddings`.

use crate::{
    body, chat,
    gateway::{Caller, Gateway},
    keys::Scope,
    openai::{embeddings, error::Refusal, usage},
};
use axum::{
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use http::HeaderMap;
use mesh::h2;
use skein_proto::model::v1::model_service_client::ModelServiceClient;

pub async fn embed(State(gateway): State<Gateway>, request: Request) -> Result<Response, Refusal> {
    let call = Caller::of(&request).and_then(|caller| caller.call(Scope::Model));
    let call = call.map_err(|denied| Refusal::of(&denied))?;
    let (body, _room) = body::read_json(&gateway, request).await?;
    let embed = embeddings::parse(&body)?;
    drop(body);
    let mut client = ModelServiceClient::new(gateway.router.clone())
        .max_decoding_message_size(h2::MAX_MESSAGE)
        .max_encoding_message_size(h2::MAX_MESSAGE);
    let response = client.embed(call.request(embed.request)).await;
    let response = response.map_err(|status| Refusal::from_status(&status))?.into_inner();
    let mut headers = HeaderMap::new();
    let cost = response.usage.as_ref().and_then(usage::nano_usd).map(usage::dollars);
    for (name, value) in [
        ("x-skein-region", response.region.as_str()),
        ("x-skein-provider", &response.provider),
        ("x-skein-model", &response.model),
        ("x-skein-cost-usd", cost.as_deref().unwrap_or_default()),
    ] {
        chat::put(&mut headers, name, value);
    }
    Ok((headers, axum::Json(embeddings::answer(&response, embed.base64))).into_response())
}
