//! What lies between the machines: DNS servers, relays, Flycast addresses.
//!
//! Invariants:
//! - Each region has a DNS server of its own, so that an answer can depend on
//!   who asks; addresses across a named pair of regions are those of relays.
//! - A relay, once made, keeps its address for as long as the network lives.

use crate::{
    dns_server,
    error::Error,
    faults::Faults,
    fleet::Fleet,
    flycast::Flycast,
    links::{Condition, Link, Links},
    places,
    proxy::{Proxy, Times},
    relay,
    subnet::{LOCK, Subnet},
};
use futures_util::future::BoxFuture;
use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{runtime::Handle, sync::watch};

pub(crate) struct Fabric {
    pub(crate) links: Links,
    pub(crate) faults: Arc<Faults>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) apps: Vec<String>,
    flycast: BTreeMap<String, Vec<u16>>,
    times: Times,
    pub(crate) peers: Vec<(String, Ipv6Addr)>,
    /// What the machines listen on.
    ports: Vec<u16>,
    made: Mutex<Made>,
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Made {
    /// Held: each is a lock, too.
    blocks: Vec<Subnet>,
    given: usize,
    /// Region and `host:port`.
    dns: BTreeMap<String, String>,
    /// By the asking region and what is reached.
    relays: BTreeMap<(String, Ipv4Addr), Ipv4Addr>,
    outside: BTreeMap<(String, SocketAddr), SocketAddr>,
    /// By the asking region and the app.
    flycast: BTreeMap<(String, String), Ipv4Addr>,
}

enum Tasks {
    /// There is no runtime yet.
    Waiting(Vec<BoxFuture<'static, ()>>),
    Running(Handle),
}

/// What a fabric is made of.
#[derive(Default)]
pub(crate) struct Parts {
    /// The region of the edge, and of the DNS server of the machines' subnet.
    pub(crate) home: String,
    pub(crate) apps: Vec<String>,
    /// Apps with a Flycast address, and its ports.
    pub(crate) flycast: BTreeMap<String, Vec<u16>>,
    pub(crate) times: Times,
    /// What the machines listen on.
    pub(crate) ports: Vec<u16>,
    pub(crate) peers: Vec<String>,
    pub(crate) links: Vec<(String, String, Link)>,
}

impl Fabric {
    /// `subnet`: the machines' own.
    pub(crate) fn new(parts: Parts, subnet: Subnet) -> Result<Arc<Self>, Error> {
        let Parts { home, apps, flycast, times, ports, peers, links } = parts;
        let Subnet { block, dns_tcp, dns_udp } = subnet;
        let mut made = Made::default();
        made.dns.insert(home.clone(), block.dns());
        let address = |name: &String| Ok((name.clone(), made.address(&ports)?.to_ipv6_mapped()));
        let peers = peers.iter().map(address).collect::<Result<_, Error>>()?;
        let named = Links::default();
        links.iter().try_for_each(|(a, b, link)| named.set(a, b, *link))?;
        let fabric = Arc::new(Self {
            links: named,
            faults: Arc::default(),
            fleet: Arc::default(),
            apps,
            flycast,
            times,
            peers,
            ports,
            made: Mutex::new(made),
            tasks: Mutex::new(Tasks::Waiting(Vec::new())),
        });
        fabric.spawn(dns_server::serve(dns_tcp, dns_udp, home, Arc::clone(&fabric)));
        for app in fabric.flycast.keys() {
            fabric.spawn(Arc::new(fabric.proxy(app)).autostop());
        }
        Ok(fabric)
    }

    /// Starts what has been made so far; later things start as they are made.
    pub(crate) fn run(&self, runtime: &Handle) {
        let before = std::mem::replace(&mut *self.tasks(), Tasks::Running(runtime.clone()));
        if let Tasks::Waiting(waiting) = before {
            waiting.into_iter().for_each(|task| drop(runtime.spawn(task)));
        }
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match &mut *self.tasks() {
            Tasks::Waiting(waiting) => waiting.push(Box::pin(task)),
            Tasks::Running(runtime) => drop(runtime.spawn(task)),
        }
    }

    /// The `host:port` of the DNS server for a region's machines.
    pub(crate) fn dns(self: &Arc<Self>, region: &str) -> Result<String, Error> {
        let mut made = self.made();
        if let Some(known) = made.dns.get(region) {
            return Ok(known.clone());
        }
        let host = made.address(&self.ports)?;
        let tcp = TcpListener::bind((host, LOCK)).map_err(Error::NoNetwork)?;
        let udp = UdpSocket::bind((host, LOCK)).map_err(Error::NoNetwork)?;
        self.spawn(dns_server::serve(tcp, udp, region.to_owned(), Arc::clone(self)));
        let address = format!("{host}:{LOCK}");
        made.dns.insert(region.to_owned(), address.clone());
        Ok(address)
    }

