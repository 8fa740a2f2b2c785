//! What the apps say of themselves on their metrics page.

use crate::{Failure, mesh::Mesh};
use std::{collections::BTreeMap, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// What is in flight, and what lives.
const NAMES: [&str; 5] = [
    "skein_in_flight",
    "skein_gateway_in_flight",
    "skein_provider_streams",
    "skein_provider_connections",
    TASKS,
];
const TASKS: &str = "skein_runtime_tasks";
const CONNECTIONS: &str = "skein_provider_connections";
/// Tasks that come and go by themselves: polls, watches, pooled connections.
const SPARE: f64 = 24.0;

/// By `app name`.
pub(crate) type Gauges = BTreeMap<String, f64>;

pub(crate) async fn read(mesh: &Mesh) -> Result<Gauges, Failure> {
    let mut all = Gauges::new();
    for (app, addr) in &mesh.metrics {
        let page = page(*addr).await.map_err(|error| format!("metrics of {app}: {error}"))?;
        for name in NAMES {
            if let Some(value) = sum(&page, name) {
                all.insert(format!("{app} {name}"), value);
            }
        }
    }
    Ok(all)
}

/// Whether nothing is left of what came between.
pub(crate) fn is_like(now: &Gauges, before: &Gauges) -> bool {
    now.iter().all(|(name, value)| {
        let before = before.get(name).copied().unwrap_or_default();
        let spare = if name.ends_with(TASKS) { SPARE } else { 0.0 };
        // Connections stay a while for the next call.
        name.ends_with(CONNECTIONS) || *value <= before + spare
    })
}

async fn page(addr: SocketAddr) -> Result<String, Failure> {
    let mut socket = TcpStream::connect(addr).await?;
    let get = b"GET /metrics HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n";
    socket.write_all(get).await?;
    let mut page = String::new();
    socket.read_to_string(&mut page).await?;
    Ok(page)
}

/// Over all labels.
fn sum(page: &str, name: &str) -> Option<f64> {
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let rest = if rest.starts_with('{') { rest.split_once('}')?.1 } else { rest };
        rest.strip_prefix(' ')?.trim().parse::<f64>().ok()
    });
    values.fold(None, |all, value| Some(all.unwrap_or_default() + value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_is_summed_over_its_labels_and_told_from_longer_names() {
        let page = "# TYPE a gauge\na{host=\"x\"} 2\na{host=\"y z\"} 3\na_b 7\nc 1\n";
        assert_eq!((sum(page, "a"), sum(page, "c"), sum(page, "d")), (Some(5.0), Some(1.0), None));
    }

    #[test]
    fn what_is_left_over_is_seen() {
        let of = |streams: f64, tasks: f64| {
            let pairs = [("m skein_provider_streams", streams), ("m skein_runtime_tasks", tasks)];
            Gauges::from(pairs.map(|(name, value)| (name.to_owned(), value)))
        };
        assert!(is_like(&of(0.0, 110.0), &of(0.0, 100.0)));
        assert!(!is_like(&of(1.0, 100.0), &of(0.0, 100.0)));
        assert!(!is_like(&of(0.0, 1100.0), &of(0.0, 100.0)));
    }
}
