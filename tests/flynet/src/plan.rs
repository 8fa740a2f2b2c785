//! From a [`Spec`] to machines that can be started.
//!
//! Invariants:
//! - Whatever can be refused is refused here, before anything runs.

use crate::{
    edge::Edge,
    error::Error,
    events::Events,
    fabric::{Fabric, Parts},
    fly_toml::FlyToml,
    layout::Layout,
    machine::Machine,
    maker::{Deployed, Maker},
    network::Shared,
    postgres::Postgres,
    proxy::Times,
    rate::Limits,
    spec::{App, Spec},
    subnet::{Block, Subnet},
};
use mesh::keys;
use std::{
    collections::BTreeSet,
    net::TcpListener,
    sync::{Arc, Mutex},
};

/// A network that can be run.
pub(crate) struct Plan {
    pub(crate) shared: Arc<Shared>,
    pub(crate) edge: Option<(TcpListener, Edge)>,
    /// Ids of the machines that are not started.
    pub(crate) idle: BTreeSet<String>,
    pub(crate) postgres: Option<Postgres>,
}

pub(crate) fn plan(spec: &Spec) -> Result<Plan, Error> {
    let mut apps = apps(spec)?;
    let public = apps.iter().find(|app| app.config.http_service.is_some());
    let region = public.or_else(|| apps.first()).and_then(|app| app.app.placement.first());
    let region = region.map_or_else(|| "iad".to_owned(), |(region, _)| region.clone());
    let public = public.map(|app| app.name.clone());
    let (fabric, block) = fabric(spec, &apps, &region)?;
    let roles: Vec<_> = spec.apps.iter().map(|app| app.role.as_str()).collect();
    let keys = keys::generate(&roles).map_err(|error| Error::Keys(error.to_string()))?;
    let keys = Arc::new(keys);
    let events = Arc::new(Events::new());
    let layout = Layout::open(&spec.root)?;
    let start = |wanted| Postgres::start(wanted, &layout, block.postgres());
    let postgres = spec.postgres.as_ref().map(start).transpose()?;
    for app in &mut apps {
        postgres.iter().for_each(|postgres| postgres.attach(&mut app.app));
    }
    let mut maker = Maker {
        spec: spec.clone(),
        apps: apps.clone(),
        keys: Arc::clone(&keys),
        events: Arc::clone(&events),
        layout,
        fabric: Arc::clone(&fabric),
        block,
        given: 0,
    };
    let (machines, idle) = machines(&mut maker, &apps)?;
    maker.layout.save()?;
    machines.into_iter().for_each(|machine| fabric.fleet.add(machine));
    let edge = match public {
        Some(app) => Some(edge(spec.edge_port, &fabric, &app, &region)?),
        None => None,
    };
    let changing = apps.iter().map(|app| (app.name.clone(), tokio::sync::Mutex::new(()))).collect();
    let shared = Shared {
        fleet: Arc::clone(&fabric.fleet),
        fabric,
        dns: block.dns(),
        edge: edge.as_ref().and_then(|(listener, _)| listener.local_addr().ok()),
        keys,
        socket: maker.layout.socket(),
        maker: Mutex::new(maker),
        events,
        limits: Limits::default(),
        changing,
    };
    Ok(Plan { shared: Arc::new(shared), edge, idle, postgres })
}

/// What lies between the machines, and the block of their addresses.
fn fabric(spec: &Spec, apps: &[Deployed], home: &str) -> Result<(Arc<Fabric>, Block), Error> {
    let ports: BTreeSet<_> = apps.iter().flat_map(|app| app.config.ports.clone()).collect();
    let ports: Vec<_> = ports.into_iter().collect();
    let subnet = Subnet::claim(&ports)?;
    let block = subnet.block;
    let service =
        |app: &Deployed| Some((app.name.clone(), app.config.services.first()?.ports.clone()));
    let parts = Parts {
        home: home.to_owned(),
        apps: apps.iter().map(|app| app.name.clone()).collect(),
        ports,
        flycast: apps.iter().filter_map(service).collect(),
        times: Times::of(&spec.intervals),
        peers: spec.peers.clone(),
        links: spec.links.clone(),
    };
    Ok((Fabric::new(parts, subnet)?, block))
}

/// As their files say; a file or program that is no good is refused here.
fn apps(spec: &Spec) -> Result<Vec<Deployed>, Error> {
    let mut apps = Vec::new();
    for app in &spec.apps {
        let config = FlyToml::read(&app.config)?;
        let name = name(spec, app, &config)?;
        if !app.program.is_file() {
            return Err(Error::NoProgram { role: app.role.clone(), path: app.program.clone() });
        }
        apps.push(Deployed { name, app: app.clone(), config: Arc::new(config), number: 1 });
    }
    Ok(apps)
}

/// Every machine, and the ids of those that shall exist without running.
fn machines(
    maker: &mut Maker,
    apps: &[Deployed],
) -> Result<(Vec<Arc<Machine>>, BTreeSet<String>), Error> {
    let each = |placement: &[(String, usize)]| -> Vec<String> {
        let regions = placement.iter().flat_map(|(r, count)| std::iter::repeat_n(r, *count));
        regions.cloned().collect()
    };
    let (mut machines, mut idle) = (Vec::new(), BTreeSet::new());
    for app in apps {
        let running = each(&app.app.placement).into_iter().map(|region| (region, true));
        let stopped = each(&app.app.stopped).into_iter().map(|region| (region, false));
        for (region, runs) in running.chain(stopped) {
            let machine = maker.machine(app, &region, &machines)?;
            if !runs {
                idle.insert(machine.id.clone());
            }
            machines.push(Arc::new(machine));
        }
    }
    Ok((machines, idle))
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

fn edge(
    port: u16,
    fabric: &Arc<Fabric>,
    app: &str,
    region: &str,
) -> Result<(TcpListener, Edge), Error> {
    let bind = || {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        Ok((listener, port))
    };
    let (listener, port) = bind().map_err(|source| Error::Edge { port, source })?;
    let edge = Edge::new(Arc::new(fabric.proxy(app)), region.to_owned(), port);
    Ok((listener, edge))
}
