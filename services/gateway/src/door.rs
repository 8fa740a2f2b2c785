//! The one way in for calls that are work: a good key, within its limits.
//! Handlers get a [`Caller`] from here and nowhere else. Administration comes in
//! by another way: an operator is not limited.
//!
//! Invariants:
//! - A slot that is taken here lives in the body of the answer and comes back
//!   when that ends, however it ends.
//! - Every answer to a key with a limit of calls says where the key stands.

use crate::{
    gateway::{Caller, Gateway},
    keys::{Denied, Key},
    limits::{
        local::Admitted,
        told::{Limited, Told},
    },
    openai::error::Refusal,
};
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use mesh::error;
use std::sync::Arc;
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
    let key = Arc::clone(caller.key());
    request.extensions_mut().insert(caller);
    let mut response = work(request).await;
    told.put(response.headers_mut());
    let (head, body) = response.into_parts();
    let body = gateway.leashes.tie(key, &head.headers, body, slot);
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
