//! A running network: machines, DNS, edge, control socket.
//!
//! Invariants:
//! - Everything runs on one thread of its own: a caller that blocks or pauses
//!   its clock stops nothing, and the kernel ends the machines with that thread.
//! - Dropping it stops every machine, politely and then not, before it returns;
//!   Postgres goes last.

mod machines;
mod trouble;

use crate::{
    api,
    control::{self, Verb},
    error::Error,
    events::Events,
    fabric::Fabric,
    fleet::Fleet,
    lifecycle,
    machine::{Listed, Order, State},
    maker::Maker,
    plan::{self, Plan},
    rate::Limits,
    ready,
    spec::Spec,
};
use mesh::keys::Generated;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};
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
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) fabric: Arc<Fabric>,
    pub(crate) dns: String,
    pub(crate) edge: Option<SocketAddr>,
    pub(crate) keys: Arc<Generated>,
    /// The control socket.
    pub(crate) socket: PathBuf,
    /// Makes machines; its layout holds the root's lock.
    pub(crate) maker: Mutex<Maker>,
    pub(crate) events: Arc<Events>,
    /// Of the Machines API.
    pub(crate) limits: Limits,
    /// One deploy or scaling of an app at a time.
    pub(crate) changing: BTreeMap<String, tokio::sync::Mutex<()>>,
}

impl Flynet {
    /// Starts every machine; they may still be booting when this returns.
    pub async fn start(spec: Spec) -> Result<Self, Error> {
        // Postgres may have to be fetched and made
        let plan = tokio::task::spawn_blocking(move || plan::plan(&spec)).await;
        let plan = plan.map_err(|error| Error::Thread(error.to_string()))??;
        let stop = CancellationToken::new();
        let (tell, told) = oneshot::channel();
        let (shared, idle) = (Arc::clone(&plan.shared), plan.idle.clone());
        let thread = {
            let stop = stop.clone();
            let body = move || run(plan, tell, &stop);
            thread::Builder::new().name("flynet".to_owned()).spawn(body)
        };
        let thread = thread.map_err(|error| Error::Thread(error.to_string()))?;
        let died = |_| Error::Thread("it panicked".to_owned());
        let runtime = told.await.map_err(died)??;
        let net = Self { shared, runtime, stop, thread: Some(thread) };
        let all = net.shared.fleet.all();
        for machine in all.iter().filter(|machine| !idle.contains(&machine.id)) {
            let machine = Arc::clone(machine);
            let started = async move {
                lifecycle::start(&machine).await;
                Ok(())
            };
            net.on_thread(started).await?;
        }
        Ok(net)
    }

    /// `127.0.0.1:port` of the public edge, when an app has one.
    pub fn edge(&self) -> Option<SocketAddr> {
        self.shared.edge
    }

    /// `host:port` of the private DNS, as the machines of the edge's region ask it.
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
        Some(self.shared.fleet.find(id).ok()?.first()?.log.clone())
    }

    /// The directory that stands for a mount of a machine.
    pub fn volume(&self, id: &str, destination: &str) -> Option<PathBuf> {
        let machine = Arc::clone(self.shared.fleet.find(id).ok()?.first()?);
        machine.volumes.iter().find(|(at, _)| at == destination).map(|(_, path)| path.clone())
    }

    /// The directory of a machine, wiped at each start.
    pub fn directory(&self, id: &str) -> Option<PathBuf> {
        Some(self.shared.fleet.find(id).ok()?.first()?.directory.clone())
    }

    /// Waits until one machine says that it is ready.
    pub async fn ready(&self, id: &str, patience: Duration) -> Result<(), Error> {
        let machines = self.shared.fleet.find(id)?;
        self.on_thread(async move {
            for machine in &machines {
                ready::wait(machine, patience).await?;
            }
            Ok(())
        })
        .await
    }

    /// Waits until every machine that is started says that it is ready.
    pub async fn all_ready(&self, patience: Duration) -> Result<(), Error> {
        let all = self.shared.fleet.all();
        let started = all.iter().filter(|machine| machine.state() == State::Started);
        let ids: Vec<_> = started.map(|machine| machine.id.clone()).collect();
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
    pub(crate) fn maker(&self) -> MutexGuard<'_, Maker> {
        self.maker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn listed(&self) -> Vec<Listed> {
        self.fleet.all().iter().map(|machine| machine.listed()).collect()
    }

    pub(crate) fn one_change(&self, app: &str) -> Result<&tokio::sync::Mutex<()>, Error> {
        self.changing.get(app).ok_or_else(|| Error::NoSuch(app.to_owned()))
    }

    /// The ids of the machines it was done to.
    pub(crate) async fn act(&self, verb: Verb, to: &str) -> Result<Vec<String>, Error> {
        let machines = self.fleet.find(to)?;
        let acts = machines.iter().map(async |machine| {
            match verb {
                Verb::Freeze => return lifecycle::freeze(machine, true),
                Verb::Thaw => return lifecycle::freeze(machine, false),
                Verb::Start => lifecycle::start(machine).await,
                Verb::Stop => lifecycle::stop(machine, Order::Stop).await,
                Verb::Kill => lifecycle::stop(machine, Order::Kill).await,
                Verb::Suspend => lifecycle::suspend(machine).await,
            }
            Ok(())
        });
        futures_util::future::try_join_all(acts).await?;
        Ok(machines.iter().map(|machine| machine.id.clone()).collect())
    }
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
        let _until_the_end = plan.postgres;
        shared.fabric.run(&handle);
        let weak = || Arc::downgrade(&shared);
        let apis = shared.fleet.all().iter().try_for_each(|machine| api::serve(machine, weak()));
        let control = control::serve(&shared.socket, Arc::downgrade(&shared));
        let edge = plan.edge.map(|(listener, edge)| {
            let listener = tokio::net::TcpListener::from_std(listener);
            listener.map(|listener| tokio::spawn(Arc::new(edge).serve(listener)))
        });
        let edge = edge.transpose().map_err(|e| Error::Thread(format!("serve the edge: {e}")));
        if let Err(error) = edge.and(control).and(apis) {
            let _gone = tell.send(Err(error));
            return;
        }
        if tell.send(Ok(handle)).is_err() {
            return; // nobody waits for this network any more
        }
        stop.cancelled().await;
        let all = shared.fleet.all();
        let stops = all.iter().map(|machine| {
            // who is frozen hears nothing, and the end of a network need not wait for it
            let frozen = machine.status.borrow().frozen;
            lifecycle::stop(machine, if frozen { Order::Kill } else { Order::Stop })
        });
        futures_util::future::join_all(stops).await;
        let _gone = std::fs::remove_file(&shared.socket);
        for machine in &*shared.fleet.all() {
            let _gone = std::fs::remove_file(&machine.api);
        }
    });
}
