//! How many connections there are, and who is on which.

use crate::{
    LONG, call, network,
    server::{End, Server},
    text, transport, until,
};
use futures_util::future::join_all;
use model_proxy::config::Network;
use std::time::Duration;

#[tokio::test]
async fn many_streams_share_few_connections_and_none_waits() {
    let server = Server::start(100).await;
    let transport = transport(&network(&server.ca));
    let url = server.at("/hold");
    let calls = (0..250).map(|_| call(&transport, &url));
    let held: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert!(held.iter().all(|reply| reply.status() == 200));
    // 80 on each; four are what 250 need, and one may be opened ahead.
    assert!((3..=5).contains(&server.connections()), "{}", server.connections());
    assert_eq!(server.streams(), 250);

    // Leaving resets the streams and leaves the connections.
    let (connections, open) = (server.connections(), server.open());
    drop(held);
    until("every stream is reset", || server.streams() == 0).await;
    text(call(&transport, &server.at("/")).await.unwrap()).await;
    assert_eq!((server.connections(), server.open()), (connections, open));
}

#[tokio::test]
async fn another_connection_is_opened_before_the_first_is_full() {
    let server = Server::start(100).await;
    let network = Network { streams_per_connection: 10, ..network(&server.ca) };
    let transport = transport(&network);
    let mut held = Vec::new();
    for _ in 0..7 {
        held.push(call(&transport, &server.at("/hold")).await.unwrap());
    }
    assert_eq!(server.connections(), 1);
    for _ in 0..2 {
        held.push(call(&transport, &server.at("/hold")).await.unwrap());
    }
    until("a second connection", || server.connections() == 2).await;
    // It is used from now on; the first has places, but is full enough.
    for _ in 0..7 {
        held.push(call(&transport, &server.at("/hold")).await.unwrap());
    }
    assert_eq!((server.connections(), server.streams()), (2, 16));
}

#[tokio::test]
async fn the_servers_own_limit_is_kept() {
    let server = Server::start(4).await;
    let transport = transport(&network(&server.ca));
    // By its answer the server has told its limit.
    text(call(&transport, &server.at("/")).await.unwrap()).await;
    let mut held = vec![call(&transport, &server.at("/hold")).await.unwrap()];
    for _ in 0..11 {
        held.push(call(&transport, &server.at("/hold")).await.unwrap());
    }
    assert_eq!(server.streams(), 12);
    assert!(server.connections() >= 3);
}

#[tokio::test]
async fn a_connection_is_open_before_the_first_call_and_again_after_it_broke() {
    let server = Server::start(100).await;
    let transport = transport(&network(&server.ca));
    transport.warm(&server.url.parse().unwrap(), LONG);
    until("a connection without a call", || server.open() == 1).await;
    text(call(&transport, &server.at("/")).await.unwrap()).await;
    assert_eq!(server.connections(), 1, "the call took the one that was there");
    server.end(End::Dead);
    until("another one without a call", || server.connections() == 2 && server.open() == 1).await;
}

#[tokio::test]
async fn nothing_is_opened_ahead_where_no_tls_is() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let transport = transport(&Network::default());
    let url = format!("http://{}/", listener.local_addr().unwrap());
    transport.warm(&url.parse().unwrap(), LONG);
    let accepted = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
    assert!(accepted.is_err());
}

#[tokio::test]
async fn an_old_connection_is_left_and_its_streams_end_in_their_own_time() {
    let server = Server::start(100).await;
    let age = Duration::from_millis(50);
    let transport = transport(&Network { connection_age: age, ..network(&server.ca) });
    let mut held = call(&transport, &server.at("/hold")).await.unwrap();
    assert_eq!(held.chunk().await.unwrap().unwrap(), "held");
    tokio::time::sleep(age).await;
    // A call asks for a younger one and does not wait for it.
    text(call(&transport, &server.at("/")).await.unwrap()).await;
    until("a younger connection", || server.connections() > 1).await;
    assert_eq!(server.streams(), 1, "the stream is still there");
    drop(held);
    until("the stream is reset", || server.streams() == 0).await;
}

#[tokio::test]
async fn a_goodbye_loses_neither_what_runs_nor_what_comes() {
    let server = Server::start(100).await;
    let transport = transport(&network(&server.ca));
    let mut held = call(&transport, &server.at("/hold")).await.unwrap();
    assert_eq!(held.chunk().await.unwrap().unwrap(), "held");
    server.end(End::Goodbye);
    for _ in 0..20 {
        text(call(&transport, &server.at("/")).await.unwrap()).await;
    }
    assert_eq!((server.connections(), server.streams()), (2, 1));
}
