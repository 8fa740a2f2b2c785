//! The router as its callers meet it: a real server, real databases, scripted
//! models and documents behind it. Every test runs on SQLite and on Postgres.
#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

mod cancel;
mod events;
mod fakes;
mod mesh_of_three;
mod models;
mod runs;
mod store;
