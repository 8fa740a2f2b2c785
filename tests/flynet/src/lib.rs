//! Fly.io on one machine: what the mesh uses of Fly, emulated without root.
//!
//! It reads the same `fly/*.toml` that are deployed, gives each machine an
//! address of 127.X.Y.0/24, a wiped working directory and a clean environment,
//! answers the private DNS, and stands as Fly Proxy in front of the gateway and
//! of Flycast addresses. Regions may lie apart, and be cut apart.
//!
//! In reading order: [`spec`] (what to run), [`schema`] and [`fly_toml`] (the
//! files), [`network`] (running it), [`dns`] (who is there), `fabric` (what lies
//! between), `proxy` (Fly Proxy), [`control`] (from another terminal). `FACTS.md`
//! says what of Fly is emulated, and which test holds it.
//!
//! ```no_run
//! # async fn example() -> Result<(), flynet::Error> {
//! use flynet::{Flynet, Spec};
//! let spec = Spec::skein(".".as_ref(), "target/debug".as_ref(), ".skein".as_ref());
//! let net = Flynet::start(spec).await?;
//! net.all_ready(std::time::Duration::from_secs(30)).await?;
//! println!("http://{}", net.edge().unwrap());
//! # Ok(()) }
//! ```

mod api;
mod balance;
mod checks;
pub mod control;
mod deploy;
pub mod dns;
mod dns_server;
mod edge;
mod environment;
mod error;
mod events;
mod fabric;
mod faults;
mod fleet;
pub mod fly_toml;
mod flycast;
mod idle;
mod layout;
mod lifecycle;
mod links;
mod machine;
mod maker;
pub mod network;
mod pace;
mod places;
mod plan;
mod postgres;
mod process;
mod proxy;
mod rate;
mod ready;
mod relay;
mod restart;
mod scale;
pub mod schema;
pub mod spec;
mod subnet;
mod supervise;
mod view;

pub use checks::{Checked, Verdict};
pub use deploy::Deploy;
pub use error::Error;
pub use events::{Event, Running, Timeline, What};
pub use faults::{Fault, FaultGuard, Scope};
pub use fly_toml::Strategy;
pub use links::Link;
pub use machine::{Listed, State};
pub use network::Flynet;
pub use spec::{App, Intervals, Postgres, ROLES, Spec};
