//! An answer as a list of what happens on the wire, and its playing.
//!
//! Invariants:
//! - What is sent before a pause or an end is written before it.
//! - Playing ends where the caller leaves, and the log then says so.

use crate::{log::Open, wire::Conn};
use axum::body::{Body, Bytes};
use futures_util::{future::BoxFuture, stream};
use std::{collections::VecDeque, fmt, io, sync::Arc, time::Duration};

/// What a piece is for, so that a fault can find its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Before any content.
    Begin,
    Content,
    /// Says why the answer ends.
    Finish,
    Usage,
    /// The last word of the stream.
    Done,
    Other,
}

#[derive(Clone)]
pub(crate) enum Step {
    Send(Role, Bytes),
    Wait(Duration),
    /// Nothing more, but the connection stays.
    Stall,
    /// Pieces that are made when it is their time.
    Live(Live),
    /// So many bytes without a line's end.
    Flood(u64),
    End(End),
}

/// Makes the n-th piece; `None`: there is none.
pub(crate) type Source =
    Arc<dyn Fn(u64) -> BoxFuture<'static, Option<(Role, Bytes)>> + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) source: Source,
    /// The next piece.
    pub(crate) at: u64,
    /// Where to stop although there may be more.
    pub(crate) end: u64,
    pub(crate) without: Vec<Role>,
    /// Before each piece.
    pub(crate) pause: Duration,
    /// What becomes of each piece, one after the other.
    pub(crate) filters: Vec<Filter>,
}

pub(crate) type Filter = Arc<dyn Fn(Bytes) -> Vec<Bytes> + Send + Sync>;

impl Live {
    pub(crate) fn new(source: Source) -> Self {
        let pause = Duration::ZERO;
        Self { source, at: 0, end: u64::MAX, without: Vec::new(), pause, filters: Vec::new() }
    }

    /// A piece of content each so often, for ever.
    pub(crate) fn every(
        pause: Duration,
        make: impl Fn(u64) -> Bytes + Send + Sync + 'static,
    ) -> Self {
        let make = Arc::new(make);
        Self::new(Arc::new(move |at| {
            let make = Arc::clone(&make);
            Box::pin(async move {
                tokio::time::sleep(pause).await;
                Some((Role::Content, make(at)))
            })
        }))
    }

    async fn next(&mut self) -> Option<(Role, Vec<Bytes>)> {
        while self.at < self.end {
            let (role, bytes) = (self.source)(self.at).await?;
            self.at += 1;
            if !self.without.contains(&role) {
                if !self.pause.is_zero() {
                    tokio::time::sleep(self.pause).await;
                }
                let pieces = self.filters.iter().fold(vec![bytes], |pieces, filter| {
                    pieces.into_iter().flat_map(|piece| filter(piece)).collect()
                });
                return Some((role, pieces));
            }
        }
        None
    }
}

/// How a body ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As HTTP wants it, with the last chunk: only the content is cut.
    Clean,
    /// The connection is closed (FIN; a stream of HTTP/2 is reset).
    Close,
    /// The connection is reset (RST).
    Reset,
}

impl fmt::Debug for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(role, bytes) => write!(out, "{role:?}({} bytes)", bytes.len()),
            Self::Wait(time) => write!(out, "Wait({time:?})"),
            Self::Stall => out.write_str("Stall"),
            Self::Live(live) => write!(out, "Live({}..{})", live.at, live.end),
            Self::Flood(bytes) => write!(out, "Flood({bytes})"),
            Self::End(end) => write!(out, "End({end:?})"),
        }
    }
}

/// The body of an answer being played.
///
/// With `flush` each piece is written by itself; otherwise those that are due
/// at the same time may go together.
pub(crate) fn play(steps: Vec<Step>, flush: bool, open: Open, conn: Arc<Conn>) -> Body {
    let player = Player { steps: steps.into(), flush, begun: false, open, conn };
    Body::from_stream(stream::unfold(player, |mut player| async {
        let piece = player.next().await?;
        player.open.piece();
        Some((piece, player))
    }))
}

struct Player {
    steps: VecDeque<Step>,
    flush: bool,
    begun: bool,
    open: Open,
    conn: Arc<Conn>,
}

impl Player {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        // Between two pieces the server gets its turn to write the first.
        if std::mem::replace(&mut self.begun, true) && self.flush {
            tokio::task::yield_now().await;
        }
        loop {
            match self.steps.pop_front() {
                None | Some(Step::End(End::Clean)) => {
                    self.open.done();
                    return None;
                }
                Some(Step::Send(_, bytes)) => {
                    // A caller may leave as soon as it has read the last piece.
                    if self.steps.is_empty() {
                        self.open.done();
                    }
                    return Some(Ok(bytes));
                }
                Some(Step::Wait(time)) => tokio::time::sleep(time).await,
                Some(Step::Stall) => std::future::pending().await,
                Some(Step::Live(mut live)) => {
                    if let Some((role, pieces)) = live.next().await {
                        // Nothing but the end comes after the last word.
                        if role != Role::Done || !self.steps.is_empty() {
                            self.steps.push_front(Step::Live(live));
                        }
                        for piece in pieces.into_iter().rev() {
                            self.steps.push_front(Step::Send(role, piece));
                        }
                    }
                }
                Some(Step::Flood(0)) => {}
                Some(Step::Flood(left)) => {
                    // Others on this thread get their turns.
                    tokio::task::yield_now().await;
                    let piece = Bytes::from_static(&[b'x'; 64 * 1024]);
                    let length = left.min(64 * 1024);
                    self.steps.push_front(Step::Flood(left - length));
                    let length = usize::try_from(length).unwrap_or(piece.len());
                    return Some(Ok(piece.slice(..length)));
                }
                Some(Step::End(end)) => {
                    self.open.done();
                    // What was said is written before the connection ends.
                    tokio::task::yield_now().await;
                    if end == End::Reset {
                        self.conn.reset();
                    }
                    return Some(Err(io::Error::from(io::ErrorKind::ConnectionReset)));
                }
            }
        }
    }
}
