//! OpenAI's HTTP dialect: pure translation between its JSON and our contract.
//!
//! Nothing below does I/O; the endpoints in `chat`, `draw`, `embed` and `models` do.
//!
//! Invariants:
//! - Nothing a client sent is lost, and nothing a provider said: what we have no
//!   name for goes into the `extra_json` of its place, both ways.
//! - Every refusal is OpenAI's error body with the status its clients expect.

pub mod chunks;
pub mod embeddings;
pub mod error;
mod extra;
mod fields;
pub mod images;
mod message;
pub mod models;
pub mod request;
mod tools;
pub mod usage;
pub mod whole;
