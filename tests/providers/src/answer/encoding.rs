//! The bytes of an answer's pieces in other lines, cuts, or compressed; those of
//! pieces that are made later too.
//!
//! Invariants:
//! - The bytes joined say the same as before.

use super::lives;
use crate::{
    replay::Chunking,
    reply::Gzip,
    step::{Live, Role, Step},
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use std::{
    io::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

pub(super) fn translated(mut steps: Vec<Step>, newline: &'static str) -> Vec<Step> {
    let translate =
        move |bytes: &Bytes| Bytes::from(String::from_utf8_lossy(bytes).replace('\n', newline));
    for step in &mut steps {
        if let Step::Send(_, bytes) = step {
            *bytes = translate(bytes);
        }
    }
    for live in lives(&mut steps) {
        live.filters.push(Arc::new(move |piece| vec![translate(&piece)]));
    }
    steps
}

/// Pieces that follow each other are cut as one, later ones each by itself.
pub(super) fn cut(steps: Vec<Step>, chunking: &Chunking) -> Vec<Step> {
    let mut steps = joined(steps, |run| chunking.cut(&run));
    for live in lives(&mut steps) {
        let chunking = chunking.clone();
        live.filters.push(Arc::new(move |piece| chunking.cut(&piece)));
    }
    steps
}

fn joined(steps: Vec<Step>, cut: impl Fn(Bytes) -> Vec<Bytes>) -> Vec<Step> {
    let mut out = Vec::new();
    let mut run = Vec::new();
    let end = |run: &mut Vec<u8>, out: &mut Vec<Step>| {
        if !run.is_empty() {
            let pieces = cut(Bytes::from(std::mem::take(run)));
            out.extend(pieces.into_iter().map(|piece| Step::Send(Role::Other, piece)));
        }
    };
    for step in steps {
        match step {
            Step::Send(_, bytes) => run.extend_from_slice(&bytes),
            other => {
                end(&mut run, &mut out);
                out.push(other);
            }
        }
    }
    end(&mut run, &mut out);
    out
}

pub(super) fn zipped(mut steps: Vec<Step>, gzip: Gzip) -> Vec<Step> {
    if gzip == Gzip::Garbage {
        return steps;
    }
    let zip = Zip::default();
    let mut is_live = false;
    for step in &mut steps {
        if let Step::Send(_, bytes) = step {
            *bytes = zip.piece(bytes);
        }
    }
    for live in lives(&mut steps) {
        is_live = true;
        let zip = zip.clone();
        live.filters.push(Arc::new(move |piece| vec![zip.piece(&piece)]));
    }
    match (gzip, is_live) {
        // What is made later ends without its sums.
        (Gzip::Truncated, true) => steps,
        (Gzip::Truncated, false) => joined(steps, |run| vec![run.slice(..run.len() / 2)]),
        (_, false) => {
            steps.push(Step::Send(Role::Other, zip.end()));
            steps
        }
        (_, true) => {
            let end = move |at| {
                let end = (at == 0).then(|| (Role::Other, zip.end()));
                Box::pin(std::future::ready(end)) as futures_util::future::BoxFuture<'static, _>
            };
            steps.push(Step::Live(Live::new(Arc::new(end))));
            steps
        }
    }
}

/// One compressed stream, written from several places.
#[derive(Clone)]
struct Zip(Arc<Mutex<GzEncoder<Vec<u8>>>>);

impl Default for Zip {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(GzEncoder::new(Vec::new(), Compression::default()))))
    }
}

impl Zip {
    /// Writing to memory does not fail.
    fn piece(&self, bytes: &Bytes) -> Bytes {
        let mut encoder = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = encoder.write_all(bytes).and_then(|()| encoder.flush());
        Bytes::from(std::mem::take(encoder.get_mut()))
    }

    fn end(&self) -> Bytes {
        let mut encoder = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = encoder.try_finish();
        Bytes::from(std::mem::take(encoder.get_mut()))
    }
}
