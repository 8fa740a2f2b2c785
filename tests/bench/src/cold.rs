//! From exec to ready, and what an app weighs before its first call.
//!
//! Each app alone, as its own process, on free addresses; its peers are not
//! there, which no app waits for.

use crate::{Failure, child::Timed, plan::Plan, proc, report::Start, stats};
use ::mesh::keys;
use std::{net::Ipv4Addr, path::Path, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{self, Instant},
};

const PATIENCE: Duration = Duration::from_secs(20);
/// What settles after readiness: connections tried, schema caches.
const SETTLED: Duration = Duration::from_secs(1);

pub(crate) async fn starts(plan: &Plan, programs: &Path) -> Result<Vec<Start>, Failure> {
    let made = keys::generate(&flynet::ROLES).map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    for (number, app) in flynet::ROLES.into_iter().enumerate() {
        let data = tempfile::tempdir()?;
        // An address of its own: the ports are those of every other network.
        let address = Ipv4Addr::new(127, 254, 254, u8::try_from(number + 10)?);
        let directory = data.path().display().to_string();
        let secret = made.secrets.get(app).map(|secret| secret.expose().to_owned());
        let variables = [
            ("SKEIN_MESH_KEY", secret.unwrap_or_default()),
            ("SKEIN_MESH_PEERS", made.peers.clone()),
            ("SKEIN_LISTEN__HOST", address.to_string()),
            ("SKEIN_MESH__DNS", format!("{address}:1")),
            ("SKEIN_DATA__DIR", directory),
            ("SKEIN_LOG", "error".to_owned()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        let mut times = Vec::new();
        let mut idle_mib = 0.0;
        for _ in 0..=plan.starts {
            let begun = Instant::now();
            let process = Timed::start(&programs.join(app), data.path(), &variables)?;
            ready(address).await.map_err(|error| format!("{app}: {error}"))?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
            if times.len() > plan.starts {
                time::sleep(SETTLED).await;
                idle_mib = proc::rss(process.pid());
            }
        }
        let first = times.remove(0);
        let slowest = times.iter().copied().fold(0.0, f64::max);
        let (starts, median) = (times.len(), stats::median(times));
        all.push(Start { app: app.to_owned(), first, median, slowest, starts, idle_mib });
    }
    Ok(all)
}

async fn ready(address: Ipv4Addr) -> Result<(), Failure> {
    let asking = async {
        loop {
            // The gateway answers on its health port too.
            match time::timeout(Duration::from_secs(1), ask(address)).await {
                Ok(Some(200)) => return,
                _ => time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    Ok(time::timeout(PATIENCE, asking).await.map_err(|_| "not ready in 20 s")?)
}

async fn ask(address: Ipv4Addr) -> Option<u16> {
    let port = ::mesh::config::defaults::HEALTH_PORT;
    let mut socket = TcpStream::connect((address, port)).await.ok()?;
    let get = b"GET /readyz HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n";
    socket.write_all(get).await.ok()?;
    let mut head = [0; 12]; // `HTTP/1.1 200`
    socket.read_exact(&mut head).await.ok()?;
    std::str::from_utf8(&head[9..]).ok()?.parse().ok()
}
