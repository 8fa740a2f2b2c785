//! Fake providers: real HTTP servers that speak a provider's dialect, for tests
//! and for a first try. The official SDKs work against them unchanged.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use providers::{Chunking, End, Failure, Reply, anthropic, openai, replicate};
//! use std::time::Duration;
//!
//! let fake = openai::start().await?; // `fake.url` is OPENAI_BASE_URL
//!
//! // The next calls of a model get these replies, one each; then all is usual.
//! fake.script("gpt-4o-mini", [Reply::status(429).retry_after("1"), Reply::usual()]);
//! fake.endless("gpt-4o", Reply::status(503)); // for ever
//! fake.script("*", [Reply::failure(Failure::Quota)]); // any model; or a path
//! fake.script("m", [Reply::text("one two three").cut(2, End::Reset)]);
//! fake.script("m", [Reply::usual().late_first(Duration::from_millis(300))]);
//! fake.script("m", [Reply::text("hi").tool("weather", "{}").usage(serde_json::json!({}))]);
//! fake.replay("m", &b"data: {}\n\n"[..], Chunking::EachByte);
//! fake.chaos(7, 0.1, [Reply::reset(), Reply::status(503)]); // a tenth of the calls, by seed 7
//! fake.quota("sk-one", 3); // 429 after three requests with this key
//!
//! // What came, in which order, on which connection, and who left.
//! let log = fake.log_when(Duration::from_secs(1), |log| log.iter().any(|e| e.aborted)).await;
//! assert_eq!(fake.tries("gpt-4o-mini"), 2);
//! let left_at = log[0].ended; // an Instant
//!
//! // Connections: dead ones, HTTP/2 over TLS, GOAWAY.
//! fake.reset_reused(1); // the next request on a used connection meets a reset
//! fake.close_idle(Some(Duration::from_millis(50)));
//! let tls = anthropic::start_tls(4).await?; // four streams a connection; trust `tls.authority`
//! tls.go_away();
//! assert_eq!(tls.connections().peaks.len(), 0);
//!
//! // Replicate's predictions run by a clock.
//! let fake = replicate::start().await?;
//! fake.clock().pause();
//! fake.clock().advance(Duration::from_secs(1));
//! # Ok(())
//! # }
//! ```
//!
//! Who has no handle (a process of its own) asks by the model's name, of which
//! Replicate takes the part behind the `/`:
//!
//! | model | what happens |
//! |---|---|
//! | any other | answers `You said: <last message>`, a word a piece |
//! | `slow-<ms>` | a word every so many milliseconds, for ever |
//! | `late-<ms>` | the usual answer, after so many milliseconds |
//! | `late-token-<ms>` | the headers at once, the rest after so many milliseconds |
//! | `paced-<ms>` | as any other, a word every so many milliseconds |
//! | `tool`, `tool-whole` | calls the first tool with `{"city":"Lisbon"}`, in pieces or at once |
//! | `thinking`, `refusal`, `filter` | thinks first; refuses; ends with `content_filter` |
//! | `error-<status>` | that status with the provider's error body; `error-429` says to wait 7 s |
//! | `error-quota`, `-spend`, `-slow`, `-context`, `-filter` | see [`Failure`] |
//! | `html-<status>` | that status with a page of HTML |
//! | `reset`, `close` | the connection ends before any header: RST, FIN |
//! | `silent`, `silent-body` | no response headers, ever; headers, then nothing |
//! | `stall`, `stall-pings` | one word, then nothing; one word, then only pings |
//! | `cut`, `cut-reset`, `cut-clean` | two words, then the end without a finish reason: FIN, RST, as HTTP wants it |
//! | `error-in-stream` | one word, then an error object |
//! | `malformed`, `not-utf8` | one word, then an event that is not JSON, not UTF-8; then goes on |
//! | `flood` | one word, then a line of 100 MB |
//! | `no-usage`, `no-done` | an answer without its usage; without `[DONE]` or its like |
//! | `whole` | an answer that is not streamed although a stream was asked |
//! | `empty-first` | a chunk without choices first |
//! | `pings`, `crlf`, `each-byte` | pings between the events; lines end with CRLF; a byte a piece |
//! | `gzip`, `gzip-garbage`, `gzip-truncated` | compressed; announced but not; cut in half |
//! | `huge-headers` | 256 KiB of headers |
//! | `boot-<ms>`, `run-<ms>`, `fails` | Replicate alone: a prediction's times, and its end |
//!
//! Any key will do, but one that ends with `-wrong`, and none, will not.
//!
//! Invariants:
//! - The same request gets the same answer and the same token counts.
//! - Every request is in the log, with whether its caller went away; keys are not.

mod answer;
pub mod anthropic;
mod clock;
mod dialect;
mod fake;
mod images;
mod limits;
mod log;
mod net;
pub mod openai;
mod recordings;
mod replay;
pub mod replicate;
mod reply;
mod script;
mod server;
mod step;
mod time;
mod tls;
mod wire;
mod words;

pub use clock::Clock;
pub use dialect::Dialect;
pub use fake::{Fake, Options};
pub use log::{Entry, key_name};
pub use net::Connections;
pub use recordings::recordings;
pub use replay::Chunking;
pub use reply::{Failure, Gzip, Reply};
pub use step::End;
