//! Where output goes: handed to the verbs, so that none of them knows whether
//! it writes to a terminal, a pipe or a test.
//!
//! Invariants:
//! - A reader that goes away (`skein ask … | head -1`) ends the command quietly.
//! - Text of models and documents cannot steer the terminal: control
//!   characters other than line breaks and tabs never reach it.
//! - What was written is seen at once: an answer streams word by word.

use crate::errors::Error;
use std::io::{self, IsTerminal as _, Write};

pub(crate) struct Terminal {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    /// A person reads stderr: a progress bar makes sense.
    pub(crate) err_is_terminal: bool,
    /// A person types: a prompt makes sense.
    pub(crate) interactive: bool,
}

impl Terminal {
    pub(crate) fn of_process() -> Self {
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            err_is_terminal: io::stderr().is_terminal(),
            interactive: io::stdin().is_terminal() && io::stdout().is_terminal(),
        }
    }

    /// A piece of the answer, as it comes.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Error> {
        self.out.write_all(harmless(text).as_bytes()).map_err(|error| closed(&error))?;
        self.out.flush().map_err(|error| closed(&error))
    }

    pub(crate) fn line(&mut self, line: &str) -> Result<(), Error> {
        self.text(&format!("{line}\n"))
    }

    /// One JSON object; escaped by JSON itself.
    pub(crate) fn json(&mut self, value: &serde_json::Value, pretty: bool) -> Result<(), Error> {
        let text = if pretty { format!("{value:#}") } else { value.to_string() };
        writeln!(self.out, "{text}").map_err(|error| closed(&error))?;
        self.out.flush().map_err(|error| closed(&error))
    }

    /// A remark about the way to the answer. A closed stderr is no reason to
    /// give up the answer.
    pub(crate) fn note(&mut self, line: &str) {
        writeln!(self.err, "{}", harmless(line)).unwrap_or_default();
    }

    pub(crate) fn complain(&mut self, error: &Error) {
        if !matches!(error, Error::Closed) {
            self.note(&format!("skein: {error}"));
        }
    }
}

fn closed(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Error::Closed,
        _ => Error::failed(format!("cannot write to stdout: {error}")),
    }
}

fn harmless(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    text.replace(|c: char| c.is_control() && c != '\n' && c != '\t', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn text_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\nc\td"), "a\u{fffd}[2Jb\nc\td");
        assert_eq!(harmless("你好"), "你好");
    }
}
