//! Recordings, and where the network cuts them.
//!
//! Invariants:
//! - The pieces joined are the bytes, whatever the cuts.
//! - The same seed cuts the same bytes in the same places.

use crate::dialect::Dialect;
use bytes::Bytes;
use serde_json::Value;

/// How a stream is cut into pieces; each is written by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunking {
    Whole,
    EachByte,
    /// Before each of these offsets.
    At(Vec<usize>),
    /// Short and long pieces, drawn with this seed.
    Seeded(u64),
}

impl Chunking {
    pub(crate) fn cut(&self, bytes: &Bytes) -> Vec<Bytes> {
        let mut cuts: Vec<usize> = match self {
            Self::Whole => Vec::new(),
            Self::EachByte => (1..bytes.len()).collect(),
            Self::At(cuts) => cuts.clone(),
            Self::Seeded(seed) => drawn(*seed, bytes.len()),
        };
        cuts.retain(|cut| (1..bytes.len()).contains(cut));
        cuts.sort_unstable();
        cuts.dedup();
        cuts.push(bytes.len());
        let mut begin = 0;
        let mut pieces = Vec::with_capacity(cuts.len());
        for end in cuts {
            pieces.push(bytes.slice(begin..end));
            begin = end;
        }
        pieces
    }
}

/// Half of the pieces have up to 4 bytes, the others up to 512.
fn drawn(seed: u64, length: usize) -> Vec<usize> {
    let mut random = Random::new(seed);
    let mut at = 0;
    std::iter::from_fn(|| {
        let longest = if random.next().is_multiple_of(2) { 4 } else { 512 };
        at += 1 + usize::try_from(random.next() % longest).unwrap_or(0);
        (at < length).then_some(at)
    })
    .collect()
}

/// splitmix64: small, and good for any seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The same for the same text.
    pub(crate) fn of(text: &str) -> Self {
        Self(text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A file of payloads, one JSON a line, as the stream it was; a file that is a
/// stream already is left alone, byte for byte.
pub(crate) fn stream(dialect: Dialect, recording: &Bytes) -> Bytes {
    let text = String::from_utf8_lossy(recording);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).peekable();
    if lines.peek().is_none_or(|line| serde_json::from_str::<Value>(line).is_err()) {
        return recording.clone();
    }
    let mut out = String::new();
    for line in lines {
        let payload: Value = serde_json::from_str(line).unwrap_or_default();
        if let Some(name) = payload["type"].as_str()
            && dialect != Dialect::OpenAi
        {
            out.push_str(&format!("event: {name}\n"));
        }
        out.push_str(&format!("data: {line}\n\n"));
    }
    if dialect == Dialect::OpenAi {
        out.push_str("data: [DONE]\n\n");
    }
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_joined_are_the_bytes() {
        let bytes = Bytes::from((0..=255).collect::<Vec<u8>>());
        let seeded = (0..50).map(Chunking::Seeded);
        let others = [Chunking::Whole, Chunking::EachByte, Chunking::At(vec![9, 3, 3, 0, 900])];
        for chunking in seeded.chain(others) {
            assert_eq!(chunking.cut(&bytes).concat(), bytes, "{chunking:?}");
        }
        assert_eq!(Chunking::At(vec![9, 3, 3, 0, 900]).cut(&bytes).len(), 3);
        assert_eq!(Chunking::EachByte.cut(&bytes).len(), 256);
        assert_eq!(Chunking::Seeded(7).cut(&bytes), Chunking::Seeded(7).cut(&bytes));
        assert_ne!(Chunking::Seeded(7).cut(&bytes), Chunking::Seeded(8).cut(&bytes));
        assert_eq!(Chunking::Whole.cut(&Bytes::new()).len(), 1);
    }

    #[test]
    fn payloads_become_events_and_streams_stay() {
        let lines = Bytes::from_static(b"{\"type\":\"ping\"}\n{\"type\":\"x\"}\n");
        let anthropic = stream(Dialect::Anthropic, &lines);
        let wanted =
            "event: ping\ndata: {\"type\":\"ping\"}\n\nevent: x\ndata: {\"type\":\"x\"}\n\n";
        assert_eq!(anthropic, wanted);
        let openai = stream(Dialect::OpenAi, &Bytes::from_static(b"{\"a\":1}\n"));
        assert_eq!(openai, "data: {\"a\":1}\n\ndata: [DONE]\n\n");
        let raw = Bytes::from_static(b"data: {\"a\":1}\r\n\r\n");
        assert_eq!(stream(Dialect::OpenAi, &raw), raw);
    }
}
