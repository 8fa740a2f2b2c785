//! The service as its callers see it: real gRPC, real HTTP, real weights.
#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

mod anthropic;
mod embeddings;
mod faults;
mod images;
mod keys;
mod leaving;
mod local;
mod money;
mod openai;
mod proxy;
mod replicate;
mod storage;
