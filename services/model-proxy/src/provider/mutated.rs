//! Every decoder against streams that nobody would send: recordings with bytes
//! changed, cut out, doubled and spliced, drawn with a seed that is printed when
//! something breaks. A short turn runs with the tests; `make fuzz` runs each for
//! a minute, and `fuzz/` holds the same for `cargo fuzz`.
//!
//! Invariant: no panic, at most one last event and nothing after it, and not
//! more events and text than the bytes can hold.

use super::{Event, Provider, refused, registry, replay};
use crate::{Config, sse};
use fastrand::Rng;
use mesh::config::Sources;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Where no recordings are: something of each kind.
const SEEDS: [&str; 4] = [
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"a\",\"tool_calls\":\
     [{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},\
     \"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n\
     data: [DONE]\n\n",
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":\
     {\"input_tokens\":3}}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\
     \"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\nevent: message_stop\n\
     data: {\"type\":\"message_stop\"}\n\n",
    "event: output\nid: 1:0\ndata: a\n\nevent: done\nid: 2:0\ndata: {}\n\n",
    "{\"id\":\"p\",\"status\":\"succeeded\",\"output\":[\"a\"],\"metrics\":{\"predict_time\":1},\
     \"urls\":{\"get\":\"http://127.0.0.1:1/p\"}}",
];

fn seeds() -> Vec<Vec<u8>> {
    let folders = ["openai-chat", "openai-chat-raw-sse", "openai-other", "anthropic", "google"];
    let names = replay::files(&folders).into_iter();
    let recorded = names.filter(|name| !name.ends_with(".chunks.jsonl"));
    let recorded = recorded.map(|name| replay::read(&name, replay::Framing::Data));
    let recorded = recorded.filter(|bytes| bytes.len() < 20_000);
    SEEDS.iter().map(|seed| seed.as_bytes().to_vec()).chain(recorded).collect()
}

fn providers() -> Vec<Arc<dyn Provider>> {
    let variables = [
        ("SKEIN_MESH_KEY", "unused"),
        ("SKEIN_MESH_PEERS", "unused"),
        ("OPENAI_API_KEY", "marker"),
        ("ANTHROPIC_API_KEY", "marker"),
        ("REPLICATE_API_TOKEN", "marker"),
    ];
    let (config, _) = Config::read(&Sources::of(&variables)).unwrap();
    registry(&config).unwrap()
}

