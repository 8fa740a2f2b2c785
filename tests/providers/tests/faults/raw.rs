//! A client that sees the bytes of an answer and how it ended.

use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

/// How long an answer that is to end may be silent.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer that is never to end is watched.
const BRIEFLY: Duration = Duration::from_millis(300);

impl Ended {
    /// How long to watch for it.
    pub(crate) fn patience(self) -> Duration {
        if self == Self::Never { BRIEFLY } else { PATIENCE }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As HTTP wants it.
    Clean,
    /// The connection was closed too early.
    Fin,
    Rst,
    /// It had not ended when patience did.
    Never,
}

pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// The body's pieces as HTTP framed them.
    pub(crate) chunks: Vec<usize>,
    pub(crate) ended: Ended,
    pub(crate) first_byte_after: Option<Duration>,
}

impl Seen {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1);
        lines
            .filter_map(|line| line.split_once(": "))
            .find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
    }
}

/// One connection for one or more requests.
pub(crate) struct Client {
    socket: TcpStream,
    patience: Duration,
}

/// A request as it is written; `url` is a fake's, without a path.
pub(crate) fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: fake\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )
}

impl Client {
    pub(crate) async fn connect(url: &str) -> Self {
        let address = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
        Self { socket: TcpStream::connect(address).await.unwrap(), patience: PATIENCE }
    }

    /// With another patience than the usual.
    pub(crate) fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    pub(crate) async fn ask(&mut self, request: &str) -> Seen {
        self.send(request).await;
        self.read().await
    }

    pub(crate) async fn send(&mut self, request: &str) {
        // What was closed meanwhile is seen by reading.
        let _ = self.socket.write_all(request.as_bytes()).await;
    }

    pub(crate) async fn read(&mut self) -> Seen {
        let begun = Instant::now();
        let mut bytes = Vec::new();
        let mut first_byte_after = None;
        let mut piece = vec![0; 1 << 16];
        loop {
            if let Some(seen) = parsed(&bytes, Ended::Clean, first_byte_after) {
                return seen;
            }
            let read = tokio::time::timeout(self.patience, self.socket.read(&mut piece)).await;
            let ended = match read {
                Err(_) => Ended::Never,
                Ok(Err(_)) => Ended::Rst,
                Ok(Ok(0)) => Ended::Fin,
                Ok(Ok(read)) => {
                    first_byte_after.get_or_insert_with(|| begun.elapsed());
                    bytes.extend_from_slice(&piece[..read]);
                    // A stream of pings is watched as long as silence is.
                    if begun.elapsed() < self.patience * 2 {
                        continue;
                    }
                    Ended::Never
                }
            };
            let none = Seen {
                status: 0,
                head: String::new(),
                body: bytes.clone(),
                chunks: Vec::new(),
                ended,
                first_byte_after,
            };
            return parsed(&bytes, ended, first_byte_after).unwrap_or(none);
        }
    }
}

/// `None`: not complete, and `ended` says that more may come.
fn parsed(bytes: &[u8], ended: Ended, first_byte_after: Option<Duration>) -> Option<Seen> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut seen =
        Seen { status, head, body: Vec::new(), chunks: Vec::new(), ended, first_byte_after };
    let rest = &bytes[end + 4..];
    let whole = if let Some(length) = seen.header("content-length") {
        let length: usize = length.parse().unwrap();
        seen.body = rest[..length.min(rest.len())].to_vec();
        rest.len() >= length
    } else {
        unchunk(rest, &mut seen)
    };
    if whole {
        seen.ended = Ended::Clean;
    }
    (whole || ended != Ended::Clean).then_some(seen)
}

/// Whether the last chunk was there.
fn unchunk(mut rest: &[u8], seen: &mut Seen) -> bool {
    while let Some(line) = rest.windows(2).position(|two| two == b"\r\n") {
        let length = std::str::from_utf8(&rest[..line]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        let Some(chunk) = rest.get(line + 2..line + 2 + length) else { return false };
        if length == 0 {
            return true;
        }
        seen.body.extend_from_slice(chunk);
        seen.chunks.push(length);
        rest = rest.get(line + 4 + length..).unwrap_or_default();
    }
    false
}

pub(crate) fn key(key: &str) -> String {
    format!("authorization: Bearer {key}\r\n")
}

/// A streamed chat with OpenAI's fake.
pub(crate) async fn chat(url: &str, model: &str) -> Seen {
    chat_for(url, model, PATIENCE).await
}

pub(crate) async fn chat_for(url: &str, model: &str, patience: Duration) -> Seen {
    let body = format!(
        r#"{{"model":"{model}","stream":true,"messages":[{{"role":"user","content":"hi"}}]}}"#
    );
    let asked = request("POST", "/v1/chat/completions", &key("sk-test"), &body);
    Client::connect(url).await.patient(patience).ask(&asked).await
}

/// A streamed message of Anthropic's fake.
pub(crate) async fn message(url: &str, model: &str) -> Seen {
    message_for(url, model, PATIENCE).await
}

pub(crate) async fn message_for(url: &str, model: &str, patience: Duration) -> Seen {
    let body = format!(
        r#"{{"model":"{model}","max_tokens":9,"stream":true,"messages":[{{"role":"user","content":"hi"}}]}}"#
    );
    let headers = "x-api-key: sk-test\r\nanthropic-version: 2023-06-01\r\n";
    let asked = request("POST", "/v1/messages", headers, &body);
    Client::connect(url).await.patient(patience).ask(&asked).await
}
