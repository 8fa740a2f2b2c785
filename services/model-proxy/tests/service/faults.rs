//! The fault table: what a caller gets for everything a provider does wrong, in
//! how many tries, and after how long.
//!
//! Each row is a proxy of its own against a server that misbehaves by plan. The
//! timers are short where a row waits for one; a row's time is printed, and asserted from below, because a
//! provider's word on waiting must be kept, and above in tenfolds.

use crate::proxy::{Failed, Proxy, ask, collect};
use futures_util::{StreamExt as _, stream};
use mesh::error;
use providers::{End, Failure, Fake, Gzip, Reply, anthropic, openai};
use skein_proto::model::v1::FinishReason;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Code;

const FIRST_TOKEN: Duration = Duration::from_millis(500);
const IDLE: Duration = Duration::from_millis(500);
const TOTAL: Duration = Duration::from_secs(6);
/// The first pause between tries, and the first two, at their shortest.
const ONE_PAUSE: Duration = Duration::from_millis(375);
const TWO_PAUSES: Duration = Duration::from_millis(375 + 750);
const NONE: Duration = Duration::ZERO;

#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// A whole answer, as if nothing had been.
    Rescued,
    /// One error with this reason, after this text.
    Error(Code, &'static str, &'static str),
}

use Outcome::{Error, Rescued};

struct Row {
    what: &'static str,
    replies: Vec<Reply>,
    endless: Option<Reply>,
    outcome: Outcome,
    tries: usize,
    /// At least so long; at most ten times as long and ten seconds.
    takes: Duration,
    /// With the short timers of this file: the row waits for one of them.
    impatient: bool,
}

fn row(what: &'static str, outcome: Outcome, tries: usize, takes: Duration) -> Row {
    let replies = Vec::new();
    Row { what, replies, endless: None, outcome, tries, takes, impatient: false }
}

impl Row {
    /// The first call gets this reply, the others the usual.
    fn once(self, reply: Reply) -> Self {
        Self { replies: vec![reply], ..self }
    }

    fn always(self, reply: Reply) -> Self {
        Self { endless: Some(reply), ..self }
    }

    fn impatient(self) -> Self {
        Self { impatient: true, ..self }
    }
}

#[derive(Clone, Copy, Debug)]
enum Dialect {
    OpenAi,
    Anthropic,
}

impl Dialect {
    async fn fake(self) -> Fake {
        match self {
            Self::OpenAi => openai::start().await.unwrap(),
            Self::Anthropic => anthropic::start().await.unwrap(),
        }
    }

    const fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::OpenAi => ("openai/row", "OPENAI_BASE_URL", "OPENAI_API_KEY"),
            Self::Anthropic => ("anthropic/row", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"),
        }
    }
}

async fn start(dialect: Dialect, impatient: bool) -> (Fake, Proxy) {
    let fake = dialect.fake().await;
    let (_, url, key) = dialect.names();
    let mut settings = vec![(url, fake.url.as_str()), (key, "sk-test-marker")];
    if impatient {
        settings.extend([
            ("SKEIN_PROVIDER__FIRST_TOKEN_TIMEOUT", "500ms"),
            ("SKEIN_PROVIDER__IDLE_TIMEOUT", "500ms"),
            ("SKEIN_PROVIDER__TOTAL_TIMEOUT", "6s"),
        ]);
    }
    let proxy = Proxy::start(&settings).await;
    (fake, proxy)
}

/// Plays one row; what is wrong with it, if anything.
#[expect(clippy::print_stdout, reason = "the table is for people")]
async fn play(dialect: Dialect, row: Row) -> Result<(), String> {
    let (fake, proxy) = start(dialect, row.impatient).await;
    fake.script("row", row.replies);
    if let Some(reply) = row.endless {
        fake.endless("row", reply);
    }
    let begun = Instant::now();
    let answer = collect(&proxy, ask(dialect.names().0, "one two")).await;
    let (took, tries) = (begun.elapsed(), fake.tries("row"));
    let line = |got: &str| {
        format!("{dialect:?} | {} | {got} | {tries} tries | {} ms", row.what, took.as_millis())
    };
    let (good, got) = match (&answer, row.outcome) {
        (Ok(answer), Rescued) => (answer.text == "You said: one two", line("rescued")),
        (Err(Failed { text, status }), Error(code, reason, said)) => {
            let got = error::reason(status).unwrap_or_default();
            let same = (status.code(), got.as_str(), text.as_str()) == (code, reason, said);
            (same, line(&format!("{got} after {text:?}: {}", status.message())))
        }
        (other, _) => (false, line(&format!("{other:?}"))),
    };
    println!("{got}");
    let in_time = took >= row.takes && took <= row.takes * 10 + Duration::from_secs(10);
    if good && tries == row.tries && in_time { Ok(()) } else { Err(got) }
}

