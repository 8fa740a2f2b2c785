//! Machines that come when there is work and go when there is none, and callers
//! that notice nothing of it.

#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

use e2e::{KEY, Mesh};
use flynet::{Spec, State};
use providers::openai::Fake;
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

const PROXY: &str = "skein-model-proxy";
/// Far beyond what any of this takes.
const BOUND: Duration = Duration::from_secs(60);

/// Callers in a closed loop, and how often they were disappointed.
struct Load {
    stop: CancellationToken,
    callers: Vec<tokio::task::JoinHandle<Vec<String>>>,
    answered: Arc<AtomicUsize>,
}

impl Load {
    /// `callers` at a time ask for an answer that takes `late` milliseconds.
    fn start(mesh: &Mesh, callers: usize, late: u64) -> Self {
        let (stop, answered) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let url = format!("{}/v1/chat/completions", mesh.url);
        let call = |_| {
            let (stop, answered, url) = (stop.clone(), Arc::clone(&answered), url.clone());
            tokio::spawn(async move {
                let (client, mut failed) = (e2e::client(), Vec::new());
                while !stop.is_cancelled() {
                    let answer = client.post(&url).bearer_auth(KEY).json(&question(late)).send();
                    let answer = answer.await.unwrap();
                    match answer.status().as_u16() {
                        200 => drop(answered.fetch_add(1, SeqCst)),
                        status => failed.push(format!("{status} {}", answer.text().await.unwrap())),
                    }
                }
                failed
            })
        };
        Self { callers: (0..callers).map(call).collect(), stop, answered }
    }

    /// Answers given; fails the test if any call failed.
    async fn end(self) -> usize {
        self.stop.cancel();
        for caller in self.callers {
            assert_eq!(caller.await.unwrap(), Vec::<String>::new());
        }
        self.answered.load(SeqCst)
    }
}

fn question(late: u64) -> serde_json::Value {
    let message = json!({ "role": "user", "content": "hello" });
    json!({ "model": format!("openai/late-{late}"), "messages": [message] })
}

/// A mesh whose model-proxies ask `fake` and behave as `env` says.
async fn mesh(fake: &Fake, env: &[(&str, &str)], change: impl FnOnce(&mut Spec)) -> Mesh {
    let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    Mesh::with(|spec| {
        let proxy = spec.app_mut("model-proxy").unwrap();
        proxy.env.extend(owned(env));
        let key = [("OPENAI_API_KEY", "sk-test-marker"), ("OPENAI_BASE_URL", fake.url.as_str())];
        proxy.secrets.extend(owned(&key));
        change(spec);
    })
    .await
}

fn running(mesh: &Mesh, region: &str) -> usize {
    let machines = mesh.net.machines();
    let up = machines.iter().filter(|machine| {
        machine.app == PROXY && machine.region == region && machine.state == State::Started
    });
    up.count()
}

async fn until(what: &str, check: impl Fn() -> bool) {
    let begun = Instant::now();
    while !check() {
        assert!(begun.elapsed() < BOUND, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Says in the platform's metadata that the running machine is to stay.
async fn keep(mesh: &Mesh) {
    let machines = mesh.net.machines();
    let up = machines.iter().find(|one| one.app == PROXY && one.state == State::Started).unwrap();
    let socket = mesh.scratch().join("net/run").join(&up.id);
    let path = format!("/v1/apps/{PROXY}/machines/{}/metadata/skein_core", up.id);
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let body = r#"{"value":"1"}"#;
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: flaps\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
}

/// A line for each change of the number of machines.
fn timeline(mesh: &Mesh) -> String {
    let rows = mesh.net.machines_over_time().rows.into_iter().filter(|row| row.app == PROXY);
    let line = |row: flynet::Running| {
        format!("{:>6.2} s  {PROXY} in {}: {}\n", row.after.as_secs_f64(), row.region, row.machines)
    };
    rows.map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_the_load_grows_one_machine_to_four_and_back_to_one() {
    let fake = providers::openai::start().await.unwrap();
    let env = [("SKEIN_MESH__SOFT_LIMIT", "3"), ("SKEIN_MESH__IDLE_EXIT", "1s")];
    let mesh = mesh(&fake, &env, |spec| {
        spec.app_mut("model-proxy").unwrap().stopped = vec![("iad".to_owned(), 3)];
    })
    .await;
    keep(&mesh).await;
    let calm = Load::start(&mesh, 2, 50);
    until("some answers", || calm.answered.load(SeqCst) >= 40).await;
    assert_eq!(running(&mesh, "iad"), 1, "two callers are no crowd");
    let crowd = Load::start(&mesh, 20, 50);
    until("the growth to four", || running(&mesh, "iad") == 4).await;
    let answered = crowd.end().await + calm.end().await;
    until("the way back to one", || running(&mesh, "iad") == 1).await;
    let after = Load::start(&mesh, 1, 1);
    until("answers after that", || after.answered.load(SeqCst) >= 5).await;
    println!("{} answers, none failed", answered + after.end().await);
    print!("{}", timeline(&mesh));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_misses_its_region_has_a_machine_woken_there() {
    let fake = providers::openai::start().await.unwrap();
    let mesh = mesh(&fake, &[], |spec| {
        for role in ["gateway", "router"] {
            spec.app_mut(role).unwrap().placement = vec![("nrt".to_owned(), 1)];
        }
        let proxy = spec.app_mut("model-proxy").unwrap();
        proxy.placement = vec![("iad".to_owned(), 1)];
        proxy.stopped = vec![("nrt".to_owned(), 1), ("fra".to_owned(), 1)];
    })
    .await;
    let load = Load::start(&mesh, 2, 1);
    until("a machine in our region", || running(&mesh, "nrt") == 1).await;
    let before = load.answered.load(SeqCst);
    until("more answers", || load.answered.load(SeqCst) > before + 20).await;
    println!("{} answers, none failed", load.end().await);
    assert_eq!(running(&mesh, "fra"), 0, "nobody asked for that region");
    print!("{}", timeline(&mesh));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_idle_machine_leaves_and_the_next_call_wakes_one() {
    let fake = providers::openai::start().await.unwrap();
    let env = [("SKEIN_MESH__IDLE_EXIT", "500ms")];
    let mesh = mesh(&fake, &env, |_| {}).await;
    for round in 0..3 {
        until("the last machine's leaving", || running(&mesh, "iad") == 0).await;
        let begun = Instant::now();
        let load = Load::start(&mesh, 4, 1);
        until("answers", || load.answered.load(SeqCst) >= 20).await;
        let answered = load.end().await;
        println!("round {round}: {answered} answers, none failed, {:?}", begun.elapsed());
    }
    print!("{}", timeline(&mesh));
}
