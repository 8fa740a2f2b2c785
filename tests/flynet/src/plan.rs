//! From a [`Spec`] to machines that can be started.
//!
//! Invariants:
//! - Whatever can be refused is refused here, before anything runs.

use crate::{
    edge::Edge,
    environment,
    error::Error,
    fly_toml::FlyToml,
    layout::Layout,
    machine::{Machine, Order, Status},
    network::Shared,
    spec::{App, Spec},
    subnet::Subnet,
};
use mesh::keys::{self, Generated};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    sync::Arc,
};
use tokio::sync::{Mutex, watch};

/// A network that can be run.
pub(crate) struct Plan {
    pub(crate) shared: Arc<Shared>,
    pub(crate) subnet: Subnet,
    pub(crate) edge: Option<(TcpListener, Edge)>,
    /// The edge's own.
    pub(crate) region: String,
}

pub(crate) fn plan(spec: &Spec) -> Result<Plan, Error> {
    let mut apps = Vec::new();
    for app in &spec.apps {
        let config = FlyToml::read(&app.config)?;
        let name = name(spec, app, &config)?;
        if !app.program.is_file() {
            return Err(Error::NoProgram { role: app.role.clone(), path: app.program.clone() });
        }
        apps.push((app, name, Arc::new(config)));
    }
    let subnet = Subnet::claim(&ports(apps.iter().map(|(.., config)| &**config)))?;
    let roles: Vec<_> = apps.iter().map(|(app, ..)| app.role.as_str()).collect();
    let keys = keys::generate(&roles).map_err(|error| Error::Keys(error.to_string()))?;
    let mut layout = Layout::open(&spec.root)?;
    let total = apps.iter().flat_map(|(app, ..)| &app.placement).map(|(_, count)| count).sum();
    let mut machines: Vec<Arc<Machine>> = Vec::new();
    for (app, name, config) in &apps {
        let mut numbers = BTreeMap::new();
        for region in app.placement.iter().flat_map(|(r, count)| std::iter::repeat_n(r, *count)) {
            let number = numbers.entry(region).or_insert(0_usize);
            let address = subnet.machine(machines.len()).ok_or(Error::TooMany(total))?;
            let made = Making { spec, app, name, config, keys: &keys, subnet: &subnet };
            let machine = made.machine(&mut layout, region, *number, address)?;
            machines.push(Arc::new(machine));
            *number += 1;
        }
    }
    layout.save()?;
    let public = apps.iter().find(|(.., config)| config.http_service.is_some());
    let first = |(app, ..): &(&App, String, Arc<FlyToml>)| app.placement.first().cloned();
    let region = public.or_else(|| apps.first()).and_then(first);
    let region = region.map_or_else(|| "iad".to_owned(), |(region, _)| region);
    let edge = match public {
        Some((_, name, _)) => {
            let behind = machines.iter().filter(|machine| machine.app == *name).cloned();
            Some(edge(spec.edge_port, behind.collect(), &region)?)
        }
        None => None,
    };
    let address = edge.as_ref().and_then(|(listener, _)| listener.local_addr().ok());
    let apps = apps.into_iter().map(|(_, name, _)| name).collect();
    let shared = Shared { machines, apps, dns: subnet.dns(), edge: address, keys, layout };
    Ok(Plan { shared: Arc::new(shared), subnet, edge, region })
}

fn name(spec: &Spec, app: &App, config: &FlyToml) -> Result<String, Error> {
    if let Some(prefix) = &spec.prefix {
        return Ok(format!("{prefix}-{}", app.role));
    }
    if config.app.ends_with(&format!("-{}", app.role)) {
        return Ok(config.app.clone());
    }
    let (path, app, role) = (app.config.clone(), config.app.clone(), app.role.clone());
    Err(Error::AppName { path, app, role })
}

fn ports<'a>(configs: impl Iterator<Item = &'a FlyToml>) -> Vec<u16> {
    let of = |config: &FlyToml| {
        let public = config.http_service.as_ref().map(|service| service.internal_port);
        public.into_iter().chain(config.ready.as_ref().map(|(port, _)| *port)).collect::<Vec<_>>()
    };
    let mut ports: Vec<_> = configs.flat_map(of).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn edge(
    port: u16,
    machines: Vec<Arc<Machine>>,
    region: &str,
) -> Result<(TcpListener, Edge), Error> {
    let bind = || {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        Ok((listener, port))
    };
    let (listener, port) = bind().map_err(|source| Error::Edge { port, source })?;
    Ok((listener, Edge::new(machines, region.to_owned(), port)))
}

/// What a machine is made from.
struct Making<'a> {
    spec: &'a Spec,
    app: &'a App,
    name: &'a str,
    config: &'a Arc<FlyToml>,
    keys: &'a Generated,
    subnet: &'a Subnet,
}

impl Making<'_> {
    fn machine(
        &self,
        layout: &mut Layout,
        region: &str,
        number: usize,
        address: Ipv4Addr,
    ) -> Result<Machine, Error> {
        let id = layout.id(self.name, region, number);
        let directory = layout.machine(&id);
        let mut volumes = Vec::new();
        for mount in &self.config.mounts {
            let owner = format!("{region}-{number}");
            let path = layout.volume(self.name, &mount.source, &owner)?;
            volumes.push((mount.destination.clone(), path));
        }
        let local = |path: &str| self.spec.workdir.join(Path::new(path));
        let files =
            self.config.files.iter().filter_map(|file| {
                Some((file.guest_path.clone(), local(file.local_path.as_deref()?)))
            });
        let mut secrets =
            BTreeMap::from([("SKEIN_MESH_PEERS".to_owned(), self.keys.peers.clone())]);
        if let Some(key) = self.keys.secrets.get(&self.app.role) {
            secrets.insert("SKEIN_MESH_KEY".to_owned(), key.expose().to_owned());
        }
        secrets.extend(self.app.secrets.clone());
        let intervals = self.spec.intervals.variables().collect();
        let env = environment::of(&environment::Inputs {
            app: self.name,
            id: &id,
            region,
            address,
            dns: &self.subnet.dns(),
            config: self.config,
            directory: &directory,
            volumes: &volumes,
            overrides: &[&intervals, &self.spec.env, &self.app.env],
            secrets: &secrets,
        });
        let program = self.app.program.canonicalize();
        Ok(Machine {
            app: self.name.to_owned(),
            region: region.to_owned(),
            address,
            program: program.map_err(Error::io("open", &self.app.program))?,
            config: Arc::clone(self.config),
            files: files.collect(),
            env,
            log: layout.log(self.name, &id),
            kill_timeout: self.spec.intervals.kill_timeout.unwrap_or(self.config.kill_timeout),
            status: watch::Sender::new(Status::default()),
            order: watch::Sender::new(Order::Run),
            verb: Mutex::new(()),
            load: Arc::default(),
            id,
            directory,
            volumes,
        })
    }
}
