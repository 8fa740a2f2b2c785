//! A key is replaced while machines before and after each step call each other:
//! tokens and `Hello` hold over real sockets.

#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

use mesh::{
    Call, World,
    config::Secret,
    keys::{self, Generated},
    ready::Readiness,
    serve::{self, Private},
};
use skein_proto::mesh::v1::{StatusRequest, peer_service_client::PeerServiceClient};
use std::time::Duration;
use tonic::{Status, service::Routes};

/// What the apps hold when the router has `secret` and everybody `peers`.
fn step(made: &Generated, secret: &Secret, peers: &str) -> Generated {
    let mut secrets = made.secrets.clone();
    secrets.insert("router".to_owned(), secret.clone());
    Generated { secrets, peers: peers.to_owned() }
}

/// `from` with the keys of one step calls `to` with those of another.
async fn call(
    from: (&'static str, &Generated),
    to: (&'static str, &Generated),
) -> Result<(), Status> {
    let world = World::local(to.0, to.1, &[]).await.unwrap();
    let (addr, _stop) = (world.addr().unwrap(), world.stop.clone().drop_guard());
    let routes = Routes::default();
    let service =
        Private { routes, issuers: &["gateway", "router"], readiness: Readiness::default() };
    tokio::spawn(serve::private(world, service));
    let caller = World::local(from.0, from.1, &[(to.0, addr)]).await.unwrap();
    let mut peer = PeerServiceClient::new(caller.network.channel(to.0));
    let asked = Call::new("", from.0, Duration::from_secs(10)).request(StatusRequest::default());
    peer.status(asked).await.map(drop)
}

#[tokio::test]
async fn nobody_is_refused_between_the_steps_and_the_old_key_is_worth_nothing_after() {
    let made = keys::generate(&["gateway", "router"]).unwrap();
    let rotation = keys::rotate("router", &made.peers).unwrap();
    let old = &made.secrets["router"];
    let steps = [
        step(&made, old, &made.peers),
        step(&made, old, &rotation.both),
        step(&made, &rotation.secret, &rotation.both),
        step(&made, &rotation.secret, &rotation.new),
    ];
    for pair in steps.windows(2) {
        for (one, other) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
            call(("router", one), ("gateway", other)).await.unwrap();
            call(("gateway", one), ("router", other)).await.unwrap();
        }
    }
    assert!(call(("router", &steps[0]), ("gateway", &steps[3])).await.is_err(), "its tokens");
    assert!(call(("gateway", &steps[3]), ("router", &steps[0])).await.is_err(), "its Hello");
}
