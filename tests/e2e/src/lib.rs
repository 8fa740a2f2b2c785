//! The whole mesh as its users meet it: four processes on an emulated Fly, an
//! edge address, an API key.
//!
//! Invariants:
//! - Nothing reaches into a process: what these tests know, a user could know.
//! - What a machine lacks (Python, the embedded models) skips a test with a
//!   visible line, never silently.

#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

pub mod caller;
pub mod node;
pub mod python;
pub mod readme;

use flynet::{Flynet, Intervals, Spec};
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// The developer key of every mesh here.
pub const KEY: &str = "sk-skein-0123456789abcdefghijklmnopqrstuvwxyz";

/// In every key that a test gives to a provider.
pub const PROVIDER_KEY: &str = "test-marker";

/// A running mesh; stopped when dropped, once its logs are seen to be without a
/// provider's key.
pub struct Mesh {
    pub net: Flynet,
    /// `http://127.0.0.1:<port>`.
    pub url: String,
    dir: tempfile::TempDir,
}

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Where cargo put the programs: beside this one, or above a test's own folder.
pub fn programs() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let folder = own.parent().unwrap();
    if folder.ends_with("deps") { folder.parent().unwrap() } else { folder }.to_owned()
}

/// The embedded models, if somebody fetched them (`make models`).
pub fn models() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "set by the Makefile for the tests alone")]
    let dir = PathBuf::from(std::env::var("SKEIN_TEST_MODELS").ok()?);
    dir.join("minilm/model.safetensors").exists().then_some(dir)
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(!self.logs().contains(PROVIDER_KEY), "a log tells a provider's key");
        }
    }
}

impl Mesh {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// One machine per app in `iad`, changed by `change`.
    pub async fn with(change: impl FnOnce(&mut Spec)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = Spec::skein(&workspace(), &programs(), &dir.path().join("net"));
        spec.intervals = Intervals {
            poll: Some(Duration::from_millis(100)),
            notice: Some(Duration::from_millis(50)),
            grace: Some(Duration::from_secs(1)),
            kill_timeout: Some(Duration::from_secs(3)),
            ..Intervals::default()
        };
        let secret = ("SKEIN_BOOTSTRAP_KEY".to_owned(), KEY.to_owned());
        spec.app_mut("gateway").unwrap().secrets.extend([secret]);
        if let Some(models) = models() {
            let variable = ("SKEIN_LOCAL__MODELS".to_owned(), models.display().to_string());
            spec.app_mut("model-proxy").unwrap().env.extend([variable]);
        }
        change(&mut spec);
        let net = Flynet::start(spec).await.unwrap();
        net.all_ready(Duration::from_secs(30)).await.unwrap();
        let url = format!("http://{}", net.edge().unwrap());
        Self { net, url, dir }
    }

    /// A scratch directory that goes with the mesh.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// Runs `skein` against this mesh; gives its stdout, fails on its failure.
    pub fn skein(&self, args: &[&str]) -> String {
        let output = self.skein_output(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "skein {args:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn skein_output(&self, args: &[&str]) -> std::process::Output {
        let mut command = Command::new(programs().join("skein"));
        command.args(args).current_dir(self.scratch());
        command.env_clear().env("SKEIN_URL", &self.url).env("SKEIN_API_KEY", KEY);
        command.output().unwrap()
    }

    pub fn skein_json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.skein(args)).unwrap()
    }

    /// Everything every machine has written to its log.
    pub fn logs(&self) -> String {
        let read = |machine: flynet::Listed| {
            self.net.log(&machine.id).and_then(|log| std::fs::read_to_string(log).ok())
        };
        self.net.machines().into_iter().filter_map(read).collect()
    }

    /// An HTTP request to the edge; `(status, body)`.
    pub async fn post(&self, path: &str, key: Option<&str>, body: Vec<u8>) -> (u16, String) {
        let client = client();
        let mut request = client.post(format!("{}{path}", self.url));
        request = request.header("content-type", "application/json").body(body);
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }
}

/// A plain HTTP client.
pub fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Says why a test did nothing. Past `println!`, which cargo hides when the test
/// passes.
pub fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}
