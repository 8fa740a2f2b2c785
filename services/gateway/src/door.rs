//! The one way in for calls that are work: a good key, within its limits.
//! Handlers get a [`Caller`] from here and nowhere else. Administration comes in
//! by another way: an operator is not limited.
//!
//! Invariants:
//! - A slot that is taken here lives in the body of the answer and comes back
//!   when that ends, however it ends.
//! - The head of an answer is there by the call's deadline, however slowly the
//!   request's body comes and whatever the store does.
//! - A request with an idempotency key spends of its key's limits like any
//!   other, replayed or not.
//! - Every answer to a key with a limit of calls says where the key stands.

use crate::{
    body, forward,
    gateway::{Caller, Counted, Gateway, OnLeash},
    idempotency::{self, Claimed, Fingerprint, kept::Ours, replay},
    keys::{Denied, Key},
    limits::{
        local::Admitted,
        told::{Limited, Told},
    },
    openai::error::Refusal,
};
use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::Method;
use mesh::error;
use std::sync::Arc;
use tokio::time::timeout_at;
use tonic::Status;

/// How a refusal is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    OpenAi,
    Grpc,
}

/// Why a call was not let in.
pub enum Refused {
    Denied(Denied),
    Limited(Limited, Arc<Key>),
}

impl Surface {
    pub fn refuse(self, refused: &Refused) -> Response {
        let status = match (self, refused) {
            (Self::OpenAi, Refused::Denied(denied)) => return Refusal::of(denied).into_response(),
            (Self::Grpc, Refused::Denied(denied)) => error::to_status(denied),
            (_, Refused::Limited(limited, key)) => limited.status(&key.principal),
        };
        let mut response = self.answer(&status);
        if let Refused::Limited(limited, _) = refused {
            limited.told.put(response.headers_mut());
        }
        response
    }

    pub fn answer(self, status: &Status) -> Response {
        match self {
            Self::OpenAi => Refusal::from_status(status).into_response(),
            Self::Grpc => status.clone().into_http(),
        }
    }
}

/// The door of OpenAI's routes.
pub async fn openai(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    through(&gateway, Surface::OpenAi, request, |request| next.run(request)).await
}

/// Lets `request` through to `work`, or refuses it.
pub async fn through<F: Future<Output = Response>>(
    gateway: &Gateway,
    surface: Surface,
    mut request: Request,
    work: impl FnOnce(Request) -> F,
) -> Response {
    let caller = gateway.caller(request.headers(), request.extensions());
    let entered = match caller {
        Ok(caller) => limit(gateway, caller).await,
        Err(denied) => Err(Refused::Denied(denied)),
    };
    let (caller, slot, told) = match entered {
        Ok(entered) => entered,
        Err(refused) => return surface.refuse(&refused),
    };
    let (key, deadline) = (Arc::clone(caller.key()), caller.deadline());
    request.extensions_mut().insert(caller);
    let counted = request.extensions_mut().remove::<Counted>();
    let answer = async {
        match once(gateway, surface, request).await {
            Ok(Once::Plain(request)) => work(request).await,
            Ok(Once::Claimed(request, ours)) => ours.keep(work(request).await).await,
            Ok(Once::Answered(response)) | Err(response) => response,
        }
    };
    let answer = timeout_at(deadline, answer).await;
    let mut response = answer.unwrap_or_else(|_| surface.answer(&mesh::deadline::exceeded()));
    told.put(response.headers_mut());
    let (mut head, body) = response.into_parts();
    let body = gateway.leashes.tie(key, &head.headers, body, (slot, counted));
    head.extensions.insert(OnLeash);
    Response::from_parts(head, body)
}

async fn limit(
    gateway: &Gateway,
    caller: Caller,
) -> Result<(Caller, Option<Admitted>, Told), Refused> {
    let entered = gateway.limits.enter(caller.key()).await;
    let entered = entered.map_err(|limited| Refused::Limited(limited, Arc::clone(caller.key())))?;
    let (slot, told) = entered.unzip();
    Ok((caller, slot, told.unwrap_or_default()))
}

/// What an idempotency key makes of a request.
enum Once {
    /// It has none.
    Plain(Request),
    Claimed(Request, Ours),
    Answered(Response),
}

async fn once(gateway: &Gateway, surface: Surface, request: Request) -> Result<Once, Response> {
    let refuse = |status: Status| surface.answer(&status);
    let key = idempotency::key_of(request.headers()).map_err(refuse)?.map(str::to_owned);
    let Some(idempotency_key) = key.filter(|_| request.method() == Method::POST) else {
        return Ok(Once::Plain(request));
    };
    let caller = Caller::of(&request).map_err(|denied| refuse(error::to_status(&denied)))?.clone();
    let (mut head, body) = request.into_parts();
    let path = head.uri.path();
    let body = match surface {
        Surface::OpenAi => body::read(gateway, body).await.map_err(Refusal::into_response),
        Surface::Grpc => forward::read(gateway, path, body).await.map_err(refuse),
    };
    let (body, room) = body?;
    let fingerprint = Fingerprint::of(caller.key(), path, &idempotency_key, &body);
    let claimed = idempotency::claim(&gateway.claims, fingerprint, caller.lapses()).await;
    match claimed.map_err(refuse)? {
        Claimed::Replay(answer) => Ok(Once::Answered(replay::response(answer))),
        Claimed::Run(ours) => {
            head.headers.remove(idempotency::HEADER);
            drop(room); // counted again by whoever reads it
            Ok(Once::Claimed(Request::from_parts(head, Body::from(body)), ours))
        }
    }
}
