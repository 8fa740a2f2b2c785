//! A network's own piece of loopback: 127.X.Y.0/24.
//!
//! Linux answers on every address of 127.0.0.0/8, so each machine can have one
//! and listen on the ports it has on Fly, without root.
//!
//! Invariants:
//! - Two networks never share a subnet: the listener of the DNS server, on one
//!   fixed port of `.1`, is the lock, and it goes with the process that holds it.
//! - A program that listens on every address of the host is named by its port,
//!   instead of each machine failing to bind.

use crate::error::Error;
use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
};

/// The DNS server's port, and the lock.
pub(crate) const LOCK: u16 = 10053;
/// Postgres's port; not its own 5432, where a developer's may listen.
const POSTGRES: u16 = 15432;
const TRIES: usize = 64;

/// 127.X.Y.0/24.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    x: u8,
    y: u8,
}

pub(crate) struct Subnet {
    pub(crate) block: Block,
    pub(crate) dns_tcp: TcpListener,
    pub(crate) dns_udp: UdpSocket,
}

impl Subnet {
    /// `ports`: what the machines will listen on.
    pub(crate) fn claim(ports: &[u16]) -> Result<Self, Error> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..TRIES {
            let (x, y) = (fastrand::u8(1..=254), fastrand::u8(0..=254));
            let first = Ipv4Addr::new(127, x, y, 1);
            let lock = TcpListener::bind((first, LOCK))
                .and_then(|tcp| Ok((tcp, UdpSocket::bind((first, LOCK))?)));
            let (dns_tcp, dns_udp) = match lock {
                Ok(lock) => lock,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            for &port in ports {
                if let Err(source) = TcpListener::bind((first, port)) {
                    let taken = source.kind() == io::ErrorKind::AddrInUse;
                    return Err(if taken {
                        Error::PortTaken { port }
                    } else {
                        Error::NoNetwork(source)
                    });
                }
            }
            return Ok(Self { block: Block { x, y }, dns_tcp, dns_udp });
        }
        Err(Error::NoNetwork(last))
    }
}

impl Block {
    /// As many have an address.
    pub(crate) const MACHINES: usize = 253;

    /// The address of machine `number`, counted from 0.
    pub(crate) fn machine(self, number: usize) -> Option<Ipv4Addr> {
        let host = u8::try_from(number + 2).ok().filter(|host| *host < 255)?;
        Some(Ipv4Addr::new(127, self.x, self.y, host))
    }

    /// Where Postgres listens, if there is one: an address of no machine.
    pub(crate) fn postgres(self) -> SocketAddr {
        SocketAddr::from(([127, self.x, self.y, 1], POSTGRES))
    }

    pub(crate) fn dns(self) -> String {
        format!("127.{}.{}.1:{LOCK}", self.x, self.y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_networks_have_different_subnets() {
        let (one, two) = (Subnet::claim(&[]).unwrap(), Subnet::claim(&[]).unwrap());
        assert_ne!(one.block.dns(), two.block.dns());
        assert!(TcpListener::bind(one.block.dns()).is_err(), "the lock is held");
    }

    #[test]
    fn a_program_on_every_address_is_named_by_its_port() {
        let greedy = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = greedy.local_addr().unwrap().port();
        let error = Subnet::claim(&[port]).err().unwrap().to_string();
        assert!(error.contains(&format!("port {port}")), "{error}");
    }

    #[test]
    fn machines_stay_inside_the_subnet() {
        let net = Subnet::claim(&[]).unwrap().block;
        assert!(net.machine(0).unwrap().octets()[3] == 2);
        let last = Block::MACHINES - 1;
        assert!(net.machine(last).is_some() && net.machine(last + 1).is_none());
    }
}
