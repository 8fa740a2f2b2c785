//! A provider inside this process, on a thread of its own, so that the clock
//! that stamps a chunk is the one that reads the stamp.

use crate::{Failure, child, provider, tls};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::mpsc,
};
use tokio::net::TcpListener;

/// Where a mesh finds its provider.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    /// The certificate to trust; without one it speaks plain HTTP/1.1.
    pub(crate) ca: Option<PathBuf>,
}

impl Upstream {
    pub(crate) const fn plain(addr: SocketAddr) -> Self {
        Self { addr, ca: None }
    }

    /// Lives as long as this process.
    pub(crate) fn here(ca: Option<&Path>) -> Result<Self, Failure> {
        let acceptor = ca.map(tls::acceptor).transpose()?;
        let (tell, told) = mpsc::channel();
        let serving = move || -> Result<(), Failure> {
            child::runtime(true)?.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                tell.send(listener.local_addr()?)?;
                provider::listen(listener, acceptor).await
            })
        };
        std::thread::spawn(serving);
        Ok(Self { addr: told.recv()?, ca: ca.map(Path::to_owned) })
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.ca.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/v1", self.addr)
    }
}
