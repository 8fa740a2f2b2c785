//! An answer's body piece by piece, unpacked where it is packed.
//!
//! Invariants:
//! - A piece that is unpacked has at most [`PIECE`] bytes, however little the
//!   provider sent for it: who reads it can count before memory is full.
//! - Unpacking follows the bytes: what has come is handed on, not held back
//!   until a block is whole.

use super::Cut;
use async_compression::tokio::bufread::GzipDecoder;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream::Map};
use http::{HeaderMap, HeaderValue, header};
use http_body_util::{BodyDataStream, BodyExt as _};
use hyper::body::Incoming;
use std::io;
use tokio::io::AsyncReadExt as _;
use tokio_util::io::StreamReader;

const PIECE: usize = 16 << 10;

pub(super) enum Body {
    Plain(Incoming),
    Packed(Box<GzipDecoder<StreamReader<Pieces, Bytes>>>),
}

type Pieces = Map<BodyDataStream<Incoming>, fn(Result<Bytes, hyper::Error>) -> io::Result<Bytes>>;

impl Body {
    pub(super) fn new(headers: &HeaderMap, body: Incoming) -> Self {
        let packed = headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
        if !packed.is_some_and(|value| [&b"gzip"[..], b"x-gzip"].contains(&value)) {
            return Self::Plain(body);
        }
        let pieces: Pieces = BodyDataStream::new(body).map(|piece| piece.map_err(io::Error::other));
        let mut unpacked = GzipDecoder::new(StreamReader::new(pieces));
        unpacked.multiple_members(true);
        Self::Packed(Box::new(unpacked))
    }

    /// The next bytes, `None` at the proper end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Cut> {
        match self {
            Self::Plain(body) => loop {
                let Some(frame) = body.frame().await else { return Ok(None) };
                // What is no data are trailers.
                if let Ok(data) = frame.map_err(|_| Cut::Broken)?.into_data() {
                    return Ok(Some(data));
                }
            },
            Self::Packed(body) => {
                let mut piece = BytesMut::with_capacity(PIECE);
                let read = body.read_buf(&mut piece).await.map_err(|error| {
                    let cause = error.get_ref();
                    let connection = cause.and_then(|cause| cause.downcast_ref::<hyper::Error>());
                    if connection.is_some() { Cut::Broken } else { Cut::Garbled }
                })?;
                Ok((read > 0).then(|| piece.freeze()))
            }
        }
    }
}
