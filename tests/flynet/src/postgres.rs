//! The external Postgres of a network.
//!
//! Invariants:
//! - It runs before the first machine is made and until the last has stopped.
//! - Only attached apps know its URL, as a secret; from a region that has a link to
//!   its own, it is reached through that link.

use crate::{
    error::Error,
    layout::Layout,
    spec::{self, App},
};
use pg_test::Managed;
use std::net::SocketAddr;

/// What `fly mpg attach` sets.
pub(crate) const URL: &str = "DATABASE_URL";

pub(crate) struct Postgres {
    attached: Vec<String>,
    server: Managed,
}

impl Postgres {
    pub(crate) fn start(
        wanted: &spec::Postgres,
        layout: &Layout,
        address: SocketAddr,
    ) -> Result<Self, Error> {
        let (directory, log) = layout.postgres();
        let server = Managed::start(&directory, address, &log).map_err(Error::Postgres)?;
        Ok(Self { attached: wanted.attached.clone(), server })
    }

    /// What attaching sets for an app, if it is to be attached; its own secret of
    /// that name stays.
    pub(crate) fn attach(&self, app: &mut App) {
        if self.attached.contains(&app.role) {
            let url = app.secrets.entry(URL.to_owned());
            url.or_insert_with(|| self.server.url());
        }
    }
}
