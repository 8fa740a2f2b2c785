//! Bytes to server-sent events, however the network cuts them.
//!
//! Invariants:
//! - The events do not depend on where the bytes were split, not even inside a
//!   character or between CR and LF.
//! - Memory is bounded: an event that grows past [`MAX_EVENT`] is an error, and
//!   what every event repeats (`id`) or keeps (`event`) is short.
//! - Every byte is looked at once, however long its line is.
//! - An event that the stream's end cuts short is not delivered.

/// Longest event taken; a picture in base64 may travel as one.
pub const MAX_EVENT: usize = 32 << 20;

/// Longest name or id taken, because an id is repeated with every event; others
/// are ignored as if the stream had none.
const MAX_NAME: usize = 1 << 10;

/// What a line's buffer may keep once the line is read.
const KEEP: usize = 64 << 10;

/// One event: `data` has its lines joined by `\n`; `name` is empty where the
/// stream gives none, and `id` is the last one that the stream gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub id: String,
    pub data: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("an event of the stream is longer than {MAX_EVENT} bytes")]
    TooLong,
    #[error("the stream is not UTF-8")]
    NotUtf8,
}

#[derive(Default)]
pub struct Parser {
    line: Vec<u8>,
    data: Option<String>,
    name: String,
    id: String,
    after_cr: bool,
    begun: bool,
}

impl Parser {
    /// Takes the next piece and appends the events it completes.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<Event>) -> Result<(), Broken> {
        while !bytes.is_empty() {
            // The LF of a CRLF whose CR ended the last line.
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) else {
                return self.extend(bytes);
            };
            self.extend(&bytes[..end])?;
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            self.end_line(out)?;
        }
        Ok(())
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let held = self.line.len() + self.data.as_ref().map_or(0, String::len);
        if held + bytes.len() > MAX_EVENT {
            return Err(Broken::TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, out: &mut Vec<Event>) -> Result<(), Broken> {
        let line = std::mem::take(&mut self.line);
        let text = std::str::from_utf8(&line).map_err(|_| Broken::NotUtf8)?;
        let text = if self.begun { text } else { text.strip_prefix('\u{feff}').unwrap_or(text) };
        self.begun = true;
        if text.is_empty() {
            let name = std::mem::take(&mut self.name);
            out.extend(self.data.take().map(|data| Event { name, id: self.id.clone(), data }));
        } else {
            let (field, value) = text.split_once(':').unwrap_or((text, ""));
            self.field(field, value.strip_prefix(' ').unwrap_or(value));
        }
        // Keep the buffer's memory for the next line, unless it was a giant.
        self.line = line;
        self.line.clear();
        self.line.shrink_to(KEEP);
        Ok(())
    }

    fn field(&mut self, field: &str, value: &str) {
        match field {
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            "event" if value.len() <= MAX_NAME => value.clone_into(&mut self.name),
            "id" if value.len() <= MAX_NAME && !value.contains('\0') => {
                value.clone_into(&mut self.id);
            }
            _ => {} // comments, `retry` and what the format does not know
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pieces: &[&[u8]]) -> Vec<(String, String, String)> {
        let (mut parser, mut out) = (Parser::default(), Vec::new());
        for piece in pieces {
            parser.push(piece, &mut out).unwrap();
        }
        out.into_iter().map(|event| (event.name, event.id, event.data)).collect()
    }

    #[test]
    fn events_do_not_depend_on_the_split() {
        let stream = "\u{feff}: hello\r\ndata: {\"é\":1}\r\n\r\nevent: x\ndata:a\ndata: b\n\n\
                      id: 3\rdata: 雁\r\rdata\n\ndata: cut";
        let expected = [("", "", "{\"é\":1}"), ("x", "", "a\nb"), ("", "3", "雁"), ("", "3", "")];
        let expected = expected.map(|(name, id, data)| (name.into(), id.into(), data.into()));
        for split in 0..=stream.len() {
            let (head, tail) = stream.as_bytes().split_at(split);
            assert_eq!(parse(&[head, tail]), expected, "split at {split}");
        }
        let bytes: Vec<_> = stream.as_bytes().chunks(1).collect();
        assert_eq!(parse(&bytes), expected);
    }

    #[test]
    fn an_endless_line_is_an_error() {
        let (mut parser, mut out) = (Parser::default(), Vec::new());
        let piece = vec![b'x'; MAX_EVENT / 2 + 1];
        assert_eq!(parser.push(&piece, &mut out), Ok(()));
        assert_eq!(parser.push(&piece, &mut out), Err(Broken::TooLong));
    }

    #[test]
    fn a_long_id_is_not_repeated_with_every_event() {
        let long = "x".repeat(MAX_NAME + 1);
        let stream = format!("id: 1\nid: {long}\nevent: {long}\ndata: a\n\ndata: b\n\n");
        let expected = [("", "1", "a"), ("", "1", "b")];
        let expected = expected.map(|(name, id, data)| (name.into(), id.into(), data.into()));
        assert_eq!(parse(&[stream.as_bytes()]), expected);
    }

    #[test]
    fn a_giant_line_is_one_error_and_no_memory() {
        let (mut parser, mut out) = (Parser::default(), Vec::new());
        let piece = vec![b'x'; 16 << 10];
        let mut taken = 0;
        let broken = loop {
            match parser.push(&piece, &mut out) {
                Ok(()) => taken += piece.len(),
                Err(broken) => break broken,
            }
            assert!(parser.line.capacity() <= 2 * MAX_EVENT, "{taken}");
        };
        assert_eq!((broken, taken), (Broken::TooLong, MAX_EVENT));
        let (mut parser, large) = (Parser::default(), vec![b'x'; 1 << 20]);
        parser.push(b"data: ", &mut out).unwrap();
        parser.push(&large, &mut out).unwrap();
        parser.push(b"\n\ndata: y\n\n", &mut out).unwrap();
        assert_eq!(out.iter().map(|event| event.data.len()).collect::<Vec<_>>(), [1 << 20, 1]);
        assert!(parser.line.capacity() <= KEEP);
    }

    #[test]
    fn what_is_not_utf8_is_an_error() {
        let (mut parser, mut out) = (Parser::default(), Vec::new());
        assert_eq!(parser.push(b"data: \xff\n", &mut out), Err(Broken::NotUtf8));
    }
}
