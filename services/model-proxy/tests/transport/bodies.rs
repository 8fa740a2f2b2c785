//! Heads that are too long, and bodies that are packed.

use crate::{
    call, network,
    server::Server,
    text, transport,
    wire::{answer, saying},
};
use async_compression::tokio::write::GzipEncoder;
use model_proxy::{
    config::Network,
    transport::{Cut, Lost},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PACKED: &str = "content-encoding: gzip\r\n";

async fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzipEncoder::new(Vec::new());
    encoder.write_all(text).await.unwrap();
    encoder.shutdown().await.unwrap();
    encoder.into_inner()
}

#[tokio::test]
async fn what_is_packed_is_unpacked() {
    let packed = gzip("where geese fly, 雁".as_bytes()).await;
    // Two members in a row are one text.
    let url = saying(answer(PACKED, &[packed.clone(), packed].concat())).await;
    let reply = call(&transport(&Network::default()), &url).await.unwrap();
    assert_eq!(text(reply).await, "where geese fly, 雁".repeat(2));
}

#[tokio::test]
async fn what_is_not_packed_as_it_says_is_said_so() {
    let transport = transport(&Network::default());
    let half = gzip(&vec![b'x'; 100_000]).await;
    for body in [&b"certainly no gzip"[..], &half[..half.len() / 2]] {
        let url = saying(answer(PACKED, body)).await;
        let mut reply = call(&transport, &url).await.unwrap();
        let cut = loop {
            match reply.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a proper end"),
                Err(cut) => break cut,
            }
        };
        assert_eq!(cut, Cut::Garbled);
    }
}

#[tokio::test]
async fn a_bomb_is_unpacked_no_faster_than_it_is_read() {
    let bomb = gzip(&vec![0; 64 << 20]).await;
    assert!(bomb.len() < 100 << 10);
    let url = saying(answer(PACKED, &bomb)).await;
    let mut reply = call(&transport(&Network::default()), &url).await.unwrap();
    for _ in 0..8 {
        let piece = reply.chunk().await.unwrap().unwrap();
        assert!(piece.len() <= 64 << 10, "{}", piece.len());
    }
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let long = format!("x-long: {}\r\n", "x".repeat(100 << 10));
    let url = saying(answer(&long, b"ok")).await;
    let outcome = call(&transport(&Network::default()), &url).await;
    assert_eq!(outcome.err(), Some(Lost::Garbled));

    let server = Server::start(100).await;
    let transport = transport(&network(&server.ca));
    let outcome = call(&transport, &server.at("/head")).await;
    assert_eq!(outcome.err(), Some(Lost::Garbled));
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    let url = saying(b"220 mail.example ESMTP\r\n".to_vec()).await;
    let outcome = call(&transport(&Network::default()), &url).await;
    assert_eq!(outcome.err(), Some(Lost::Garbled));
}

#[tokio::test]
async fn a_body_that_ends_early_is_broken() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.read(&mut [0; 4096]).await;
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
    });
    let mut reply = call(&transport(&Network::default()), &url).await.unwrap();
    assert_eq!(reply.chunk().await.unwrap().unwrap(), "half");
    assert_eq!(reply.chunk().await, Err(Cut::Broken));
}