    /// An address at which machines of `from` reach `target`, which is in `to`.
    pub(crate) fn relay(
        &self,
        from: &str,
        to: &str,
        target: SocketAddr,
    ) -> Result<SocketAddr, Error> {
        if from == to {
            return Ok(target);
        }
        let unnamed = || Error::NoLink(from.to_owned(), to.to_owned());
        let link = self.links.between(from, to).ok_or_else(unnamed)?;
        let mut made = self.made();
        let key = (from.to_owned(), target);
        if let Some(known) = made.outside.get(&key) {
            return Ok(*known);
        }
        let relay = SocketAddr::from((made.address(&self.ports)?, target.port()));
        self.forward(relay, target, link).map_err(Error::NoNetwork)?;
        made.outside.insert(key, relay);
        Ok(relay)
    }

    /// The address by which `from` reaches a machine of another region.
    pub(crate) fn reach(&self, from: &str, region: &str, machine: Ipv4Addr) -> Option<Ipv4Addr> {
        let link = match self.links.between(from, region) {
            Some(link) if from != region => link,
            _ => return Some(machine),
        };
        let mut made = self.made();
        let key = (from.to_owned(), machine);
        if let Some(known) = made.relays.get(&key) {
            return Some(*known);
        }
        let relay = made.address(&self.ports).and_then(|relay| {
            let forward = |port: &u16| {
                self.forward((relay, *port).into(), (machine, *port).into(), link.clone())
            };
            self.ports.iter().try_for_each(forward).map_err(Error::NoNetwork)?;
            Ok(relay)
        });
        match relay {
            Ok(relay) => {
                made.relays.insert(key, relay);
                Some(relay)
            }
            // a machine that cannot be reached as told is better not reached at all
            Err(error) => {
                tracing::error!(%error, from, region, "make a relay");
                None
            }
        }
    }

    /// The Flycast address of an app for the machines of a region, if it has any.
    pub(crate) fn flycast(self: &Arc<Self>, region: &str, app: &str) -> Option<Ipv4Addr> {
        let ports = self.flycast.get(app)?;
        let mut made = self.made();
        let key = (region.to_owned(), app.to_owned());
        if let Some(known) = made.flycast.get(&key) {
            return Some(*known);
        }
        let flycast = Flycast { proxy: self.proxy(app), region: region.to_owned() };
        let flycast = Arc::new(flycast);
        let address = made.address(&self.ports).and_then(|address| {
            let serve = |port: &u16| {
                let flycast = Arc::clone(&flycast);
                self.listen((address, *port).into(), |listener| flycast.serve(listener))
            };
            ports.iter().try_for_each(serve).map_err(Error::NoNetwork)?;
            Ok(address)
        });
        match address {
            Ok(address) => {
                made.flycast.insert(key, address);
                Some(address)
            }
            Err(error) => {
                tracing::error!(%error, app, "make a Flycast address");
                None
            }
        }
    }

    pub(crate) fn proxy(self: &Arc<Self>, app: &str) -> Proxy {
        Proxy { fabric: Arc::clone(self), app: app.to_owned(), times: self.times }
    }

    fn forward(
        &self,
        relay: SocketAddr,
        target: SocketAddr,
        link: watch::Receiver<Condition>,
    ) -> io::Result<()> {
        self.listen(relay, move |listener| relay::serve(listener, target, link))
    }

    fn listen<F: Future<Output = ()> + Send>(
        &self,
        address: SocketAddr,
        serve: impl FnOnce(tokio::net::TcpListener) -> F + Send + 'static,
    ) -> io::Result<()> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        self.spawn(async move {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => serve(listener).await,
                Err(error) => tracing::error!(%error, "listen between machines"),
            }
        });
        Ok(())
    }

    /// A round trip: as named, or as geography has it.
    pub(crate) fn rtt(&self, from: &str, to: &str) -> Duration {
        let named = self.links.between(from, to).filter(|_| from != to);
        named.map_or_else(|| places::rtt(from, to), |link| link.borrow().rtt)
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Made {
    /// One that nobody has.
    fn address(&mut self, ports: &[u16]) -> Result<Ipv4Addr, Error> {
        let last = self.blocks.last().map(|subnet| subnet.block);
        if let Some(address) = last.and_then(|block| block.machine(self.given)) {
            self.given += 1;
            return Ok(address);
        }
        let subnet = Subnet::claim(ports)?;
        let first = subnet.block.machine(0).ok_or(Error::TooMany(0))?;
        self.blocks.push(subnet);
        self.given = 1;
        Ok(first)
    }
}
