//! One accepted connection, with the means to break it.
//!
//! Invariants:
//! - After [`Conn::reset`] the peer sees RST, never a clean end.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Notify,
};

/// What handlers know of the connection they answer on.
pub(crate) struct Conn {
    /// Counted from 1.
    pub(crate) id: u64,
    tcp: TcpStream,
    /// Requests whose answer is not complete.
    pub(crate) in_flight: AtomicUsize,
    /// The most of them at once.
    peak: Arc<AtomicUsize>,
    /// Requests that ever came.
    pub(crate) asked: AtomicUsize,
    /// One waits: the connection's own task.
    pub(crate) changed: Notify,
    /// Tells it to end at once.
    pub(crate) broken: Notify,
}

impl Conn {
    pub(crate) fn new(id: u64, tcp: TcpStream, peak: Arc<AtomicUsize>) -> Self {
        // Each piece of a stream is to arrive as it is written.
        let _ = tcp.set_nodelay(true);
        Self {
            id,
            tcp,
            in_flight: AtomicUsize::new(0),
            peak,
            asked: AtomicUsize::new(0),
            changed: Notify::new(),
            broken: Notify::new(),
        }
    }

    /// Ends the connection with RST, whatever else is on it.
    pub(crate) fn reset(&self) {
        let _ = self.tcp.set_zero_linger();
        self.broken.notify_one();
    }

    /// Writes past HTTP (and past TLS); for a few bytes.
    pub(crate) fn write_raw(&self, bytes: &[u8]) {
        let _ = self.tcp.try_write(bytes);
    }
}

/// A request on its way; ends with its answer's body.
pub(crate) struct Busy(Arc<Conn>);

impl Busy {
    pub(crate) fn begin(conn: &Arc<Conn>) -> Self {
        conn.asked.fetch_add(1, Ordering::Relaxed);
        let now = conn.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        conn.peak.fetch_max(now, Ordering::Relaxed);
        conn.changed.notify_one();
        Self(Arc::clone(conn))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_one();
    }
}

/// The bytes of a connection; others may hold the connection too.
pub(crate) struct Wire(pub(crate) Arc<Conn>);

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.tcp.poll_read_ready(context))?;
            match self.0.tcp.try_read(buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.tcp.poll_write_ready(context))?;
            match self.0.tcp.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.tcp.poll_write_ready(context))?;
            match self.0.tcp.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The end of the connection says it: FIN when its socket is closed.
        Poll::Ready(Ok(()))
    }
}
