//! What machines are made from, at the start and while the network runs.
//!
//! Invariants:
//! - A machine made later is made of the same things as those made first.
//! - A new machine takes the lowest free number of its app and region, and with
//!   it the volume that a destroyed machine of that number left.
//! - An address is given again only when every other has been used.

use crate::{
    environment,
    error::Error,
    events::Events,
    fabric::Fabric,
    fleet::is_app,
    fly_toml::FlyToml,
    layout::Layout,
    machine::{Machine, Release},
    pace::Pace,
    postgres,
    spec::{App, Intervals, Postgres, Spec},
    subnet::Block,
};
use mesh::keys::Generated;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
};

/// An app as it was last deployed.
#[derive(Clone)]
pub(crate) struct Deployed {
    pub(crate) name: String,
    pub(crate) app: App,
    pub(crate) config: Arc<FlyToml>,
    /// How often it has been deployed, `fly_release_version`.
    pub(crate) number: u32,
}

pub(crate) struct Maker {
    pub(crate) spec: Spec,
    pub(crate) apps: Vec<Deployed>,
    pub(crate) keys: Arc<Generated>,
    pub(crate) layout: Layout,
    pub(crate) events: Arc<Events>,
    pub(crate) fabric: Arc<Fabric>,
    pub(crate) block: Block,
    /// Addresses given so far, in the order of [`Block::machine`].
    pub(crate) given: usize,
}

impl Maker {
    pub(crate) fn app(&self, target: &str) -> Result<&Deployed, Error> {
        let found = self.apps.iter().find(|app| is_app(&app.name, target));
        found.ok_or_else(|| Error::NoSuch(target.to_owned()))
    }

    /// From now on machines are made of this.
    pub(crate) fn deployed(&mut self, new: Deployed) {
        if let Some(app) = self.apps.iter_mut().find(|app| app.name == new.name) {
            *app = new;
        }
    }

    /// A stopped machine of `app`; `others` are those that exist.
    pub(crate) fn machine(
        &mut self,
        app: &Deployed,
        region: &str,
        others: &[Arc<Machine>],
    ) -> Result<Machine, Error> {
        let address = self.address(others)?;
        let beside = others.iter().filter(|m| m.app == app.name && m.region == region);
        let taken: BTreeSet<_> = beside.map(|machine| machine.number).collect();
        let number = (0..).find(|number| !taken.contains(number)).unwrap_or_default();
        let id = self.layout.id(&app.name, region, number);
        let mut volumes = Vec::new();
        for mount in &app.config.mounts {
            let path = self.layout.volume(&app.name, &mount.source, region, number)?;
            volumes.push((mount.destination.clone(), path));
        }
        let place = Place {
            app: app.name.clone(),
            region: region.to_owned(),
            address,
            number,
            directory: self.layout.machine(&id),
            log: self.layout.log(&app.name, &id),
            api: self.layout.api(&id),
            volumes,
            id,
        };
        let release = self.release(app, &place)?;
        let Intervals { boot, speed, .. } = self.spec.intervals;
        let pace = Pace { speed: speed.unwrap_or(1), boot: boot.unwrap_or_default() };
        let machine = Machine::new(place, release, pace, Arc::clone(&self.events));
        machine.metadata.send_modify(|metadata| {
            metadata.insert("fly_release_version".to_owned(), app.number.to_string());
        });
        Ok(machine)
    }

    /// What a machine at `place` runs from its next start on.
    pub(crate) fn release(&self, app: &Deployed, place: &Place) -> Result<Release, Error> {
        let local = |path: &str| self.spec.workdir.join(Path::new(path));
        let files = app.config.files.iter();
        let files = files
            .filter_map(|f| Some((f.guest_path.clone(), local(f.local_path.as_deref()?))))
            .collect();
        let mut secrets =
            BTreeMap::from([("SKEIN_MESH_PEERS".to_owned(), self.keys.peers.clone())]);
        if let Some(key) = self.keys.secrets.get(&app.app.role) {
            secrets.insert("SKEIN_MESH_KEY".to_owned(), key.expose().to_owned());
        }
        secrets.extend(app.app.secrets.clone());
        if let Some(url) = secrets.get_mut(postgres::URL) {
            *url = self.postgres_from(&place.region, url);
        }
        let intervals = self.spec.intervals.variables().collect();
        let version = version();
        let env = environment::of(&environment::Inputs {
            place,
            version: &version,
            dns: &self.fabric.dns(&place.region)?,
            config: &app.config,
            overrides: &[&intervals, &self.spec.env, &app.app.env],
            secrets: &secrets,
        });
        let program = app.app.program.canonicalize();
        Ok(Release {
            version,
            program: program.map_err(Error::io("open", &app.app.program))?,
            config: Arc::clone(&app.config),
            files,
            env,
            kill_timeout: self.spec.intervals.kill_timeout.unwrap_or(app.config.kill_timeout),
        })
    }

    /// Postgres's URL as a region reaches it: through its link, if it has one.
    fn postgres_from(&self, region: &str, url: &str) -> String {
        let address = self.block.postgres();
        let relay = |postgres: &Postgres| self.fabric.relay(region, &postgres.region, address);
        match self.spec.postgres.as_ref().map(relay) {
            Some(Ok(relay)) => url.replace(&address.to_string(), &relay.to_string()),
            _ => url.to_owned(),
        }
    }

    fn address(&mut self, others: &[Arc<Machine>]) -> Result<Ipv4Addr, Error> {
        if let Some(fresh) = self.block.machine(self.given) {
            self.given += 1;
            return Ok(fresh);
        }
        let taken: BTreeSet<_> = others.iter().map(|machine| machine.address).collect();
        let mut every = (0..self.given).filter_map(|number| self.block.machine(number));
        every.find(|address| !taken.contains(address)).ok_or(Error::TooMany(others.len() + 1))
    }
}

/// What never changes about a machine, whatever is deployed to it.
#[derive(Clone)]
pub(crate) struct Place {
    /// 14 hex digits, the same after every restart.
    pub(crate) id: String,
    pub(crate) app: String,
    pub(crate) region: String,
    /// Among its app's machines of the region.
    pub(crate) number: usize,
    pub(crate) address: Ipv4Addr,
    /// Wiped at every start.
    pub(crate) directory: PathBuf,
    /// Mount destination and the directory that stands for it.
    pub(crate) volumes: Vec<(String, PathBuf)>,
    pub(crate) log: PathBuf,
    /// Its `/.fly/api`.
    pub(crate) api: PathBuf,
}

/// A ULID, as Fly's machine versions are: later ones sort later.
fn version() -> String {
    const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let id = uuid::Uuid::now_v7().as_u128();
    let digit = |place: u32| char::from(CROCKFORD[(id >> (5 * place)) as usize & 31]);
    (0..26).rev().map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ulids_and_grow() {
        let (one, two) = (version(), version());
        assert!(one.len() == 26 && one.starts_with('0') && one < two, "{one} {two}");
    }
}
