//! A server that says given bytes, whatever it is asked.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// Its URL; each connection gets `said` after the first bytes of a request.
pub(crate) async fn saying(said: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let said = said.clone();
            tokio::spawn(async move {
                let _ = socket.read(&mut [0; 4096]).await;
                let _ = socket.write_all(&said).await;
                // Not closed: who reads decides when it is over.
                while !matches!(socket.read(&mut [0; 4096]).await, Ok(0) | Err(_)) {}
            });
        }
    });
    url
}

/// An answer with these headers and this body.
pub(crate) fn answer(headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}
