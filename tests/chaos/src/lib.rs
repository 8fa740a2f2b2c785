//! What must be seen of the mesh while machines, names and links fail under it:
//! a constant load, one fault after the other, every outcome counted.
//!
//! In reading order: [`load`] (the driver) and [`calls`] (what it calls),
//! [`streams`] (open answers), [`record`] (outcomes and figures), [`scene`] (a
//! mesh under load, step by step), [`scenarios`].
//!
//! Invariants:
//! - The driver never retries and never waits for an answer before the next call:
//!   what it counts as failed, a user would have seen fail.
//! - A figure is printed; only counts of failures, and bounds ten times as wide as
//!   what is promised, decide.

#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

pub mod calls;
pub mod load;
pub mod record;
pub mod scenarios;
pub mod scene;
pub mod shares;
pub mod streams;
