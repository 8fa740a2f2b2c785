//! What Replicate tells the caller's own server, and how it signs it.
//!
//! Invariants:
//! - One event has one id, however often it is sent.
//! - `start` and `completed` come once each; `logs` and `output` at most every
//!   500 ms.

use super::{prediction::Status, store::Store};
use crate::time;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

const KEY: &[u8; 32] = b"skein fake replicate signing key";
const FORGED: &[u8; 32] = b"a key that nobody was ever given";
const TRIES: u32 = 5;
const BETWEEN_OUTPUTS: Duration = Duration::from_millis(500);

pub(super) struct Webhooks {
    client: Client<HttpConnector, Full<Bytes>>,
    sent: AtomicU64,
    pub(super) forged: AtomicBool,
}

/// Where to, and which events.
pub(super) struct Wanted {
    url: String,
    events: Vec<String>,
}

impl Wanted {
    pub(super) fn of(request: &Value) -> Option<Self> {
        let url = request["webhook"].as_str()?.to_owned();
        let filter = request["webhook_events_filter"].as_array();
        let events = match filter {
            Some(filter) => filter.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            None => ["start", "output", "logs", "completed"].map(str::to_owned).into(),
        };
        Some(Self { url, events })
    }

    fn has(&self, event: &str) -> bool {
        self.events.iter().any(|wanted| wanted == event)
    }
}

/// The answer to `GET /v1/webhooks/default/secret`.
pub(super) fn secret() -> Value {
    json!({"key": format!("whsec_{}", STANDARD.encode(KEY))})
}

impl Webhooks {
    pub(super) fn new() -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            sent: AtomicU64::new(0),
            forged: AtomicBool::new(false),
        }
    }

    /// Tells `wanted` all about a prediction until it has ended.
    pub(super) async fn tell(&self, store: &Arc<Store>, id: &str, wanted: &Wanted, origin: &str) {
        let mut begun = false;
        let mut told = 0;
        let mut quiet_until = Duration::ZERO;
        while let Some((status, pieces)) = store.seen(id) {
            let send = async |event: &str| {
                if wanted.has(event)
                    && let Some(body) = store.json(id, origin)
                {
                    self.deliver(&wanted.url, body.to_string()).await;
                }
            };
            if !begun && status != Status::Starting {
                begun = true;
                send("start").await;
            }
            if status.is_final() {
                return send("completed").await;
            }
            if pieces > told && store.clock.now() >= quiet_until {
                told = pieces;
                quiet_until = store.clock.now() + BETWEEN_OUTPUTS;
                send("logs").await;
                send("output").await;
            }
            store.changes(id).await;
        }
    }

    /// Tries again while the answer is not a 2xx; redirects are not followed.
    async fn deliver(&self, url: &str, body: String) {
        let number = self.sent.fetch_add(1, Ordering::Relaxed) + 1;
        let id = format!("msg_{number:024}");
        for attempt in 0..TRIES {
            let timestamp = time::now().as_secs().to_string();
            let forged = self.forged.load(Ordering::Relaxed);
            let key = if forged { FORGED } else { KEY };
            let signature =
                STANDARD.encode(hmac(key, format!("{id}.{timestamp}.{body}").as_bytes()));
            let request = http::Request::post(url)
                .header("content-type", "application/json")
                .header("webhook-id", &id)
                .header("webhook-timestamp", timestamp)
                .header("webhook-signature", format!("v1,{signature}"))
                .body(Full::from(body.clone()));
            let Ok(request) = request else { return };
            let answer = self.client.request(request).await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20) * 2_u32.pow(attempt)).await;
        }
    }
}

/// RFC 2104 with SHA-256; the key is no longer than a block.
fn hmac(key: &[u8], content: &[u8]) -> [u8; 32] {
    let padded = |with: u8| -> Vec<u8> {
        let key = key.iter().copied().chain(std::iter::repeat(0));
        key.take(64).map(|byte| byte ^ with).collect()
    };
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(content).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_rfc_4231s() {
        let made = hmac(b"Jefe", b"what do ya want for nothing?");
        let wanted = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex::encode(made), wanted);
    }
}
