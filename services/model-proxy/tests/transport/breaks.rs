//! A call that meets a connection which is dead already, and one that does not.

use crate::{call, network, post, server, text, transport};
use model_proxy::{config::Network, transport::Lost};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::server::TlsStream;

/// Answers as many requests on a connection as `answers` says for it, by its
/// number, and closes it when the next one has come. Says how many requests
/// came in all.
async fn closing(answers: fn(usize) -> usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let asked = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        for number in 0.. {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut left = answers(number);
            while request(&mut socket).await {
                count.fetch_add(1, Ordering::SeqCst);
                if left == 0 {
                    break;
                }
                left -= 1;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                socket.write_all(answer).await.unwrap();
            }
        }
    });
    (url, asked)
}

/// Reads one request of ours; its body is `{}`.
async fn request(socket: &mut TcpStream) -> bool {
    let (mut all, mut piece) = (Vec::new(), [0; 1024]);
    loop {
        match socket.read(&mut piece).await {
            Ok(0) | Err(_) => return false,
            Ok(read) => all.extend_from_slice(&piece[..read]),
        }
        if all.ends_with(b"\r\n\r\n{}") {
            return true;
        }
    }
}

#[tokio::test]
async fn a_connection_that_closed_when_it_was_used_again_costs_no_try() {
    let (url, asked) = closing(|_| 1).await;
    let transport = transport(&Network::default());
    for _ in 0..4 {
        assert_eq!(text(call(&transport, &url).await.unwrap()).await, "ok");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 7, "each but the first was sent twice");
}

#[tokio::test]
async fn what_may_have_been_done_is_sent_again_only_if_it_may_be() {
    let (url, asked) = closing(|_| 1).await;
    let transport = transport(&Network::default());
    assert_eq!(text(post(&transport, &url, false).await.unwrap()).await, "ok");
    assert_eq!(post(&transport, &url, false).await.err(), Some(Lost::Reset));
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_new_connection_that_breaks_is_no_dead_one() {
    let (url, asked) = closing(|_| 0).await;
    let transport = transport(&Network::default());
    assert_eq!(call(&transport, &url).await.err(), Some(Lost::Reset));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn it_is_sent_again_once() {
    let (url, asked) = closing(|number| usize::from(number == 0)).await;
    let transport = transport(&Network::default());
    assert_eq!(text(call(&transport, &url).await.unwrap()).await, "ok");
    assert_eq!(call(&transport, &url).await.err(), Some(Lost::Reset));
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

/// What an HTTP/2 server does with the second request of its first connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Second {
    Refuses,
    SaysGoodbye,
    Closes,
}

async fn refusing(second: Second) -> (String, Network) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for number in 0.. {
            let Some(socket) = server::accept(&listener).await else { continue };
            tokio::spawn(async move { serve(socket, (number == 0).then_some(second)).await });
        }
    });
    (url, network(&server::ca()))
}

async fn serve(socket: TlsStream<TcpStream>, second: Option<Second>) {
    let mut connection = h2::server::handshake(socket).await.unwrap();
    let mut asked = 0;
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        asked += 1;
        match second.filter(|_| asked == 2) {
            None => {
                let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                body.send_data(bytes::Bytes::from_static(b"ok"), true).unwrap();
            }
            Some(Second::Refuses) => respond.send_reset(h2::Reason::REFUSED_STREAM),
            Some(Second::SaysGoodbye) => connection.abrupt_shutdown(h2::Reason::NO_ERROR),
            Some(Second::Closes) => return,
        }
    }
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_whatever_it_asks() {
    let (url, network) = refusing(Second::Refuses).await;
    let transport = transport(&network);
    for _ in 0..3 {
        assert_eq!(text(post(&transport, &url, false).await.unwrap()).await, "ok");
    }
}

#[tokio::test]
async fn a_dead_http2_connection_costs_no_try_where_a_call_may_be_repeated() {
    for second in [Second::Closes, Second::SaysGoodbye] {
        let (url, network) = refusing(second).await;
        let transport = transport(&network);
        for _ in 0..3 {
            assert_eq!(text(call(&transport, &url).await.unwrap()).await, "ok");
        }
    }
}

#[tokio::test]
async fn a_dead_http2_connection_is_an_error_where_it_may_not() {
    let (url, network) = refusing(Second::Closes).await;
    let transport = transport(&network);
    assert_eq!(text(post(&transport, &url, false).await.unwrap()).await, "ok");
    assert_eq!(post(&transport, &url, false).await.err(), Some(Lost::Reset));
}

#[tokio::test]
async fn nobody_there_is_told_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let transport = transport(&Network::default());
    assert_eq!(call(&transport, &url).await.err(), Some(Lost::Unreachable));
}
