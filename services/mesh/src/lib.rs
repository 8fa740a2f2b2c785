//! Living on Fly's private network: everything a service needs to find its
//! peers, prove who it is, call and be called, and leave in good order.
//!
//! In reading order: what a process is told ([`config`], [`identity`],
//! [`keys`]), how it calls ([`discover`], [`channel`], [`call`], [`token`]),
//! how it is called ([`serve`], [`front`], [`deadline`], [`auth`], [`ready`], [`peer`]),
//! how much it takes on, when it leaves and is woken ([`load`], [`grow`],
//! [`idle`], [`wake`], [`machines`], [`watchdog`]), and what it says about
//! itself ([`telemetry`], [`process`], [`error`]). What a call costs is in [`price`],
//! because whoever reserves and whoever settles must agree.

pub mod auth;
pub mod call;
pub mod channel;
pub mod clock;
pub mod config;
#[cfg(feature = "database")]
pub mod database;
pub mod deadline;
pub mod discover;
pub mod door;
pub mod error;
pub mod front;
pub mod grow;
pub mod h2;
pub mod health;
pub mod identity;
pub mod idle;
pub mod keys;
pub mod load;
pub mod machines;
pub mod methods;
pub mod observe;
pub mod peer;
pub mod price;
pub mod process;
pub mod ready;
pub mod retry;
pub mod runtime;
pub mod serve;
pub mod telemetry;
pub mod token;
pub mod wake;
pub mod watchdog;
pub mod world;

pub use call::Call;
pub use channel::Channel;
pub use world::World;
