//! How much of an app's work each machine does, over time: from the counters that
//! every machine serves under `/metrics`.

use crate::load::every;
use flynet::Listed;
use std::{collections::BTreeMap, fmt::Write as _, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{sync::Mutex, task::JoinHandle, time::Instant};

const METRICS: u16 = 9091;
const EVERY: Duration = Duration::from_millis(250);

/// For a machine to tell its counters.
const PATIENCE: Duration = Duration::from_secs(1);

/// Calls served by one machine within one interval.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Since the sampling began.
    pub at: Duration,
    pub machine: String,
    pub calls: u64,
}

pub struct Shares {
    begun: Instant,
    samples: Arc<Mutex<Vec<Sample>>>,
    task: JoinHandle<()>,
}

impl Shares {
    pub fn watch(machines: Vec<Listed>) -> Self {
        let (begun, samples) = (Instant::now(), Arc::<Mutex<Vec<Sample>>>::default());
        let kept = Arc::clone(&samples);
        let task = tokio::spawn(async move {
            let client = e2e::client();
            let mut before: BTreeMap<String, u64> = BTreeMap::new();
            let mut ticks = every(EVERY);
            loop {
                ticks.tick().await;
                for machine in &machines {
                    let Some(now) = served(&client, machine).await else {
                        before.remove(&machine.id);
                        continue;
                    };
                    let last = before.insert(machine.id.clone(), now).unwrap_or(now);
                    let calls = now.saturating_sub(last);
                    let at = begun.elapsed();
                    kept.lock().await.push(Sample { at, machine: machine.id.clone(), calls });
                }
            }
        });
        Self { begun, samples, task }
    }

    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    pub async fn stop(self) -> Vec<Sample> {
        self.task.abort();
        self.samples.lock().await.clone()
    }
}

/// A machine's share of all calls per second of `samples`, as a line of percents.
pub fn row(samples: &[Sample], machine: &str, seconds: u64) -> String {
    let mut line = String::new();
    for second in 0..seconds {
        let within = |sample: &&Sample| sample.at.as_secs() == second;
        let all: u64 = samples.iter().filter(within).map(|sample| sample.calls).sum();
        let own = samples.iter().filter(within).filter(|sample| sample.machine == machine);
        let own: u64 = own.map(|sample| sample.calls).sum();
        let _ = match (own * 100).checked_div(all) {
            Some(percent) => write!(line, "{percent:>4}"),
            None => write!(line, "   -"),
        };
    }
    line
}

/// Calls of our services that a machine has ended since it started.
async fn served(client: &reqwest::Client, machine: &Listed) -> Option<u64> {
    let text = metrics(client, machine).await?;
    let counts = lines(&text, "skein_rpc_seconds_count");
    let counts = counts.filter(|line| line.contains("skein.") && !line.contains("PeerService"));
    Some(counts.filter_map(value).sum())
}

/// A counter of a machine, over all its labels; `None` if it does not answer.
pub async fn counter(machine: &Listed, name: &str) -> Option<u64> {
    let text = metrics(&e2e::client(), machine).await?;
    Some(lines(&text, name).filter_map(value).sum())
}

async fn metrics(client: &reqwest::Client, machine: &Listed) -> Option<String> {
    let address = SocketAddr::from((machine.address, METRICS));
    let request = client.get(format!("http://{address}/metrics")).timeout(PATIENCE);
    request.send().await.ok()?.text().await.ok()
}

fn lines<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter(move |line| line.starts_with(name))
}

fn value(line: &str) -> Option<u64> {
    line.rsplit(' ').next()?.parse().ok()
}
