//! The transport over real sockets: how many connections, which one, and what
//! becomes of a call when one breaks.
#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

mod bodies;
mod breaks;
mod lanes;
mod reach;
mod server;
mod wire;

use bytes::Bytes;
use model_proxy::{
    config::Network,
    transport::{Lost, Reply, Sending, Transport},
};
use std::{path::Path, time::Duration};

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn transport(network: &Network) -> Transport {
    Transport::new(network, LONG).unwrap()
}

/// Trusts the servers of these tests.
fn network(ca: &Path) -> Network {
    Network { ca_file: Some(ca.to_owned()), ..Network::default() }
}

/// A call that may be sent again.
async fn call(transport: &Transport, url: &str) -> Result<Reply, Lost> {
    post(transport, url, true).await
}

async fn post(transport: &Transport, url: &str, repeatable: bool) -> Result<Reply, Lost> {
    let request = http::Request::post(url).body(Bytes::from_static(b"{}")).unwrap();
    let sending = Sending { connect: LONG, repeatable };
    tokio::time::timeout(LONG, transport.send(request, sending)).await.unwrap()
}

async fn text(mut reply: Reply) -> String {
    let mut all = Vec::new();
    while let Some(piece) = reply.chunk().await.unwrap() {
        all.extend_from_slice(&piece);
    }
    String::from_utf8(all).unwrap()
}

/// Waits until `done`, which it must become.
async fn until(what: &str, done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, waiting).await.is_ok(), "never: {what}");
}
