//! What can go wrong with a network, said to a person.

use std::{
    io,
    path::{Path, PathBuf},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {verb} {}: {source}", path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is not a valid fly.toml:\n  {}", path.display(), complaints.join("\n  "))]
    FlyToml { path: PathBuf, complaints: Vec<String> },
    #[error("{}: the app is called {app:?}; its name must end with \"-{role}\"", path.display())]
    AppName { path: PathBuf, app: String, role: String },
    #[error("no program for {role} at {}; build it with `cargo build -p {role}`", path.display())]
    NoProgram { role: String, path: PathBuf },
    #[error(
        "no free 127.x.y.0/24 network: something listens on every address at port {port}; \
         stop it (`ss -ltnp 'sport = :{port}'` shows it)"
    )]
    PortTaken { port: u16 },
    #[error("no free 127.x.y.0/24 network: {0}")]
    NoNetwork(io::Error),
    #[error("a network of 127.x.y.0/24 has room for 253 machines, not {0}")]
    TooMany(usize),
    #[error(
        "cannot listen on 127.0.0.1:{port}: {source}; \
         choose another port with SKEIN_PORT or --port"
    )]
    Edge { port: u16, source: io::Error },
    #[error("{} is in use by another flynet; stop it or choose another --root", .0.display())]
    RootInUse(PathBuf),
    #[error("cannot make mesh keys: {0}")]
    Keys(String),
    #[error("cannot run Postgres: {0}")]
    Postgres(io::Error),
    #[error("no machine or app is called {0:?}; `flynet ps` lists them")]
    NoSuch(String),
    #[error("{app} {machine} is not ready after {seconds} s{log}")]
    NotReady { app: String, machine: String, seconds: u64, log: String },
    #[error("{app} {machine} ended before it was ready{log}")]
    Died { app: String, machine: String, log: String },
    #[error("{app} {machine} has no process; `flynet start {machine}` starts it")]
    NotRunning { app: String, machine: String },
    #[error("the deploy of {app} stopped at {machine} ({updated} of {total} updated): {why}{log}")]
    Deploy { app: String, machine: String, updated: usize, total: usize, why: String, log: String },
    #[error("{app}: a deploy cannot change [[mounts]]; a machine keeps its volumes for life")]
    Mounts { app: String },
    #[error("{0} and {1} are no named pair of regions; name it in `Spec::links` or with `link`")]
    NoLink(String, String),
    #[error("nothing of the kind has happened to {target} after {seconds} s; `flynet events`")]
    NotHappened { target: String, seconds: f32 },
    #[error("the network's thread ended: {0}")]
    Thread(String),
}

impl Error {
    /// For `map_err`: what was tried, on what.
    pub fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { verb, path, source }
    }
}
