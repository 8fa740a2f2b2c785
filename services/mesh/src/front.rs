//! What a listener demands of its connections.
//!
//! Private listeners trust their callers; a public one does not: it bounds heads
//! and streams, and ends connections that neither speak nor read.
//!
//! Invariants:
//! - A connection that has not said which protocol it speaks, or has not
//!   finished a head, ends after `head_timeout`.
//! - A connection whose peer takes nothing of what is to be written ends after
//!   `write_timeout`; until then it holds at most `send_buffer` for each stream.
//! - The connection window covers every stream's (see [`h2`]).

use crate::h2;
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto,
};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

/// hyper's own number, for which the heads need no memory of their own.
pub const HEADERS: usize = 100;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// hyper reads HTTP/1.1 bodies through the buffer of the head.
const SMALLEST_BUFFER: usize = 8 << 10;
/// Streams that the peer has reset and we still hold: beyond that it is
/// flooding us, and the connection goes.
const RESETS: usize = 32;

#[derive(Clone, Debug)]
pub struct Front {
    /// For an HTTP/1.1 head, or the first bytes of a connection.
    pub head_timeout: Duration,
    /// Headers of one request over HTTP/1.1.
    pub max_headers: usize,
    /// Bytes of one request's head.
    pub max_head: u32,
    /// HTTP/2 streams of one connection at the same time.
    pub streams: u32,
    pub stream_window: u32,
    /// Bytes that wait to be written, for each stream.
    pub send_buffer: usize,
    /// `None`: a peer may take its time.
    pub write_timeout: Option<Duration>,
}

impl Default for Front {
    /// What a private listener demands.
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(15),
            max_headers: HEADERS,
            max_head: 64 << 10,
            streams: h2::STREAMS,
            stream_window: h2::STREAM_WINDOW,
            send_buffer: 400 << 10,
            write_timeout: None,
        }
    }
}

impl Front {
    pub(crate) fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http2()
            .timer(TokioTimer::new())
            .initial_stream_window_size(self.stream_window)
            .initial_connection_window_size(self.stream_window.saturating_mul(self.streams))
            .max_concurrent_streams(self.streams)
            .max_header_list_size(self.max_head)
            .max_send_buf_size(self.send_buffer)
            .max_pending_accept_reset_streams(RESETS)
            .keep_alive_interval(h2::PING_INTERVAL)
            .keep_alive_timeout(h2::PING_TIMEOUT);
        let buffer = usize::try_from(self.max_head).unwrap_or(usize::MAX).max(SMALLEST_BUFFER);
        builder
            .http1()
            .timer(TokioTimer::new())
            .max_buf_size(buffer)
            .header_read_timeout(self.head_timeout);
        if self.max_headers != HEADERS {
            builder.http1().max_headers(self.max_headers);
        }
        builder
    }

    pub(crate) fn watch(&self, stream: TcpStream) -> Watched {
        Watched {
            stream,
            unsaid: Some((0, Box::pin(sleep(self.head_timeout)))),
            write_timeout: self.write_timeout,
            unread: None,
        }
    }
}

/// A connection that ends by itself when its peer does nothing.
pub(crate) struct Watched {
    stream: TcpStream,
    /// How much of HTTP/2's preface has come, until it is clear what this is.
    unsaid: Option<(usize, Pin<Box<Sleep>>)>,
    write_timeout: Option<Duration>,
    unread: Option<Pin<Box<Sleep>>>,
}

fn timed_out(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl Watched {
    /// Counts the time in which nothing could be written.
    fn written<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Some(timeout) = self.write_timeout else { return written };
        if written.is_ready() {
            self.unread = None;
            return written;
        }
        let sleep = self.unread.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(Err(timed_out("the peer reads nothing")))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let Some((seen, sleep)) = &mut this.unsaid else { return read };
        if read.is_pending() {
            ready!(sleep.as_mut().poll(cx));
            return Poll::Ready(Err(timed_out("the peer says nothing")));
        }
        let new = &buffer.filled()[before..];
        let rest = &PREFACE[*seen..];
        let common = new.len().min(rest.len());
        *seen += common;
        if new[..common] != rest[..common] || *seen == PREFACE.len() {
            this.unsaid = None;
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    async fn pair(front: &Front) -> (Watched, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (front.watch(listener.accept().await.unwrap().0), client)
    }

    fn quick() -> Front {
        let quick = Duration::from_millis(50);
        Front { head_timeout: quick, write_timeout: Some(quick), ..Front::default() }
    }

    #[tokio::test]
    async fn half_a_preface_is_not_waited_for_and_a_request_is() {
        let (mut server, mut client) = pair(&quick()).await;
        client.write_all(&PREFACE[..20]).await.unwrap();
        let mut buffer = [0; 64];
        assert_eq!(server.read(&mut buffer).await.unwrap(), 20);
        let error = server.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        for first in [&b"POST / HTTP/1.1"[..], PREFACE] {
            let (mut server, mut client) = pair(&quick()).await;
            client.write_all(first).await.unwrap();
            let mut said = vec![0; first.len()];
            server.read_exact(&mut said).await.unwrap();
            let more = tokio::time::timeout(Duration::from_millis(200), server.read(&mut buffer));
            assert!(more.await.is_err(), "still open");
        }
    }

    #[tokio::test]
    async fn a_peer_that_reads_nothing_is_left() {
        let (mut server, _client) = pair(&quick()).await;
        let chunk = vec![0; 1 << 20];
        let error = loop {
            if let Err(error) = server.write_all(&chunk).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
