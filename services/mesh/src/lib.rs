//! Living on the private network.

pub mod clock;
#[cfg(feature = "database")]
pub mod database;
pub mod error;
