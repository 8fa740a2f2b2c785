//! Answers that never end by themselves, and how faults ended them.
//!
//! Invariants:
//! - The provider's stream is endless, so that a clean end is always a lie.

use crate::load::every;
use e2e::{KEY, Mesh};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{sync::Mutex, task::JoinSet, time};

/// Silence on a stream that speaks ten times a second.
const SILENT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// An event with the error, and then the end.
    Event,
    /// The connection broke without a word: its own machine is gone.
    Broken,
    /// As if the answer were whole.
    Clean,
    /// Nothing more came, and no end.
    Silent,
    /// It was not let in.
    Refused,
}

/// So many open streams per region; each that ends is replaced.
pub struct Streams {
    ends: Arc<Mutex<BTreeMap<End, usize>>>,
    tasks: JoinSet<()>,
}

impl Streams {
    pub fn open(mesh: &Mesh, regions: &[&'static str], each: usize) -> Self {
        let client = e2e::client();
        let ends = Arc::new(Mutex::new(BTreeMap::new()));
        let mut tasks = JoinSet::new();
        for region in regions.iter().flat_map(|region| std::iter::repeat_n(*region, each)) {
            let (client, ends) = (client.clone(), Arc::clone(&ends));
            let url = format!("{}/v1/chat/completions", mesh.url);
            tasks.spawn(async move {
                let mut pace = every(Duration::from_millis(200));
                loop {
                    pace.tick().await;
                    let end = follow(&client, &url, region).await;
                    *ends.lock().await.entry(end).or_default() += 1;
                }
            });
        }
        Self { ends, tasks }
    }

    /// How streams have ended so far.
    pub async fn ends(&self) -> BTreeMap<End, usize> {
        self.ends.lock().await.clone()
    }

    pub async fn close(mut self) -> BTreeMap<End, usize> {
        self.tasks.shutdown().await;
        self.ends.lock().await.clone()
    }
}

async fn follow(client: &reqwest::Client, url: &str, region: &str) -> End {
    let body = json!({
        "model": "openai/slow-100", "stream": true,
        "messages": [{"role": "user", "content": "hello"}],
    });
    let request = client.post(url).bearer_auth(KEY).header("fly-prefer-region", region);
    let request = request.header("content-type", "application/json").body(body.to_string());
    let Ok(mut response) = request.send().await else { return End::Refused };
    if response.status() != 200 {
        return End::Refused;
    }
    let mut failed = false;
    loop {
        match time::timeout(SILENT, response.chunk()).await {
            Err(_) => return End::Silent,
            Ok(Ok(Some(bytes))) => {
                let text = String::from_utf8_lossy(&bytes);
                failed |= text.contains("\"error\":");
                if text.contains("[DONE]") {
                    return End::Clean;
                }
            }
            Ok(Ok(None)) => return if failed { End::Event } else { End::Clean },
            Ok(Err(_)) => return if failed { End::Event } else { End::Broken },
        }
    }
}
