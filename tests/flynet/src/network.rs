//! A running network: machines, DNS, edge, control socket.
//!
//! Invariants:
//! - Everything runs on one thread of its own: a caller that blocks or pauses
//!   its clock stops nothing, and the kernel ends the machines with that thread.
//! - Dropping it stops every machine, politely and then not, before it returns.

use crate::{
    control, dns, dns_server,
    error::Error,
    layout::Layout,
    machine::{Listed, Machine, Order, State},
    plan::{self, Plan},
    ready,
    spec::Spec,
    supervise,
};
use mesh::keys::Generated;
use std::{net::SocketAddr, path::PathBuf, sync::Arc, thread, time::Duration};
use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::sync::CancellationToken;

pub struct Flynet {
    shared: Arc<Shared>,
    runtime: Handle,
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

/// What the thread and its handles both see.
pub(crate) struct Shared {
    pub(crate) machines: Vec<Arc<Machine>>,
    pub(crate) apps: Vec<String>,
    pub(crate) dns: String,
    pub(crate) edge: Option<SocketAddr>,
    pub(crate) keys: Generated,
    /// Holds the root's lock.
    pub(crate) layout: Layout,
}

impl Flynet {
    /// Starts every machine; they may still be booting when this returns.
    pub async fn start(spec: Spec) -> Result<Self, Error> {
        let plan = plan::plan(&spec)?;
        let stop = CancellationToken::new();
        let (tell, told) = oneshot::channel();
        let shared = Arc::clone(&plan.shared);
        let thread = {
            let stop = stop.clone();
            let body = move || run(plan, tell, &stop);
            thread::Builder::new().name("flynet".to_owned()).spawn(body)
        };
        let thread = thread.map_err(|error| Error::Thread(error.to_string()))?;
        let died = |_| Error::Thread("it panicked".to_owned());
        let runtime = told.await.map_err(died)??;
        let net = Self { shared, runtime, stop, thread: Some(thread) };
        for machine in &net.shared.machines {
            let machine = Arc::clone(machine);
            net.on_thread(async move { started(&machine).await }).await?;
        }
        Ok(net)
    }

    /// `127.0.0.1:port` of the public edge, when an app has one.
    pub fn edge(&self) -> Option<SocketAddr> {
        self.shared.edge
    }

    /// `host:port` of the private DNS.
    pub fn dns(&self) -> &str {
        &self.shared.dns
    }

    /// The mesh keys of this network's apps.
    pub fn keys(&self) -> &Generated {
        &self.shared.keys
    }

    pub fn machines(&self) -> Vec<Listed> {
        self.shared.listed()
    }

    /// The log of one machine.
    pub fn log(&self, id: &str) -> Option<PathBuf> {
        Some(self.shared.find(id).ok()?.first()?.log.clone())
    }

    /// The directory that stands for a mount of a machine.
    pub fn volume(&self, id: &str, destination: &str) -> Option<PathBuf> {
        let machine = Arc::clone(self.shared.find(id).ok()?.first()?);
        machine.volumes.iter().find(|(at, _)| at == destination).map(|(_, path)| path.clone())
    }

    /// The directory of a machine, wiped at each start.
    pub fn directory(&self, id: &str) -> Option<PathBuf> {
        Some(self.shared.find(id).ok()?.first()?.directory.clone())
    }

    /// Starts what is stopped; `target`: a machine id, an app, or a role.
    pub async fn start_machines(&self, target: &str) -> Result<Vec<String>, Error> {
        self.verb(target, control::Verb::Start).await
    }

    /// As Fly stops a machine: the kill signal, then SIGKILL after the kill timeout.
    pub async fn stop_machines(&self, target: &str) -> Result<Vec<String>, Error> {
        self.verb(target, control::Verb::Stop).await
    }

    /// SIGKILL at once; stays stopped.
    pub async fn kill_machines(&self, target: &str) -> Result<Vec<String>, Error> {
        self.verb(target, control::Verb::Kill).await
    }

    /// Waits until one machine says that it is ready.
    pub async fn ready(&self, id: &str, patience: Duration) -> Result<(), Error> {
        let machines = self.shared.find(id)?;
        self.on_thread(async move {
            for machine in &machines {
                ready::wait(machine, patience).await?;
            }
            Ok(())
        })
        .await
    }

    /// Waits until every machine says that it is ready.
    pub async fn all_ready(&self, patience: Duration) -> Result<(), Error> {
        let ids: Vec<_> = self.shared.machines.iter().map(|m| m.id.clone()).collect();
        futures_util::future::try_join_all(ids.iter().map(|id| self.ready(id, patience))).await?;
        Ok(())
    }

    /// Stops every machine and everything else.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let Some(thread) = self.thread.take() else { return };
        // a panic of the thread has been printed; the kernel has ended its machines
        let _ended = tokio::task::spawn_blocking(move || thread.join()).await;
    }

