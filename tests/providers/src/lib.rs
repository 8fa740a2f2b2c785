//! Fake providers: real HTTP servers that speak a provider's dialect and do
//! what the script in the model's name says, for tests and for a first try.
//!
//! Invariants:
//! - The same request gets the same answer and the same token counts.
//! - Every request is in the log, with whether its caller went away.

pub mod openai;
