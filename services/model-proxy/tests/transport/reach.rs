//! Through proxies, and to where DNS says now.

use crate::{
    call, network,
    server::{self, Server},
    text, transport, until,
    wire::{answer, saying},
};
use mesh::config::Secret;
use model_proxy::config::{Network, Proxies};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream, UdpSocket},
};

/// A proxy that knows `CONNECT` and one address; what it was asked is kept.
async fn connecting(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let heads = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            heads.lock().unwrap().push(String::from_utf8(head).unwrap());
            tokio::spawn(async move {
                let mut other = TcpStream::connect(to).await.unwrap();
                socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let _ = copy_bidirectional(&mut socket, &mut other).await;
            });
        }
    });
    (address, asked)
}

fn through(proxy: &str) -> Proxies {
    let proxy = Some(Secret::new(proxy));
    Proxies { https: proxy.clone(), http: proxy, none: "direct.test".to_owned() }
}

#[tokio::test]
async fn https_goes_through_a_tunnel_of_the_proxy() {
    let server = Server::start(100).await;
    let to = server.url.trim_start_matches("https://").parse().unwrap();
    let (proxy, asked) = connecting(to).await;
    let proxies = through(&format!("http://goose:secret@{proxy}"));
    let transport = transport(&Network { proxies, ..network(&server.ca) });
    for _ in 0..2 {
        // Nobody but the proxy knows the name.
        let reply = call(&transport, "https://provider.test/").await.unwrap();
        assert_eq!(reply.status(), 200);
    }
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1, "one tunnel for both");
    assert!(asked[0].starts_with("CONNECT provider.test:443 HTTP/1.1\r\n"), "{}", asked[0]);
    assert!(asked[0].contains("Proxy-Authorization: Basic Z29vc2U6c2VjcmV0\r\n"), "{}", asked[0]);
    // Loopback is reached without it.
    call(&transport, &server.at("/")).await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn plain_http_is_passed_on_by_the_proxy() {
    let proxy = saying(answer("", b"from the proxy")).await;
    let transport = transport(&Network { proxies: through(&proxy), ..Network::default() });
    let reply = call(&transport, "http://provider.test/v1").await.unwrap();
    assert_eq!(text(reply).await, "from the proxy");
}

#[tokio::test]
async fn what_needs_no_proxy_is_reached_without() {
    let proxies = through("http://127.0.0.1:1");
    let dns = dns(Arc::new(AtomicU8::new(1))).await;
    let transport = transport(&Network { proxies, dns: Some(dns), ..Network::default() });
    let url = saying(answer("", b"direct")).await.replace("127.0.0.1", "direct.test");
    assert_eq!(text(call(&transport, &url).await.unwrap()).await, "direct");
}

/// A DNS server that knows one address for every name: 127.0.0.`last`.
async fn dns(last: Arc<AtomicU8>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut query = [0; 512];
        loop {
            let (read, from) = socket.recv_from(&mut query).await.unwrap();
            let name = query[12..read].iter().position(|byte| *byte == 0).unwrap();
            let question = &query[12..12 + name + 5];
            let is_a = question[name + 1..name + 3] == [0, 1];
            let mut reply = query[..2].to_vec();
            reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            reply.extend_from_slice(question);
            if is_a {
                let address = Ipv4Addr::new(127, 0, 0, last.load(Ordering::SeqCst));
                reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]); // kept for 0 s
                reply.extend(address.octets());
            }
            socket.send_to(&reply, from).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn calls_follow_a_provider_that_moves() {
    let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = first.local_addr().unwrap().port();
    let second = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let first = Server::on(first, 100, "first");
    let second = Server::on(second, 100, "second");
    let last = Arc::new(AtomicU8::new(1));
    let network = Network {
        dns: Some(dns(Arc::clone(&last)).await),
        connection_age: Duration::from_millis(50),
        ..network(&server::ca())
    };
    let transport = transport(&network);
    let url = format!("https://provider.test:{port}/");
    assert_eq!(text(call(&transport, &url).await.unwrap()).await, "first");
    last.store(2, Ordering::SeqCst);
    tokio::time::sleep(network.connection_age).await;
    let moving = async {
        while text(call(&transport, &url).await.unwrap()).await == "first" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::LONG, moving).await.unwrap();
    until("the second one has it", || second.connections() > 0).await;
    assert!(first.connections() > 0);
}
