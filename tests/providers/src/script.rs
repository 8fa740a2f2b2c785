//! Which reply a call gets: what a test queued, or what the model's name says.
//!
//! Invariants:
//! - A queue is used up in order, then `endless`, then the answers are usual.
//! - What shapes a stream waits for the request that is answered by one.

use crate::{
    replay::{Chunking, Random},
    reply::{Failure, Gzip, Reply},
    step::End,
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

#[derive(Default)]
pub(crate) struct Scripts {
    queues: Mutex<HashMap<String, Queue>>,
    chaos: Mutex<Option<Chaos>>,
}

/// Faults at random, the same for the same seed.
struct Chaos {
    random: Random,
    /// Of a thousand calls.
    share: u64,
    replies: Vec<Reply>,
}

#[derive(Default)]
struct Queue {
    next: VecDeque<Reply>,
    endless: Option<Reply>,
}

impl Scripts {
    pub(crate) fn push(&self, on: &str, replies: impl IntoIterator<Item = Reply>) {
        self.with(|queues| queues.entry(on.to_owned()).or_default().next.extend(replies));
    }

    pub(crate) fn endless(&self, on: &str, reply: Option<Reply>) {
        self.with(|queues| queues.entry(on.to_owned()).or_default().endless = reply);
    }

    pub(crate) fn chaos(&self, seed: u64, share: f64, replies: Vec<Reply>) {
        let share = (0..1_000).filter(|part| f64::from(*part) < share * 1e3).count();
        let share = u64::try_from(share).unwrap_or(1_000);
        let chaos = Chaos { random: Random::new(seed), share, replies };
        *self.chaos.lock().unwrap_or_else(PoisonError::into_inner) = Some(chaos);
    }

    /// What chance gives to the next call.
    pub(crate) fn drawn(&self, fits: impl Fn(&Reply) -> bool) -> Option<Reply> {
        let mut chaos = self.chaos.lock().unwrap_or_else(PoisonError::into_inner);
        let Chaos { random, share, replies } = chaos.as_mut()?;
        if random.next() % 1_000 >= *share {
            return None;
        }
        let count = u64::try_from(replies.len()).ok().filter(|count| *count > 0)?;
        let at = usize::try_from(random.next() % count).ok()?;
        replies.get(at).cloned().filter(fits)
    }

    pub(crate) fn clear(&self) {
        self.with(HashMap::clear);
        *self.chaos.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The next reply for the first of `names` that has one which `fits`.
    pub(crate) fn take(&self, names: &[&str], fits: impl Fn(&Reply) -> bool) -> Option<Reply> {
        self.with(|queues| {
            names.iter().find_map(|name| {
                let queue = queues.get_mut(*name)?;
                match queue.next.front() {
                    Some(next) if fits(next) => queue.next.pop_front(),
                    Some(_) => None,
                    None => queue.endless.clone().filter(&fits),
                }
            })
        })
    }

    fn with<R>(&self, use_it: impl FnOnce(&mut HashMap<String, Queue>) -> R) -> R {
        use_it(&mut self.queues.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a model's name asks for; the table is in the crate's documentation.
pub(crate) fn named(model: &str) -> Option<Reply> {
    let name = model.rsplit('/').next().unwrap_or(model);
    let usual = Reply::usual();
    let one_two = || Reply::text("one two three");
    Some(match name {
        "silent" => Reply::silence(),
        "silent-body" => Reply::silent_body(),
        "reset" => Reply::reset(),
        "close" => Reply::close(),
        "stall" => one_two().stall(1),
        "stall-pings" => one_two().stall_with_pings(1, Duration::from_millis(20)),
        "cut" => one_two().cut(2, End::Close),
        "cut-reset" => one_two().cut(2, End::Reset),
        "cut-clean" => one_two().cut(2, End::Clean),
        "error-in-stream" => one_two().error_after(1),
        "no-usage" => usual.without_usage(),
        "no-done" => usual.without_done(),
        "whole" => usual.whole(),
        "pings" => usual.pings(),
        "crlf" => usual.newline("\r\n"),
        "each-byte" => usual.chunked(Chunking::EachByte),
        "malformed" => one_two().insert(1, "data: {\"choices\": [\n\n"),
        "not-utf8" => one_two().insert(1, &b"data: {\"x\": \"\xff\xfe\"}\n\n"[..]),
        "flood" => one_two().flood(1, 100 << 20),
        "gzip" => usual.gzip(Gzip::Good),
        "gzip-garbage" => usual.gzip(Gzip::Garbage),
        "gzip-truncated" => usual.gzip(Gzip::Truncated),
        "huge-headers" => usual.huge_headers(256 << 10),
        "filter" => usual.finish("content_filter"),
        "refusal" => usual.refusal("I cannot help with that."),
        "thinking" => usual.thinking("Let me think about it."),
        "tool-whole" => usual.tools_whole(),
        "empty-first" => usual.empty_first(),
        "error-quota" => Reply::failure(Failure::Quota),
        "error-spend" => Reply::failure(Failure::SpendLimit),
        "error-slow" => Reply::failure(Failure::SlowDown),
        "error-context" => Reply::failure(Failure::ContextLength),
        "error-filter" => Reply::failure(Failure::ContentFilter),
        "error-429" => Reply::status(429).retry_after("7"),
        _ => return numbered(name),
    })
}

/// Names that end with a number.
fn numbered(name: &str) -> Option<Reply> {
    let (name, number) = name.rsplit_once('-')?;
    let number: u16 = number.parse().ok()?;
    let time = Duration::from_millis(u64::from(number));
    Some(match name {
        "slow" => Reply::usual().endless(time),
        "late" => Reply::usual().late(time),
        "late-token" => Reply::usual().late_first(time),
        "paced" => Reply::usual().paced(time),
        "error" => Reply::status(number),
        "html" => Reply::html(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_used_up_in_order() {
        let scripts = Scripts::default();
        scripts.push("m", [Reply::text("1"), Reply::text("2")]);
        scripts.endless("*", Some(Reply::text("else")));
        let take = || scripts.take(&["m", "/path", "*"], |_| true).unwrap().say.text.unwrap();
        assert_eq!([take(), take(), take(), take()], ["1", "2", "else", "else"]);
        scripts.clear();
        assert!(scripts.take(&["m", "*"], |_| true).is_none());
    }

    #[test]
    fn chance_is_the_seed_s() {
        let draw = |seed| {
            let scripts = Scripts::default();
            scripts.chaos(seed, 0.25, vec![Reply::text("1"), Reply::text("2")]);
            let text = |reply: Reply| reply.say.text.unwrap_or_default();
            (0..400).map(|_| scripts.drawn(|_| true).map(text)).collect::<Vec<_>>()
        };
        let drawn = draw(7);
        assert_eq!(drawn, draw(7));
        assert_ne!(drawn, draw(8));
        let hit = drawn.iter().flatten().count();
        assert!((60..140).contains(&hit), "{hit}");
    }

    #[test]
    fn ordinary_names_ask_for_nothing() {
        for name in ["gpt-4o-mini", "text-embedding-3-small", "claude-sonnet-4-5", "x", "", "o3"] {
            assert!(named(name).is_none(), "{name}");
        }
        assert!(named("acme/error-503").is_some());
        assert!(named("late-token-50").is_some_and(|reply| reply.is_of_stream()));
    }
}
