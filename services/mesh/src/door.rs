//! A listener that is bound long before anybody answers behind it.
//!
//! A process says at its very start when a port is in use, but may be busy for
//! seconds before it serves (a database across an ocean). Whoever calls meanwhile
//! is refused and goes elsewhere; in the kernel's backlog they would wait for us,
//! and Fly's proxy with them.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs as _},
};
use tokio::net::{TcpListener, TcpSocket};

const BACKLOG: u32 = 1024;

pub enum Door {
    Shut(TcpSocket),
    Open(TcpListener),
}

impl Door {
    /// Takes the address; nobody gets in yet.
    pub fn shut(address: &str) -> io::Result<Self> {
        let unknown = || io::Error::other("the host has no address");
        let address = address.to_socket_addrs()?.next().ok_or_else(unknown)?;
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        // as TcpListener::bind: connections of the process before do not matter
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self::Shut(socket))
    }

    pub fn open(self) -> io::Result<TcpListener> {
        match self {
            Self::Shut(socket) => socket.listen(BACKLOG),
            Self::Open(listener) => Ok(listener),
        }
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Shut(socket) => socket.local_addr(),
            Self::Open(listener) => listener.local_addr(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn nobody_waits_before_a_shut_door() {
        let door = Door::shut("[::1]:0").unwrap();
        let address = door.local_addr().unwrap();
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let _open = door.open().unwrap();
        assert!(TcpStream::connect(address).await.is_ok());
        let taken = Door::shut(&address.to_string()).err().unwrap();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
