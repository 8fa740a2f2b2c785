//! An answer before it is sent, and what a script changes in it.
//!
//! Invariants:
//! - Without edits the steps are what the provider would send.
//! - Cutting and compressing come last, whatever the order they were asked in.

mod encoding;

use crate::{
    dialect::Dialect,
    reply::{Edit, Then},
    step::{Live, Role, Step},
};
use bytes::Bytes;
use serde_json::Value;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) content: Content,
}

#[derive(Debug)]
pub(crate) enum Content {
    Whole(Bytes),
    Steps(Vec<Step>),
}

impl Answer {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::whole(status, "application/json", body.to_string())
    }

    pub(crate) fn whole(status: u16, kind: &str, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type".to_owned(), kind.to_owned())];
        Self { status, headers, content: Content::Whole(body.into()) }
    }

    /// A stream of events.
    pub(crate) fn events(steps: Vec<Step>) -> Self {
        let kind = "text/event-stream; charset=utf-8".to_owned();
        let headers = vec![
            ("content-type".to_owned(), kind),
            ("cache-control".to_owned(), "no-cache".to_owned()),
        ];
        Self { status: 200, headers, content: Content::Steps(steps) }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A recorded stream: each event is a piece of content.
    pub(crate) fn recorded(recording: &Bytes) -> Self {
        let mut steps = Vec::new();
        let mut begin = 0;
        for end in 1..=recording.len() {
            if end == recording.len() || recording[..end].ends_with(b"\n\n") {
                steps.push(Step::Send(Role::Content, recording.slice(begin..end)));
                begin = end;
            }
        }
        Self::events(steps)
    }

    pub(crate) fn edited(mut self, edits: &[Edit], dialect: Dialect) -> Self {
        if edits.is_empty() {
            return self;
        }
        let mut steps = match self.content {
            Content::Steps(steps) => steps,
            Content::Whole(body) => {
                let last = |edit: &Edit| {
                    matches!(edit, Edit::Gzip(_) | Edit::Insert(..) | Edit::Prefix(_))
                };
                if !edits.iter().any(last) {
                    self.headers.push(("content-length".to_owned(), body.len().to_string()));
                }
                let middle = body.len() / 2;
                let halves = [body.slice(..middle), body.slice(middle..)];
                halves.map(|half| Step::Send(Role::Content, half)).into()
            }
        };
        for edit in edits {
            steps = change(steps, edit, dialect);
        }
        // Lines before cuts before compression.
        for edit in edits {
            if let Edit::Newline(newline) = edit {
                steps = encoding::translated(steps, newline);
            }
        }
        for edit in edits {
            if let Edit::Cut(chunking) = edit {
                steps = encoding::cut(steps, chunking);
            }
        }
        for edit in edits {
            if let Edit::Gzip(gzip) = edit {
                self.headers.push(("content-encoding".to_owned(), "gzip".to_owned()));
                steps = encoding::zipped(steps, *gzip);
            }
        }
        self.content = Content::Steps(steps);
        self
    }
}

fn is(step: &Step, wanted: Role) -> bool {
    matches!(step, Step::Send(role, _) if *role == wanted)
}

fn change(steps: Vec<Step>, edit: &Edit, dialect: Dialect) -> Vec<Step> {
    match edit {
        Edit::After(pieces, then) => after(steps, *pieces, then, dialect),
        Edit::Insert(pieces, bytes) => {
            let (mut steps, rest) = split(steps, *pieces);
            steps.push(Step::Send(Role::Other, bytes.clone()));
            steps.extend(rest);
            steps
        }
        Edit::Without(role) => {
            let mut steps = steps;
            steps.retain(|step| !is(step, *role));
            for live in lives(&mut steps) {
                live.without.push(*role);
            }
            steps
        }
        Edit::Pace(pause) => {
            let mut steps = before(steps, &Step::Wait(*pause), |step| is(step, Role::Content));
            for live in lives(&mut steps) {
                live.pause = *pause;
            }
            steps
        }
        Edit::Prefix(bytes) => [vec![Step::Send(Role::Other, bytes.clone())], steps].concat(),
        Edit::FirstLate(late) => [vec![Step::Wait(*late)], steps].concat(),
        Edit::Pings => {
            let ping = dialect.ping();
            let extra = Step::Send(Role::Other, ping.clone());
            let mut steps = before(steps, &extra, |step| matches!(step, Step::Send(..)));
            for live in lives(&mut steps) {
                let ping = ping.clone();
                live.filters.push(Arc::new(move |piece| vec![ping.clone(), piece]));
            }
            steps
        }
        Edit::Gzip(_) | Edit::Cut(_) | Edit::Newline(_) => steps,
    }
}

/// The parts whose pieces are made later.
fn lives(steps: &mut [Step]) -> impl Iterator<Item = &mut Live> {
    steps.iter_mut().filter_map(|step| match step {
        Step::Live(live) => Some(live),
        _ => None,
    })
}

