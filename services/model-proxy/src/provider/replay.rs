//! Proves that what a recorded stream says does not depend on how the network
//! cut it: whole, byte by byte, cut once at every border (up to [`SMALL`]), or
//! cut in several places a thousand times.
//!
//! Invariant: everything compared is the sequence of events itself, not what a
//! reader joins it to; [`told`] is for the tables of what each recording says.

use super::{Decoder, Event};
use crate::{error::Error, sse};
use serde_json::Value;
use skein_proto::model::v1::{Finished, Usage, delta::Piece};
use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

/// Recordings up to this size are cut at every border.
const SMALL: usize = 16 << 10;
/// Of a larger one.
const CUTS: u64 = 1_000;

pub(crate) type Outcome = (Vec<Event>, Result<(), Error>);

/// How a dialect frames the payloads of a `*.chunks.jsonl`.
#[derive(Clone, Copy)]
pub(crate) enum Framing {
    /// `data:` alone, and `[DONE]` at the end.
    Data,
    /// `event:` repeats the payload's `type`.
    Named,
}

/// Where recordings lie, beside a checkout that has them.
pub(crate) fn folder() -> Option<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/provider-recordings");
    let folder = Some(PathBuf::from(folder)).filter(|folder| folder.is_dir());
    if folder.is_none() {
        println!("SKIPPED: no recorded streams beside this checkout");
    }
    folder
}

/// All files of these folders.
pub(crate) fn files(folders: &[&str]) -> Vec<String> {
    let Some(root) = folder() else { return Vec::new() };
    let names = folders.iter().flat_map(|folder| {
        let entries = std::fs::read_dir(root.join(folder)).unwrap();
        entries.map(move |entry| format!("{folder}/{}", entry.unwrap().file_name().display()))
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// A recording as it is on the wire.
pub(crate) fn read(name: &str, framing: Framing) -> Vec<u8> {
    let bytes = std::fs::read(folder().unwrap().join(name)).unwrap();
    if name.ends_with(".chunks.jsonl") { frame(&bytes, framing) } else { bytes }
}

fn frame(lines: &[u8], framing: Framing) -> Vec<u8> {
    let lines = std::str::from_utf8(lines).unwrap().lines().filter(|line| !line.is_empty());
    let mut stream = String::new();
    for line in lines {
        if let Framing::Named = framing {
            let payload: Value = serde_json::from_str(line).unwrap();
            let _ = writeln!(stream, "event: {}", payload["type"].as_str().unwrap());
        }
        let _ = write!(stream, "data: {line}\n\n");
    }
    if let Framing::Data = framing {
        stream.push_str("data: [DONE]\n\n");
    }
    stream.into_bytes()
}

/// Decodes a stream that comes in these pieces.
pub(crate) fn decode<'a>(
    mut decoder: Box<dyn Decoder>,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Outcome {
    let (mut parser, mut events) = (sse::Parser::default(), Vec::new());
    let run = || {
        for piece in pieces {
            let mut parsed = Vec::new();
            parser.push(piece, &mut parsed).unwrap();
            for event in &parsed {
                decoder.push(event, &mut events)?;
            }
        }
        decoder.end(&mut events)
    };
    let outcome = run();
    (events, outcome)
}

/// What a stream says, after proving that no cut changes it.
pub(crate) fn prove(name: &str, stream: &[u8], decoder: impl Fn() -> Box<dyn Decoder>) -> Outcome {
    let whole = decode(decoder(), [stream]);
    check(name, &whole.0);
    let same = |cut: Outcome, how: &str| {
        assert_eq!(cut.0, whole.0, "{name}: {how}");
        let say = |outcome: &Outcome| outcome.1.as_ref().err().map(ToString::to_string);
        assert_eq!(say(&cut), say(&whole), "{name}: {how}");
    };
    same(decode(decoder(), stream.chunks(1)), "byte by byte");
    if stream.len() <= SMALL {
        for at in 1..stream.len() {
            let (head, tail) = stream.split_at(at);
            same(decode(decoder(), [head, tail]), &format!("cut at {at}"));
        }
    } else {
        for seed in 0..CUTS {
            let pieces = pieces(stream, seed);
            same(decode(decoder(), pieces), &format!("cut with seed {seed}"));
        }
    }
    whole
}

/// Two to nine pieces, drawn with this seed.
pub(crate) fn pieces(stream: &[u8], seed: u64) -> Vec<&[u8]> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut cuts: Vec<_> = (0..random.usize(1..9)).map(|_| random.usize(..=stream.len())).collect();
    cuts.sort_unstable();
    cuts.push(stream.len());
    let mut begin = 0;
    cuts.into_iter().map(|end| &stream[std::mem::replace(&mut begin, end)..end]).collect()
}

/// At most one last event, and nothing after it.
pub(crate) fn check(name: &str, events: &[Event]) {
    let last = events.iter().position(|event| matches!(event, Event::Finished(_)));
    assert!(last.is_none_or(|at| at + 1 == events.len()), "{name}: something after the last event");
}

/// What a reader of the events ends up with, in one line:
/// `text 4:1f2e reasoning … refusal … | call 0.0 id name {…} | 0 Stop | in 5+0+0 out 3 (0)`.
pub(crate) fn told((events, outcome): &Outcome) -> String {
    let mut texts: BTreeMap<(u32, &str), String> = BTreeMap::new();
    let mut calls: BTreeMap<(u32, u32), [String; 3]> = BTreeMap::new();
    let mut line = String::new();
    for event in events {
        let Event::Delta(delta) = event else { continue };
        let mut add = |kind, text: &str| {
            texts.entry((delta.choice, kind)).or_default().push_str(text);
        };
        match &delta.piece {
            Some(Piece::Text(text)) => add("text", text),
            Some(Piece::Reasoning(text)) => add("reasoning", text),
            Some(Piece::Refusal(text)) => add("refusal", text),
            Some(Piece::ToolCall(piece)) => {
                let call = calls.entry((delta.choice, piece.index)).or_default();
                call[0].push_str(&piece.id);
                call[1].push_str(&piece.name);
                call[2].push_str(&piece.arguments);
            }
            Some(Piece::Citation(_)) | None => {}
        }
    }
    for ((choice, kind), text) in &texts {
        let _ = write!(line, "{kind}[{choice}] {}:{:08x} | ", text.len(), hash(text.as_bytes()));
    }
    for ((choice, index), [id, name, arguments]) in &calls {
        let _ = write!(line, "call[{choice}.{index}] {id} {name} {arguments} | ");
    }
    match (events.last(), outcome) {
        (_, Err(error)) => line.push_str(&error.to_string()),
        (Some(Event::Finished(finished)), Ok(())) => line.push_str(&ended(finished)),
        _ => line.push_str("no end"),
    }
    line
}

fn ended(finished: &Finished) -> String {
    let mut line = String::new();
    for choice in &finished.choices {
        let _ = write!(line, "{:?}", choice.finish_reason());
        if !choice.broken_tool_calls.is_empty() {
            let _ = write!(line, " broken {:?}", choice.broken_tool_calls);
        }
        line.push_str(", ");
    }
    let Some(usage) = finished.usage else { return line + "no usage" };
    let Usage { input_uncached, input_cache_read, input_cache_write, output, .. } = usage;
    let reasoning = usage.output_reasoning;
    let _ = write!(line, "in {input_uncached}+{input_cache_read}+{input_cache_write}");
    let _ = write!(line, " out {output} ({reasoning})");
    line
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
