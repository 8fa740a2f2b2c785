//! What the edge demands of strangers: sizes, speeds, numbers.
//!
//! Invariants:
//! - Every bound has a default; none can be turned off by setting it to 0.

use crate::{pace::Pace, room};
use mesh::{
    config::{Reader, Size, Time, key},
    front::{Front, HEADERS},
};
use std::time::Duration;

/// Users are near the edge and many: a quarter of what the mesh uses between
/// oceans, so that unread bodies of a connection stay below 128 MiB.
const STREAM_WINDOW: u32 = 256 << 10;
/// So that a thousand readers that stopped hold 64 MiB, not 400.
const SEND_BUFFER: usize = 64 << 10;
const SMALLEST_HEAD: u64 = 8 << 10;
const LARGEST_HEAD: u64 = 1 << 20;
const MOST_STREAMS: u32 = 4096;

/// What the edge demands of strangers.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Bytes of request bodies in memory at the same time.
    pub bytes_in_flight: u64,
    /// Largest answer, in bytes.
    pub max_answer: u64,
    /// How long an idempotent answer is kept, and up to which size.
    pub idempotency_keep: Duration,
    pub idempotency_max: u64,
    /// How slowly a body may come.
    pub pace: Pace,
    /// How long a reader may not read.
    pub reader_timeout: Duration,
    /// What is demanded of a connection.
    pub front: Front,
}

impl Edge {
    pub(super) fn read(reader: &mut Reader<'_>, max_body: u64) -> Self {
        let time = |seconds| Time(Duration::from_secs(seconds));
        let rented = reader.platform("FLY_VM_MEMORY_MB").and_then(|text| text.parse::<u64>().ok());
        let memory = rented.map_or_else(room::memory, |mebibytes| mebibytes << 20);
        let bytes = room::part_of(memory, max_body);
        let bytes_in_flight = reader.or(key("gateway.bytes_in_flight"), Size(bytes)).0;
        if bytes_in_flight < max_body {
            let rule = format!("must be at least gateway.max_body, {}", Size(max_body));
            reader.complain(key("gateway.bytes_in_flight"), rule);
        }
        let max_answer = reader.or(key("gateway.max_answer"), Size(256 << 20)).0;
        let idempotency_keep = reader.or(key("gateway.idempotency_keep"), time(86_400)).0;
        let idempotency_max = reader.or(key("gateway.idempotency_max"), Size(1 << 20)).0;
        let idle = reader.or(key("gateway.body_timeout"), time(15)).0;
        let rate = reader.or(key("gateway.body_rate"), Size(1 << 10)).0;
        let reader_timeout = reader.or(key("gateway.reader_timeout"), time(60)).0;
        let head_timeout = reader.or(key("gateway.head_timeout"), time(15)).0;
        let max_headers = reader.or(key("gateway.max_headers"), HEADERS);
        let max_head = reader.or(key("gateway.max_head"), Size(64 << 10)).0;
        let streams = reader.or(key("gateway.streams"), 512_u32);
        for (name, wrong) in [
            ("gateway.max_answer", max_answer == 0),
            ("gateway.idempotency_keep", idempotency_keep.is_zero()),
            ("gateway.idempotency_max", idempotency_max == 0),
            ("gateway.body_timeout", idle.is_zero()),
            ("gateway.reader_timeout", reader_timeout.is_zero()),
            ("gateway.head_timeout", head_timeout.is_zero()),
            ("gateway.max_headers", max_headers == 0),
            ("gateway.streams", streams == 0),
        ] {
            if wrong {
                reader.complain(key(name), "must be more than 0");
            }
        }
        if !(SMALLEST_HEAD..=LARGEST_HEAD).contains(&max_head) {
            let (least, most) = (Size(SMALLEST_HEAD), Size(LARGEST_HEAD));
            reader
                .complain(key("gateway.max_head"), format!("must lie between {least} and {most}"));
        }
        if streams > MOST_STREAMS {
            reader.complain(key("gateway.streams"), format!("must be at most {MOST_STREAMS}"));
        }
        let front = Front {
            head_timeout,
            max_headers,
            max_head: u32::try_from(max_head).unwrap_or(u32::MAX),
            streams,
            stream_window: STREAM_WINDOW,
            send_buffer: SEND_BUFFER,
            write_timeout: Some(reader_timeout),
        };
        let pace = Pace { idle, rate };
        Self {
            bytes_in_flight,
            max_answer,
            idempotency_keep,
            idempotency_max,
            pace,
            reader_timeout,
            front,
        }
    }
}
