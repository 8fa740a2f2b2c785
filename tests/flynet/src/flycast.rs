//! Flycast: an app's private address, behind which the proxy chooses the machine.
//!
//! Invariants:
//! - The machine is chosen once per connection; bytes pass untouched.
//! - A stopped machine is started when nobody else can take the connection, which
//!   waits for it.
//! - A connection lives as long as the proxy lets it, whatever passes.

use crate::{
    machine::Machine,
    proxy::{Proxy, Wish},
    relay,
};
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};

pub(crate) struct Flycast {
    pub(crate) proxy: Proxy,
    /// Whose machines connect here; on Fly one address does for all regions.
    pub(crate) region: String,
}

impl Flycast {
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((client, _)) => {
                    tokio::spawn(Arc::clone(&self).connection(client));
                }
                // out of descriptors, or a client that is gone: the next one may be fine
                Err(error) => {
                    tracing::warn!(%error, "accept at a Flycast address");
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, client: TcpStream) {
        let begun = Instant::now();
        tokio::select! {
            () = self.pass(client, begun) => {}
            () = sleep(self.proxy.times.cut) => {}
        }
    }

    async fn pass(&self, client: TcpStream, begun: Instant) {
        let until = begun + self.proxy.times.queue;
        let near = self.region.clone();
        let wish = Wish { near, across: true, ..Wish::default() };
        let mut tried = Vec::new();
        while let Some((machine, _seat)) = self.proxy.seat(&wish, &mut tried, until).await {
            let Some(server) = self.connect(&machine).await else {
                tried.push(machine.id.clone());
                continue;
            };
            let link = self.proxy.fabric.links.between(&self.region, &machine.region);
            match link.filter(|_| self.region != machine.region) {
                Some(link) => relay::join(client, server, link, begun).await,
                None => near_by(client, server).await,
            }
            return;
        }
        let _gone = client.set_zero_linger();
    }

    async fn connect(&self, machine: &Machine) -> Option<TcpStream> {
        let release = machine.release();
        let port = Proxy::service(&release.config)?.internal_port;
        TcpStream::connect(SocketAddr::from((machine.address, port))).await.ok()
    }
}

async fn near_by(mut client: TcpStream, mut server: TcpStream) {
    let _best_effort = (client.set_nodelay(true), server.set_nodelay(true));
    if tokio::io::copy_bidirectional(&mut client, &mut server).await.is_err() {
        let _gone = (client.set_zero_linger(), server.set_zero_linger());
    }
}
