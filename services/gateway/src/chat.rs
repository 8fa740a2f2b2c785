//! `POST /v1/chat/completions`, answered by a model or by an agent.
//!
//! Invariants:
//! - The response head waits for the first event, so a call that fails early
//!   fails with a status.
//! - A stream that ends without `finished` is an error, streamed or not.
//! - Dropping the answer cancels the work behind it.

use crate::{
    body,
    gateway::{Caller, Gateway},
    keys::Scope,
    leash,
    openai::{chunks::Encoder, error::Refusal, request, usage, whole::Gathered},
    run, sse,
};
use axum::{
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use futures_util::{StreamExt as _, stream::BoxStream};
use http::{HeaderMap, HeaderValue};
use mesh::{Call, clock, error, h2};
use skein_proto::model::v1::{
    CacheStatus, GenerateRequest, Started, Usage, generate_response::Event,
    model_service_client::ModelServiceClient,
};
use tonic::Status;

/// An answer that has begun.
pub struct Answer {
    pub started: Started,
    /// What follows `started`.
    pub events: BoxStream<'static, Result<Event, Status>>,
}

pub async fn complete(
    State(gateway): State<Gateway>,
    request: Request,
) -> Result<Response, Refusal> {
    let caller = Caller::of(&request).map_err(|denied| Refusal::of(&denied))?.clone();
    let (body, room) = body::read_json(&gateway, request).await?;
    let chat = request::parse(&body)?;
    drop(body);
    let agent = chat.generate.model.strip_prefix(run::PREFIX).map(str::to_owned);
    let scope = if agent.is_some() { Scope::Agent } else { Scope::Model };
    let call = caller.call(scope).map_err(|denied| Refusal::of(&denied))?;
    let answer = match agent {
        Some(agent) => run::start(&gateway, &call, agent, chat.generate).await?,
        None => generate(&gateway, &call, chat.generate).await?,
    };
    drop(room); // the call has been passed on
    if chat.stream {
        Ok(streamed(answer, chat.include_usage, &gateway))
    } else {
        whole(answer, gateway.leashes.longest()).await
    }
}

async fn generate(
    gateway: &Gateway,
    call: &Call,
    request: GenerateRequest,
) -> Result<Answer, Refusal> {
    let mut client = ModelServiceClient::new(gateway.router.clone())
        .max_decoding_message_size(h2::MAX_MESSAGE)
        .max_encoding_message_size(h2::MAX_MESSAGE);
    let call_id = request.call_id.clone();
    let model = request.model.clone();
    let events = client.generate(call.request(request)).await;
    let events = events.map_err(|status| Refusal::from_status(&status))?.into_inner();
    let events =
        events.filter_map(|event| async { event.map(|response| response.event).transpose() });
    begin(events.boxed(), Started { call_id, model, ..Started::default() }).await
}

/// Waits for the first event; `fallback` if that is not `started`.
pub async fn begin(
    mut events: BoxStream<'static, Result<Event, Status>>,
    fallback: Started,
) -> Result<Answer, Refusal> {
    match events.next().await {
        Some(Ok(Event::Started(mut started))) => {
            if started.call_id.is_empty() {
                started.call_id = fallback.call_id;
            }
            Ok(Answer { started, events })
        }
        Some(Ok(other)) => {
            let first = futures_util::stream::iter([Ok(other)]);
            Ok(Answer { started: fallback, events: first.chain(events).boxed() })
        }
        Some(Err(status)) => Err(Refusal::from_status(&status)),
        None => Err(Refusal::from_status(&cut())),
    }
}

/// The other side stopped talking without an end.
pub fn cut() -> Status {
    let message = "the answer broke off before its end".to_owned();
    error::status(error::Kind::Unavailable, Some("STREAM_CUT"), None, message)
}

fn streamed(answer: Answer, include_usage: bool, gateway: &Gateway) -> Response {
    let headers = headers(&answer.started, None);
    let encoder = Encoder::new(&answer.started, clock::now_seconds(), include_usage);
    let events = gateway.leaving.end(answer.events);
    let mut response = sse::response(events, encoder, gateway.keep_alive);
    response.headers_mut().extend(headers);
    response
}

/// An answer that is gathered here is in memory whole: `longest` bounds it.
async fn whole(mut answer: Answer, longest: u64) -> Result<Response, Refusal> {
    let (mut gathered, mut size) = (Gathered::default(), 0);
    while let Some(event) = answer.events.next().await {
        let event = event.map_err(|status| Refusal::from_status(&status))?;
        size += event.encoded_len() as u64;
        if size > longest {
            return Err(Refusal::from_status(&leash::too_large(longest)));
        }
        gathered.push(event);
    }
    let Some(finished) = gathered.finished() else { return Err(Refusal::from_status(&cut())) };
    let headers = headers(&answer.started, finished.usage.as_ref());
    let completion = gathered.completion(&answer.started, clock::now_seconds());
    Ok((headers, axum::Json(completion)).into_response())
}

/// Where an answer came from and, once it is whole, what it cost.
pub fn headers(started: &Started, usage: Option<&Usage>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let cache = match started.cache() {
        CacheStatus::Unspecified => "",
        CacheStatus::Miss => "miss",
        CacheStatus::Hit => "hit",
        CacheStatus::Coalesced => "coalesced",
    };
    let degraded = match (started.degraded_reason.as_str(), started.degraded) {
        ("", true) => "yes",
        (reason, _) => reason,
    };
    let cost = usage.and_then(usage::nano_usd);
    let cost = cost.map(usage::dollars).unwrap_or_default();
    for (name, value) in [
        ("x-skein-region", started.region.as_str()),
        ("x-skein-provider", &started.provider),
        ("x-skein-model", &started.model),
        ("x-skein-cache", cache),
        ("x-skein-degraded", degraded),
        ("x-skein-cost-usd", &cost),
    ] {
        put(&mut headers, name, value);
    }
    headers
}

/// Header values are ASCII; what is not becomes `?`.
pub fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    let ascii: String =
        value.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    if let (false, Ok(value)) = (ascii.is_empty(), HeaderValue::from_str(&ascii)) {
        headers.insert(name, value);
    }
}
