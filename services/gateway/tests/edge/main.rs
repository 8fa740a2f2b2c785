//! The gateway as its clients meet it: a real server on a real socket, with a
//! router and a retrieval behind it that are real servers of the mesh too and
//! only answer from a script.
#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

mod agents;
mod chats;
mod client;
mod draws;
mod fake_agents;
mod fake_images;
mod fakes;
mod grpc;
mod idempotent;
mod keys;
mod limits;
mod refusals;
mod slow;
mod stock;
mod world;
