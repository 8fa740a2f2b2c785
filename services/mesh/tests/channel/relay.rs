//! A wire that can be frozen or cut: TCP from here to there.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

pub(crate) struct Relay {
    pub(crate) addr: SocketAddr,
    /// Nothing passes while true; nothing is lost either.
    frozen: watch::Sender<bool>,
    /// Bytes that may still come back before every connection is cut.
    left: Arc<AtomicUsize>,
    pub(crate) connections: Arc<AtomicUsize>,
}

impl Relay {
    pub(crate) async fn to(there: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (frozen, left) = (watch::Sender::new(false), Arc::new(AtomicUsize::new(usize::MAX)));
        let connections = Arc::new(AtomicUsize::new(0));
        let wire = (frozen.clone(), Arc::clone(&left), Arc::clone(&connections));
        tokio::spawn(async move {
            let (frozen, left, connections) = wire;
            while let Ok((here, _)) = listener.accept().await {
                connections.fetch_add(1, SeqCst);
                let Ok(there) = TcpStream::connect(there).await else { continue };
                let (from_here, to_here) = here.into_split();
                let (from_there, to_there) = there.into_split();
                let unlimited = Arc::new(AtomicUsize::new(usize::MAX));
                let go = pump(from_here, to_there, frozen.subscribe(), unlimited);
                let back = pump(from_there, to_here, frozen.subscribe(), Arc::clone(&left));
                tokio::spawn(async move {
                    tokio::select! { () = go => {} () = back => {} }
                });
            }
        });
        Self { addr, frozen, left, connections }
    }

    pub(crate) fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    pub(crate) fn thaw(&self) {
        self.frozen.send_replace(false);
    }

    /// Cuts the connections after `bytes` more have come back.
    pub(crate) fn cut_after(&self, bytes: usize) {
        self.left.store(bytes, SeqCst);
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut frozen: watch::Receiver<bool>,
    left: Arc<AtomicUsize>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if frozen.wait_for(|frozen| !frozen).await.is_err() {
            return;
        }
        let spend =
            |left: usize| Some(if left == usize::MAX { left } else { left.saturating_sub(read) });
        let before = left.fetch_update(SeqCst, SeqCst, spend).unwrap();
        let allowed = read.min(before);
        if to.write_all(&buffer[..allowed]).await.is_err() || allowed < read {
            return;
        }
    }
}
