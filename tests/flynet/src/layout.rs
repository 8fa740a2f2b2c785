//! Who may write where: the directories of a network.
//!
//! ```text
//! <root>/machines.json               machine ids, the same in every run
//! <root>/machines/<id>/              a machine's root file system: cwd, HOME, TMPDIR, [[files]]
//! <root>/volumes/<app>/<source>-<n>/ a volume, of machine <n> alone
//! <root>/postgres/                   the external Postgres and its data
//! <root>/logs/<app>-<id>.log         stdout and stderr
//! <root>/run/                        lock, control socket, /.fly/api of each machine
//! ```
//!
//! Invariants:
//! - A machine's directory is empty but for its `[[files]]` at every start.
//! - A volume belongs to one machine and outlives every run.
//! - One flynet per root.

use crate::{error::Error, machine::Machine};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

pub(crate) struct Layout {
    root: PathBuf,
    ids: BTreeMap<String, String>,
    /// Held as long as the network lives.
    _lock: File,
}

impl Layout {
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        for part in ["machines", "volumes", "logs", "run"] {
            let path = root.join(part);
            fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        }
        let root = root.canonicalize().map_err(Error::io("open", root))?;
        let path = root.join("run/lock");
        let lock = File::create(&path).map_err(Error::io("create", &path))?;
        lock.try_lock().map_err(|_| Error::RootInUse(root.clone()))?;
        // what an earlier run may have left: no machine of this root is alive
        clear(&root.join("machines"))?;
        clear(&root.join("logs"))?;
        clear_sockets(&root.join("run"))?;
        let ids = fs::read(root.join("machines.json"))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        Ok(Self { root, ids, _lock: lock })
    }

    /// The id of the `number`th machine of an app in a region.
    pub(crate) fn id(&mut self, app: &str, region: &str, number: usize) -> String {
        let known = self.ids.entry(format!("{app}/{region}/{number}"));
        known.or_insert_with(|| format!("{:014x}", fastrand::u64(..1 << 56))).clone()
    }

    pub(crate) fn save(&self) -> Result<(), Error> {
        let path = self.root.join("machines.json");
        let text = serde_json::to_vec_pretty(&self.ids).unwrap_or_default();
        let new = path.with_extension("new");
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .map_err(Error::io("write", &path))
    }

    pub(crate) fn machine(&self, id: &str) -> PathBuf {
        self.root.join("machines").join(id)
    }

    pub(crate) fn log(&self, app: &str, id: &str) -> PathBuf {
        self.root.join("logs").join(format!("{app}-{id}.log"))
    }

    /// Forgets a destroyed machine: the next of this number has another id.
    pub(crate) fn forget(&mut self, app: &str, region: &str, number: usize) {
        self.ids.remove(&format!("{app}/{region}/{number}"));
    }

    /// The volume of one machine alone.
    pub(crate) fn volume(
        &self,
        app: &str,
        source: &str,
        region: &str,
        number: usize,
    ) -> Result<PathBuf, Error> {
        let name = format!("{source}-{region}-{number}");
        let path = self.root.join("volumes").join(app).join(name);
        fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        Ok(path)
    }

    /// The directory of the external Postgres, and its log.
    pub(crate) fn postgres(&self) -> (PathBuf, PathBuf) {
        (self.root.join("postgres"), self.root.join("logs/postgres.log"))
    }

    /// A machine's own socket; its path is short, as the kernel wants 108 bytes.
    pub(crate) fn api(&self, id: &str) -> PathBuf {
        self.root.join("run").join(id)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.root.join("run/control.sock")
    }
}

/// A fresh root file system, as on every start of a Fly machine.
pub(crate) fn wipe(machine: &Machine) -> Result<(), Error> {
    let directory = &machine.directory;
    clear(directory)?;
    let release = machine.release();
    let tmp = directory.join("tmp");
    fs::create_dir_all(&tmp).map_err(Error::io("create", &tmp))?;
    for (guest, source) in &release.files {
        let path = inside(directory, guest);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        }
        // read and written, not copied: the source's mode is the author's affair
        let content = fs::read(source).map_err(Error::io("read", source))?;
        fs::write(&path, content).map_err(Error::io("write", &path))?;
    }
    Ok(())
}

/// Where a guest path lies without a root file system of one's own.
pub(crate) fn inside(directory: &Path, guest: &str) -> PathBuf {
    directory.join(guest.trim_start_matches('/'))
}

/// What a flynet that was killed has left; the lock stays.
fn clear_sockets(run: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(run).map_err(Error::io("read", run))?.flatten() {
        if entry.file_name() != "lock" {
            let _gone = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

fn clear(directory: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("wipe", directory)(error));
        }
        _ => {}
    }
    fs::create_dir_all(directory).map_err(Error::io("create", directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_fly_shaped_and_kept() {
        let root = tempfile::tempdir().unwrap();
        let mut layout = Layout::open(root.path()).unwrap();
        let id = layout.id("a-router", "iad", 0);
        assert!(id.len() == 14 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        assert_ne!(id, layout.id("a-router", "iad", 1));
        layout.save().unwrap();
        drop(layout);
        assert_eq!(Layout::open(root.path()).unwrap().id("a-router", "iad", 0), id);
    }

    #[test]
    fn sockets_of_a_killed_flynet_are_swept() {
        let root = tempfile::tempdir().unwrap();
        drop(Layout::open(root.path()).unwrap());
        let left = root.path().join("run/00000000000001");
        fs::write(&left, "").unwrap();
        let _held = Layout::open(root.path()).unwrap();
        assert!(!left.exists() && root.path().join("run/lock").exists());
    }

    #[test]
    fn one_flynet_per_root() {
        let root = tempfile::tempdir().unwrap();
        let _held = Layout::open(root.path()).unwrap();
        assert!(matches!(Layout::open(root.path()), Err(Error::RootInUse(_))));
    }
}
