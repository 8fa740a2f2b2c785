//! The parser of server-sent events: no panic, and the same events wherever the
//! bytes are cut. The first byte says where.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model_proxy::sse::{Broken, Event, Parser};

fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, Result<(), Broken>) {
    let (mut parser, mut out) = (Parser::default(), Vec::new());
    let outcome = pieces.into_iter().try_for_each(|piece| parser.push(piece, &mut out));
    (out, outcome)
}

fuzz_target!(|data: &[u8]| {
    let Some((first, bytes)) = data.split_first() else { return };
    let whole = parse([bytes]);
    let (head, tail) = bytes.split_at(usize::from(*first).min(bytes.len()));
    assert_eq!(parse([head, tail]), whole);
    assert_eq!(parse(bytes.chunks(1)), whole);
});
