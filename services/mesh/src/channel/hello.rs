//! The caller's side of `Hello`: is this the app we meant, and can it prove it?
//!
//! Invariant: an address is never an identity. A callee counts only after it
//! has signed a nonce of ours together with who it claims to be.

use super::connection::Connection;
use crate::{identity, keys::Keys, peer::hello_text};
use skein_proto::mesh::v1::{HelloRequest, Identity, peer_service_client::PeerServiceClient};
use std::sync::Arc;

/// Whom we mean, and as whom we ask.
pub(super) struct Greeter {
    pub(super) role: &'static str,
    pub(super) app: String,
    pub(super) own: identity::Identity,
    pub(super) keys: Arc<Keys>,
}

/// Who answered.
pub(super) struct Callee {
    pub(super) identity: Identity,
    pub(super) runtimes: usize,
}

/// Why a callee does not count.
#[derive(Debug, thiserror::Error)]
pub(super) enum Doubt {
    #[error("{0}")]
    NotMeant(String),
    #[error("greeting failed: {0}")]
    Failed(String),
}

impl Greeter {
    /// The role that answers there: the audience of our tokens.
    pub(super) fn role(&self) -> &'static str {
        self.role
    }

    pub(super) async fn greet(&self, connection: Connection) -> Result<Callee, Doubt> {
        let mut nonce = vec![0; 32];
        getrandom::fill(&mut nonce).map_err(|error| Doubt::Failed(error.to_string()))?;
        let caller = Some(self.own.to_wire());
        let hello = HelloRequest { nonce: nonce.clone().into(), caller };
        let answer = PeerServiceClient::new(connection).hello(hello).await;
        let answer = answer.map_err(|status| Doubt::Failed(status.message().to_owned()))?;
        let answer = answer.into_inner();
        let identity = answer.callee.unwrap_or_default();
        if identity.app != self.app || identity.role != self.role {
            let message = format!("it says it is {:?} ({:?})", identity.app, identity.role);
            return Err(Doubt::NotMeant(message));
        }
        let text = hello_text(&nonce, &identity);
        if !self.keys.verify(self.role, &text, &answer.signature) {
            return Err(Doubt::NotMeant(format!("it cannot prove that it is {}", self.app)));
        }
        let runtimes = usize::try_from(answer.runtimes).unwrap_or(1);
        Ok(Callee { identity, runtimes })
    }
}