fn before(steps: Vec<Step>, extra: &Step, is_place: impl Fn(&Step) -> bool) -> Vec<Step> {
    let mut out = Vec::with_capacity(steps.len() * 2);
    for step in steps {
        if is_place(&step) {
            out.push(extra.clone());
        }
        out.push(step);
    }
    out
}

/// Cuts where so many pieces of content are behind and no more came.
fn split(mut steps: Vec<Step>, pieces: usize) -> (Vec<Step>, Vec<Step>) {
    let mut seen = 0;
    let place = steps.iter().position(|step| match step {
        Step::Send(Role::Content, _) if seen == pieces => true,
        Step::Send(Role::Content, _) => {
            seen += 1;
            false
        }
        Step::Send(Role::Finish | Role::Usage | Role::Done, _) | Step::Live(_) => true,
        _ => false,
    });
    let mut rest = steps.split_off(place.unwrap_or(steps.len()));
    if let Some(Step::Live(live)) = rest.first_mut() {
        let mut first = live.clone();
        first.end = u64::try_from(pieces - seen).unwrap_or(u64::MAX);
        live.at = first.end;
        steps.push(Step::Live(first));
    }
    (steps, rest)
}

fn after(steps: Vec<Step>, pieces: usize, then: &Then, dialect: Dialect) -> Vec<Step> {
    let (mut steps, _) = split(steps, pieces);
    match then {
        Then::End(end) => steps.push(Step::End(*end)),
        Then::Stall => steps.push(Step::Stall),
        Then::Pings(every) => {
            let ping = dialect.ping();
            steps.push(Step::Live(Live::every(*every, move |_| ping.clone())));
        }
        Then::Error => {
            steps.push(Step::Send(Role::Other, dialect.error_event()));
            steps.extend(dialect.done_after_error().map(|done| Step::Send(Role::Done, done)));
        }
        Then::Flood(bytes) => {
            let begin = Step::Send(Role::Other, Bytes::from_static(b"data: "));
            steps.extend([begin, Step::Flood(*bytes)]);
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{replay::Chunking, reply::Gzip, step::End};
    use std::io::Read as _;

    fn events() -> Vec<Step> {
        let send = |role, text: &str| Step::Send(role, Bytes::copy_from_slice(text.as_bytes()));
        vec![
            send(Role::Begin, "begin\n\n"),
            send(Role::Content, "one\n\n"),
            send(Role::Content, "two\n\n"),
            send(Role::Finish, "finish\n\n"),
            send(Role::Done, "done\n\n"),
        ]
    }

    fn sent(answer: &Answer) -> Vec<u8> {
        let Content::Steps(steps) = &answer.content else { panic!("whole") };
        let bytes = steps.iter().filter_map(|step| match step {
            Step::Send(_, bytes) => Some(bytes.to_vec()),
            _ => None,
        });
        bytes.flatten().collect()
    }

    fn edited(edits: &[Edit]) -> String {
        let answer = Answer::events(events()).edited(edits, Dialect::OpenAi);
        String::from_utf8(sent(&answer)).unwrap().replace("\n\n", " ")
    }

    #[test]
    fn an_edit_finds_its_place() {
        let stop = |pieces| edited(&[Edit::After(pieces, Then::Stall)]);
        assert_eq!([stop(0), stop(1), stop(9)], ["begin ", "begin one ", "begin one two "]);
        assert_eq!(edited(&[Edit::Without(Role::Done)]), "begin one two finish ");
        let junk = Bytes::from_static(b"junk ");
        assert_eq!(edited(&[Edit::Insert(1, junk)]), "begin one junk two finish done ");
    }

    #[test]
    fn compression_is_over_the_cut_pieces() {
        let plain = "begin\n\none\n\ntwo\n\nfinish\n\ndone\n\n";
        let edits = [Edit::Gzip(Gzip::Good), Edit::Cut(Chunking::EachByte)];
        let answer = Answer::events(events()).edited(&edits, Dialect::OpenAi);
        let mut text = String::new();
        flate2::read::GzDecoder::new(&sent(&answer)[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, plain);
        let Content::Steps(steps) = &answer.content else { panic!("whole") };
        assert_eq!(steps.len(), plain.len() + 1);
        let truncated =
            Answer::events(events()).edited(&[Edit::Gzip(Gzip::Truncated)], Dialect::OpenAi);
        let mut text = String::new();
        let read = flate2::read::GzDecoder::new(&sent(&truncated)[..]).read_to_string(&mut text);
        assert!(read.is_err());
    }

    #[test]
    fn an_answer_that_is_no_stream_has_two_pieces() {
        let answer = Answer::whole(200, "text/plain", "abcd");
        let answer = answer.edited(&[Edit::After(1, Then::End(End::Close))], Dialect::OpenAi);
        assert_eq!(sent(&answer), b"ab");
        assert!(answer.headers.contains(&("content-length".to_owned(), "4".to_owned())));
    }
}