    async fn verb(&self, target: &str, verb: control::Verb) -> Result<Vec<String>, Error> {
        let shared = Arc::clone(&self.shared);
        let target = target.to_owned();
        self.on_thread(async move { shared.act(verb, &target).await }).await
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let ended = |error: tokio::task::JoinError| Error::Thread(error.to_string());
        self.runtime.spawn(work).await.map_err(ended)?
    }
}

impl Drop for Flynet {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

impl Shared {
    pub(crate) fn listed(&self) -> Vec<Listed> {
        self.machines.iter().map(|machine| machine.listed()).collect()
    }

    /// By id, app name, or role (the app's suffix).
    pub(crate) fn find(&self, target: &str) -> Result<Vec<Arc<Machine>>, Error> {
        let named = |m: &&Arc<Machine>| {
            m.id == target || m.app == target || m.app.ends_with(&format!("-{target}"))
        };
        let found: Vec<_> = self.machines.iter().filter(named).cloned().collect();
        if found.is_empty() { Err(Error::NoSuch(target.to_owned())) } else { Ok(found) }
    }

    /// The ids of the machines it was done to.
    pub(crate) async fn act(&self, verb: control::Verb, to: &str) -> Result<Vec<String>, Error> {
        let machines = self.find(to)?;
        let acts = machines.iter().map(async |machine| match verb {
            control::Verb::Start => started(machine).await,
            control::Verb::Stop => stopped(machine, Order::Stop).await,
            control::Verb::Kill => stopped(machine, Order::Kill).await,
        });
        futures_util::future::try_join_all(acts).await?;
        Ok(machines.iter().map(|machine| machine.id.clone()).collect())
    }

    fn snapshot(&self) -> dns::Snapshot {
        let entry = |machine: &Arc<Machine>| dns::Entry {
            app: machine.app.clone(),
            id: machine.id.clone(),
            region: machine.region.clone(),
            group: "app".to_owned(),
            address: machine.address.to_ipv6_mapped(),
            started: machine.state() == State::Started,
            metadata: vec![("fly_process_group".to_owned(), "app".to_owned())],
        };
        dns::Snapshot {
            apps: self.apps.clone(),
            machines: self.machines.iter().map(entry).collect(),
        }
    }
}

async fn started(machine: &Arc<Machine>) -> Result<(), Error> {
    let _one = machine.verb.lock().await;
    if machine.state() == State::Stopped {
        machine.order.send_replace(Order::Run);
        machine.status.send_modify(|status| status.state = State::Started);
        tokio::spawn(supervise::run(Arc::clone(machine)));
    }
    Ok(())
}

async fn stopped(machine: &Arc<Machine>, order: Order) -> Result<(), Error> {
    if order == Order::Kill {
        // also what is being stopped too slowly for somebody's taste
        machine.order.send_if_modified(|now| *now == Order::Stop && replace(now, order));
    }
    let _one = machine.verb.lock().await;
    if machine.state() == State::Stopped {
        return Ok(());
    }
    machine.status.send_modify(|status| status.state = State::Stopping);
    machine.order.send_replace(order);
    let mut status = machine.status.subscribe();
    let _state = status.wait_for(|status| status.state == State::Stopped).await;
    Ok(())
}

fn replace(now: &mut Order, order: Order) -> bool {
    *now = order;
    true
}

/// The thread: serves until told to stop, then stops the machines.
fn run(plan: Plan, tell: oneshot::Sender<Result<Handle, Error>>, stop: &CancellationToken) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _gone = tell.send(Err(Error::Thread(error.to_string())));
            return;
        }
    };
    let handle = runtime.handle().clone();
    runtime.block_on(async move {
        let shared = plan.shared;
        let look = {
            let shared = Arc::clone(&shared);
            Arc::new(move || shared.snapshot())
        };
        let dns = dns_server::serve(plan.subnet.dns_tcp, plan.subnet.dns_udp, plan.region, look);
        let serving = dns.map_err(|error| Error::Thread(format!("serve DNS: {error}")));
        let control = control::serve(&shared.layout.socket(), Arc::downgrade(&shared));
        let edge = plan.edge.map(|(listener, edge)| {
            let listener = tokio::net::TcpListener::from_std(listener);
            listener.map(|listener| tokio::spawn(Arc::new(edge).serve(listener)))
        });
        let edge = edge.transpose().map_err(|e| Error::Thread(format!("serve the edge: {e}")));
        let _dns = match serving.and_then(|dns| edge.and(control).map(|()| dns)) {
            Ok(dns) => dns,
            Err(error) => {
                let _gone = tell.send(Err(error));
                return;
            }
        };
        if tell.send(Ok(handle)).is_err() {
            return; // nobody waits for this network any more
        }
        stop.cancelled().await;
        let all = shared.machines.iter().map(|machine| stopped(machine, Order::Stop));
        futures_util::future::join_all(all).await;
        let _gone = std::fs::remove_file(shared.layout.socket());
    });
}
