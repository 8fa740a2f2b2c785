//! One TCP listener that stands for a distance: bytes leave it half a round trip
//! after they came.
//!
//! Invariants:
//! - Bytes keep their order; only time is added, never a limit on bandwidth: what
//!   is on its way is held up to 64 MiB each way, and connections wait for nobody
//!   else's bytes.
//! - Setting up a connection costs one round trip: without privileges nobody can
//!   delay the kernel's SYN-ACK, so it is what the client sends that waits.
//! - While the pair is cut nothing passes either way, ends and resets included;
//!   when it is healed everything arrives, as TCP would have sent it again.
//! - How a connection ends (close of one direction, reset) is passed on.

use crate::links::Condition;
use bytes::{Bytes, BytesMut};
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{Instant, sleep_until},
};

/// What one direction of one connection may have on its way.
const ON_ITS_WAY: usize = 64 << 20;
const PIECE: usize = 64 << 10;

/// A connection that was reset rather than closed.
struct Reset;

enum What {
    Bytes(Bytes, OwnedSemaphorePermit),
    End,
    Reset,
}

/// Until dropped; each connection goes to `target`.
pub(crate) async fn serve(
    listener: TcpListener,
    target: SocketAddr,
    link: watch::Receiver<Condition>,
) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(connection(client, target, link.clone()));
            }
            // out of descriptors, or a client that is gone: the next one may be fine
            Err(error) => {
                tracing::warn!(%error, "accept at a relay");
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn connection(client: TcpStream, target: SocketAddr, mut link: watch::Receiver<Condition>) {
    let begun = Instant::now();
    pass(&mut link, begun).await;
    match TcpStream::connect(target).await {
        Ok(server) => join(client, server, link, begun).await,
        Err(_) => {
            pass(&mut link, Instant::now()).await;
            let _gone = client.set_zero_linger();
        }
    }
}

/// Forwards both ways until both have ended; the client asked for the connection at
/// `begun`.
pub(crate) async fn join(
    mut client: TcpStream,
    mut server: TcpStream,
    link: watch::Receiver<Condition>,
    begun: Instant,
) {
    let _best_effort = (client.set_nodelay(true), server.set_nodelay(true));
    let established = begun + link.borrow().rtt;
    let ended = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let there = forward(client_read, server_write, link.clone(), established);
        let back = forward(server_read, client_write, link, begun);
        // a reset ends both directions, whatever the other still had to say
        tokio::try_join!(there, back)
    };
    if ended.is_err() {
        let _gone = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// One direction, to its end. Nothing is sent as if it came before `earliest`.
async fn forward(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    link: watch::Receiver<Condition>,
    earliest: Instant,
) -> Result<(), Reset> {
    let (tell, told) = mpsc::unbounded_channel();
    let ((), outcome) = tokio::join!(read(from, tell, earliest), write(to, told, link));
    outcome
}

async fn read(
    mut from: ReadHalf<'_>,
    tell: mpsc::UnboundedSender<(Instant, What)>,
    earliest: Instant,
) {
    let room = Arc::new(Semaphore::new(ON_ITS_WAY));
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE);
        let come = tokio::select! {
            come = from.read_buf(&mut buffer) => come,
            () = tell.closed() => return,
        };
        let what = match come {
            Ok(0) => What::End,
            Ok(count) => {
                let wanted = u32::try_from(count).unwrap_or(u32::MAX);
                let Ok(permit) = Arc::clone(&room).acquire_many_owned(wanted).await else { return };
                What::Bytes(buffer.split().freeze(), permit)
            }
            Err(_) => What::Reset,
        };
        let last = !matches!(what, What::Bytes(..));
        if tell.send((Instant::now().max(earliest), what)).is_err() || last {
            return;
        }
    }
}

async fn write(
    mut to: WriteHalf<'_>,
    mut told: mpsc::UnboundedReceiver<(Instant, What)>,
    mut link: watch::Receiver<Condition>,
) -> Result<(), Reset> {
    while let Some((at, what)) = told.recv().await {
        pass(&mut link, at).await;
        match what {
            What::Bytes(bytes, _on_its_way) => {
                if to.write_all(&bytes).await.is_err() {
                    // the sender hears of it as late as it would
                    pass(&mut link, Instant::now()).await;
                    return Err(Reset);
                }
            }
            What::End => {
                let _gone = to.shutdown().await;
                return Ok(());
            }
            What::Reset => return Err(Reset),
        }
    }
    Ok(())
}

/// Returns when what was sent at `at` arrives.
async fn pass(link: &mut watch::Receiver<Condition>, at: Instant) {
    loop {
        let Condition { rtt, cut } = *link.borrow_and_update();
        let due = at + rtt / 2;
        if !cut && due <= Instant::now() {
            return;
        }
        let arrival = async {
            match cut {
                true => std::future::pending().await,
                false => sleep_until(due).await,
            }
        };
        tokio::select! {
            () = arrival => {}
            changed = link.changed() => {
                if changed.is_err() {
                    return; // the network is going
                }
            }
        }
    }
}