/// Like the seed, but not quite.
fn mutate(seeds: &[Vec<u8>], random: &mut Rng) -> Vec<u8> {
    const WORDS: [&str; 14] = [
        "null",
        "[]",
        "{}",
        "-1",
        "1e999",
        "18446744073709551615",
        "\"\"",
        "\"index\":",
        "\r",
        "\n\n",
        "data: ",
        "event: error\n",
        "[DONE]",
        "\u{feff}",
    ];
    let mut bytes = seeds[random.usize(..seeds.len())].clone();
    for _ in 0..random.usize(1..6) {
        if bytes.is_empty() {
            break;
        }
        let (at, to) = (random.usize(..bytes.len()), random.usize(..bytes.len()));
        let (at, to) = (at.min(to), at.max(to));
        match random.u8(..6) {
            0 => bytes[at] = random.u8(..),
            1 => drop(bytes.drain(at..to.min(at + 64))),
            2 => drop(bytes.splice(at..at, bytes[at..to].to_vec())),
            3 => drop(bytes.splice(at..at, WORDS[random.usize(..WORDS.len())].bytes())),
            4 => {
                let other = &seeds[random.usize(..seeds.len())];
                let from = random.usize(..other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            // A value is replaced by another one, and the JSON stays whole.
            _ => {
                let digits = |byte: &u8| byte.is_ascii_digit();
                if let Some(digit) = bytes[at..].iter().position(digits) {
                    let word = WORDS[random.usize(..7)];
                    bytes.splice(at + digit..=at + digit, word.bytes());
                }
            }
        }
    }
    bytes
}

/// How long the events are together.
fn size(events: &[Event]) -> usize {
    events.iter().map(|event| format!("{event:?}").len()).sum()
}

fn one(provider: &dyn Provider, bytes: &[u8], seed: u64) {
    let request = skein_proto::model::v1::GenerateRequest::default();
    let decoder = || provider.generate("owner/m", &request).ok().map(|ask| ask.decoder);
    let (Some(mut streamed), Some(mut whole)) = (decoder(), decoder()) else { return };
    let (mut parser, mut events) = (sse::Parser::default(), Vec::new());
    'stream: for piece in replay::pieces(bytes, seed) {
        let mut parsed = Vec::new();
        let outcome = parser.push(piece, &mut parsed);
        for event in &parsed {
            if streamed.push(event, &mut events).is_err() {
                break 'stream;
            }
        }
        if outcome.is_err() {
            break;
        }
    }
    let _ = streamed.end(&mut events);
    let _ = (streamed.follow(None, &mut events).is_some(), streamed.abandon().is_some());
    let mut at_once = Vec::new();
    let _ = whole.whole(bytes, &mut at_once);
    for events in [&events, &at_once] {
        replay::check(provider.name(), events);
        assert!(size(events) <= 100_000 + 200 * bytes.len(), "more than there was");
    }
    let _ = provider.listed(bytes);
    let value = http::HeaderValue::from_bytes(&bytes[..bytes.len().min(40)]);
    let mut headers = http::HeaderMap::new();
    if let Ok(value) = value {
        for name in ["retry-after", "retry-after-ms", "x-ratelimit-reset-requests"] {
            headers.insert(name, value.clone());
        }
        headers.insert("x-ratelimit-remaining-requests", "0".parse().unwrap());
    }
    let _ = provider.quota(&headers);
    for status in [400, 401, 429, 500] {
        let said = refused(provider, status, &headers, bytes).to_string();
        assert!(!said.contains("<html"), "{said}");
    }
}

/// How long, and from which seed: a second each from the same one with the
/// tests, a minute from a new one with `make fuzz`.
fn turn() -> (Duration, u64) {
    #[expect(clippy::disallowed_methods, reason = "set by the Makefile for the tests alone")]
    let asked = std::env::var("SKEIN_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    match asked {
        Some(seconds) => (Duration::from_secs(seconds), fastrand::u64(..)),
        None => (Duration::from_secs(1), 0),
    }
}

fn turn_on(name: &str) {
    let (seeds, providers) = (seeds(), providers());
    let provider = providers.iter().find(|provider| &**provider.name() == name).unwrap();
    let (begun, (long, first)) = (Instant::now(), turn());
    let mut seed = first;
    while begun.elapsed() < long {
        seed = seed.wrapping_add(1);
        let bytes = mutate(&seeds, &mut Rng::with_seed(seed));
        let run = std::panic::AssertUnwindSafe(|| one(provider.as_ref(), &bytes, seed));
        if std::panic::catch_unwind(run).is_err() {
            panic!("{name}, seed {seed}: {:?}", String::from_utf8_lossy(&bytes));
        }
    }
    println!("{name}: {} mutations from seed {first}", seed.wrapping_sub(first));
}

#[test]
fn openai_survives_what_nobody_would_send() {
    turn_on("openai");
}

#[test]
fn anthropic_survives_what_nobody_would_send() {
    turn_on("anthropic");
}

#[test]
fn replicate_survives_what_nobody_would_send() {
    turn_on("replicate");
}

#[test]
fn the_parser_is_the_same_however_what_nobody_would_send_is_cut() {
    let seeds = seeds();
    let (begun, (long, first)) = (Instant::now(), turn());
    let mut seed = first;
    let parse = |pieces: &[&[u8]]| {
        let (mut parser, mut out) = (sse::Parser::default(), Vec::new());
        let outcome = pieces.iter().try_for_each(|piece| parser.push(piece, &mut out));
        (out, outcome)
    };
    while begun.elapsed() < long {
        seed = seed.wrapping_add(1);
        let bytes = mutate(&seeds, &mut Rng::with_seed(seed));
        let whole = parse(&[&bytes]);
        assert_eq!(parse(&replay::pieces(&bytes, seed)), whole, "seed {seed}");
        assert_eq!(parse(&bytes.chunks(1).collect::<Vec<_>>()), whole, "seed {seed}");
    }
    println!("sse: {} mutations from seed {first}", seed.wrapping_sub(first));
}
