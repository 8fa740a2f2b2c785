//! Who gets load: the provider itself, the bare hops, the meshes, the peer.

use crate::{
    Failure,
    call::{Kind, Target},
    child::Child,
    mesh::{Dress, Mesh},
    proc,
    report::{Memory, Report},
    tensorzero,
};
use std::{collections::BTreeMap, net::SocketAddr, path::Path};

/// Somebody to send load to, and the processes that work for it.
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) target: Target,
    pub(crate) pids: BTreeMap<String, u32>,
    pub(crate) kinds: &'static [Kind],
}

const PROVIDER: &str = "provider";
const CHATS: &[Kind] = &[Kind::Whole, Kind::Stream];
const ALL: &[Kind] = &[Kind::Whole, Kind::Stream, Kind::Grpc];
const ECHO: &[Kind] = &[Kind::Echo];
/// Hops of the floor: gateway, router, model-proxy.
const HOPS: usize = 3;

impl Subject {
    pub(crate) fn mesh(dress: Dress, mesh: &Mesh) -> Self {
        Self {
            name: dress.name().to_owned(),
            target: mesh.target("instant"),
            pids: mesh.pids.clone(),
            kinds: ALL,
        }
    }

    pub(crate) fn is_provider(&self) -> bool {
        self.name == PROVIDER
    }
}

pub(crate) fn direct(provider: &Child) -> Result<Subject, Failure> {
    Ok(Subject {
        name: PROVIDER.to_owned(),
        target: Target {
            addr: provider.addr()?,
            path: "/v1/chat/completions".to_owned(),
            key: "sk-instant".to_owned(),
            model: "instant".to_owned(),
        },
        pids: BTreeMap::from([("provider".to_owned(), provider.pid)]),
        kinds: CHATS,
    })
}

/// Three bare hops; they live as long as what is returned.
pub(crate) async fn echoes(
    single: bool,
    report: &mut Report,
    subjects: &mut Vec<Subject>,
) -> Result<Vec<Child>, Failure> {
    let mut hops: Vec<Child> = Vec::new();
    for _ in 0..HOPS {
        let mut arguments = vec!["echo"];
        if single {
            arguments.push("--single");
        }
        if let Some(next) = hops.last() {
            arguments.extend(["--next", &next.said]);
        }
        hops.push(Child::own(&arguments).await?);
    }
    let first = hops.last().ok_or("no hops")?;
    let target = Target {
        addr: first.addr()?,
        path: String::new(),
        key: String::new(),
        model: String::new(),
    };
    let flavour = if single { "one thread each" } else { "a thread per core each" };
    let name = if single { "echo x3 one thread" } else { "echo x3 threads" }.to_owned();
    let meaning = format!("three bare tonic servers in a row, 600 bytes, {flavour}");
    report.targets.insert(name.clone(), meaning);
    let pids = hops.iter().enumerate();
    let pids = pids.map(|(number, hop)| (format!("hop {number}"), hop.pid)).collect();
    subjects.push(Subject { name, target, pids, kinds: ECHO });
    Ok(hops)
}

/// TensorZero, or a note that it is not here.
pub(crate) async fn peer(
    venv: &Path,
    root: &Path,
    provider: SocketAddr,
    report: &mut Report,
    subjects: &mut Vec<Subject>,
) -> Result<Option<Child>, Failure> {
    let Some((child, target)) = tensorzero::start(venv, root, provider).await? else {
        let (venv, how) = (venv.display(), tensorzero::HOW);
        report
            .not_measured
            .push(format!("TensorZero: its wheel is not in {venv}; to have it: {how}"));
        return Ok(None);
    };
    let name = "tensorzero".to_owned();
    report.targets.insert(name.clone(), tensorzero::MEANING.to_owned());
    let pids = BTreeMap::from([(name.clone(), child.pid)]);
    subjects.push(Subject { name, target, pids, kinds: CHATS });
    Ok(Some(child))
}

pub(crate) fn memory(dress: Dress, mesh: &Mesh, when: &'static str) -> Memory {
    let mib = mesh.rss();
    let together = mib.values().sum();
    Memory { target: dress.name().to_owned(), when, mib, together, threads: mesh.threads() }
}

pub(crate) fn memory_of_peer(child: &Child, when: &'static str) -> Memory {
    let name = "tensorzero".to_owned();
    let (mib, threads) = (proc::rss(child.pid), proc::threads(child.pid));
    Memory {
        target: name.clone(),
        when,
        mib: BTreeMap::from([(name.clone(), mib)]),
        together: mib,
        threads: BTreeMap::from([(name, threads)]),
    }
}