async fn all(dialect: Dialect, rows: Vec<Row>) {
    // A few at a time: each row is a whole proxy that has to start.
    let played = stream::iter(rows.into_iter().map(|row| play(dialect, row))).buffer_unordered(3);
    let wrong: Vec<_> = played.filter_map(|row| async { row.err() }).collect().await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What the answer's status says.
fn statuses() -> Vec<Row> {
    let second = Duration::from_secs(1);
    let limited = Error(Code::ResourceExhausted, "PROVIDER_RATE_LIMITED", "");
    let overloaded = Error(Code::Unavailable, "PROVIDER_OVERLOADED", "");
    vec![
        row("429, Retry-After 1", Rescued, 2, second).once(Reply::status(429).retry_after("1")),
        row("429, no word on waiting", Rescued, 2, ONE_PAUSE).once(Reply::status(429)),
        row("429 for ever", limited, 3, TWO_PAUSES).always(Reply::status(429)),
        row("429, Retry-After 60", limited, 1, NONE).always(Reply::status(429).retry_after("60")),
        row("one 500", Rescued, 2, ONE_PAUSE).once(Reply::status(500)),
        row("503 for ever", overloaded, 3, TWO_PAUSES * 2).always(Reply::status(503)),
        row("400", Error(Code::InvalidArgument, "PROVIDER_BAD_REQUEST", ""), 1, NONE)
            .always(Reply::status(400)),
        row(
            "context too long",
            Error(Code::InvalidArgument, "CONTEXT_LENGTH_EXCEEDED", ""),
            1,
            NONE,
        )
        .always(Reply::failure(Failure::ContextLength)),
        row("quota used up", Error(Code::ResourceExhausted, "PROVIDER_QUOTA", ""), 1, NONE)
            .always(Reply::failure(Failure::Quota)),
        row("HTML with 502, once", Rescued, 2, ONE_PAUSE).once(Reply::html(502)),
        row("HTML with 200, once", Rescued, 2, ONE_PAUSE).once(Reply::html(200)),
        row(
            "HTML with 200, always",
            Error(Code::Unavailable, "PROVIDER_MALFORMED", ""),
            3,
            TWO_PAUSES,
        )
        .always(Reply::html(200)),
    ]
}

/// What the connection does.
fn connections() -> Vec<Row> {
    let reset = Error(Code::Unavailable, "CONNECTION_RESET", "");
    let silent = Error(Code::Unavailable, "FIRST_TOKEN_TIMEOUT", "");
    let cut = Error(Code::Unavailable, "STREAM_CUT", "You said: ");
    vec![
        row("reset before headers, once", Rescued, 2, ONE_PAUSE).once(Reply::reset()),
        row("reset before headers, always", reset, 3, TWO_PAUSES).always(Reply::reset()),
        row("closed before headers, once", Rescued, 2, ONE_PAUSE).once(Reply::close()),
        row("accept and silence", silent, 1, FIRST_TOKEN).always(Reply::silence()).impatient(),
        row("headers and silence", silent, 1, FIRST_TOKEN).always(Reply::silent_body()).impatient(),
        row("first token late", Rescued, 1, FIRST_TOKEN / 5)
            .once(Reply::usual().late_first(FIRST_TOKEN / 5)),
        row("first token too late", silent, 1, FIRST_TOKEN)
            .always(Reply::usual().late_first(FIRST_TOKEN * 20))
            .impatient(),
        row("cut cleanly in mid-stream", cut, 1, NONE).once(Reply::usual().cut(2, End::Clean)),
        row("reset in mid-stream", cut, 1, NONE)
            .once(Reply::usual().paced(Duration::from_millis(20)).cut(2, End::Reset)),
        row("stall in mid-stream", Error(Code::Unavailable, "IDLE_TIMEOUT", "You said: "), 1, IDLE)
            .once(Reply::usual().stall(2))
            .impatient(),
        row(
            "pings alone in mid-stream",
            Error(Code::DeadlineExceeded, "TOTAL_TIMEOUT", "You said: "),
            1,
            TOTAL,
        )
        .once(Reply::usual().stall_with_pings(2, IDLE / 5))
        .impatient(),
    ]
}

/// What is in the body; `in_stream` is what an error event in it means.
fn bodies(in_stream: &'static str) -> Vec<Row> {
    let malformed = |said| Error(Code::Unavailable, "PROVIDER_MALFORMED", said);
    let junk: &[u8] = b"data: {\"choices\": [nonsense\n\n";
    vec![
        row("malformed first chunk, once", Rescued, 2, ONE_PAUSE)
            .once(Reply::usual().insert(0, junk)),
        row("malformed chunk in mid-stream", malformed("You said: "), 1, NONE)
            .once(Reply::usual().insert(2, junk)),
        row("not UTF-8 in mid-stream", malformed("You said: "), 1, NONE)
            .once(Reply::usual().insert(2, &b"data: \xff\xfe\n\n"[..])),
        row("no last word, but a finish reason", Rescued, 1, NONE)
            .once(Reply::usual().without_done()),
        row("no usage", Rescued, 1, NONE).once(Reply::usual().without_usage()),
        row(
            "no finish reason",
            Error(Code::Unavailable, "STREAM_CUT", "You said: one two"),
            1,
            NONE,
        )
        .once(Reply::usual().without_finish()),
        row("an error in mid-stream", Error(Code::Unavailable, in_stream, "You said: "), 1, NONE)
            .once(Reply::usual().error_after(2)),
        row("an error before the first token, once", Rescued, 2, ONE_PAUSE)
            .once(Reply::usual().error_after(0)),
        row("garbage for gzip, once", Rescued, 2, ONE_PAUSE)
            .once(Reply::usual().gzip(Gzip::Garbage)),
        row("garbage for gzip, always", malformed(""), 3, TWO_PAUSES)
            .always(Reply::usual().gzip(Gzip::Garbage)),
        row("good gzip", Rescued, 1, NONE).once(Reply::usual().gzip(Gzip::Good)),
        row(
            "a line of 100 MB",
            Error(Code::Unavailable, "PROVIDER_ANSWER_TOO_LARGE", "You said: "),
            1,
            NONE,
        )
        .always(Reply::usual().flood(2, 100 << 20)),
        row("whole although a stream was asked", Rescued, 1, NONE).once(Reply::usual().whole()),
        row("CRLF and pings", Rescued, 1, NONE).once(Reply::usual().newline("\r\n").pings()),
    ]
}

#[tokio::test]
async fn openai_statuses() {
    all(Dialect::OpenAi, statuses()).await;
}

#[tokio::test]
async fn openai_connections() {
    all(Dialect::OpenAi, connections()).await;
}

#[tokio::test]
async fn openai_bodies() {
    all(Dialect::OpenAi, bodies("PROVIDER_UNAVAILABLE")).await;
}

#[tokio::test]
async fn anthropic_statuses() {
    all(Dialect::Anthropic, statuses()).await;
}

#[tokio::test]
async fn anthropic_connections() {
    all(Dialect::Anthropic, connections()).await;
}

#[tokio::test]
async fn anthropic_bodies() {
    all(Dialect::Anthropic, bodies("PROVIDER_OVERLOADED")).await;
}

#[tokio::test]
async fn every_spelling_of_a_wait_is_kept_and_told() {
    let wait = Duration::from_secs(60);
    for (spelling, reply) in [
        ("seconds", Reply::status(429).retry_after("60")),
        ("a fraction", Reply::status(429).retry_after("60.0")),
        ("a date", Reply::status(429).retry_after_date(wait)),
        ("milliseconds", Reply::status(429).retry_after_ms("60000")),
        ("Go's words", Reply::status(429).resets_in("1m0s")),
        ("Google's body", Reply::retry_info("60s")),
    ] {
        let (fake, proxy) = start(Dialect::OpenAi, false).await;
        fake.endless("row", reply);
        let failed = collect(&proxy, ask("openai/row", "hi")).await.unwrap_err();
        let told = error::retry_after(&failed.status).unwrap_or_default();
        assert!(told.abs_diff(wait) <= Duration::from_secs(2), "{spelling}: {told:?}");
        assert_eq!(fake.tries("row"), 1, "{spelling}: longer than anybody waits here");
    }
}

#[tokio::test]
async fn a_filtered_answer_says_so_and_a_filtered_question_too() {
    let (fake, proxy) = start(Dialect::OpenAi, false).await;
    fake.script("row", [Reply::usual().finish("content_filter")]);
    let answer = collect(&proxy, ask("openai/row", "hi")).await.unwrap();
    assert_eq!(answer.finished.choices[0].finish_reason(), FinishReason::ContentFilter);
    fake.script("row", [Reply::failure(Failure::ContentFilter)]);
    let failed = collect(&proxy, ask("openai/row", "hi")).await.unwrap_err();
    assert_eq!(failed.status.code(), Code::InvalidArgument);
    assert_eq!(error::reason(&failed.status).as_deref(), Some("CONTENT_FILTERED"));
    assert_eq!(fake.tries("row"), 2);
}
