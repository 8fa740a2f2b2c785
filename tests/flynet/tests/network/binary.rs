//! The program `flynet`, as a user and as a kernel meet it.

use super::{ECHO, GATEWAY, ROUTER, alive, eventually, get, temporary};
use flynet::Listed;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

const FLYNET: &str = env!("CARGO_BIN_EXE_flynet");

/// Four apps, all echoes, and a directory of programs called like them.
fn workspace(root: &Path) {
    let (fly, programs) = (root.join("fly"), root.join("bin"));
    fs::create_dir_all(&fly).unwrap();
    fs::create_dir_all(&programs).unwrap();
    fs::write(fly.join("agents.toml"), "[agent.default]\n").unwrap();
    fs::write(fly.join("gateway.toml"), GATEWAY).unwrap();
    for role in ["router", "model-proxy", "retrieval"] {
        fs::write(
            fly.join(format!("{role}.toml")),
            ROUTER.replace("echo-router", &format!("echo-{role}")),
        )
        .unwrap();
    }
    for role in ["gateway", "router", "model-proxy", "retrieval"] {
        symlink(ECHO, programs.join(role)).unwrap();
    }
}

/// Ended with the test, whatever its outcome.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Runs `flynet up` and returns its address when it says that it is ready.
fn up(root: &Path) -> (Running, String) {
    let mut child = Command::new(FLYNET)
        .args([
            "up",
            "--port",
            "0",
            "--bin-dir",
            "bin",
            "--dev-key",
            "net/dev.key",
            "--root",
            "net",
        ])
        .env("OPENAI_API_KEY", "sk-test")
        .env("NOT_FOR_MACHINES", "1")
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let running = Running(child);
    let ready = lines.map_while(Result::ok).find(|line| line.starts_with("ready in")).unwrap();
    let url = ready.split_once(": ").unwrap().1.to_owned();
    (running, url)
}

fn flynet(root: &Path, arguments: &[&str]) -> Output {
    Command::new(FLYNET).args(["--root", "net"]).args(arguments).current_dir(root).output().unwrap()
}

fn ps(root: &Path) -> Vec<Listed> {
    serde_json::from_slice(&flynet(root, &["ps", "--json"]).stdout).unwrap()
}

fn pid_of(child: &Running) -> Pid {
    Pid::from_raw(child.0.id().try_into().unwrap())
}

#[tokio::test]
async fn killed_with_sigkill_it_leaves_no_process() {
    let root = temporary();
    workspace(root.path());
    let (mut running, _) = up(root.path());
    let pids: Vec<_> = ps(root.path()).iter().filter_map(|machine| machine.pid).collect();
    assert_eq!(pids.len(), 4);
    assert!(pids.iter().all(|pid| alive(*pid)));
    kill(pid_of(&running), Signal::SIGKILL).unwrap();
    running.0.wait().unwrap();
    eventually("every machine gone", async || (!pids.iter().any(|pid| alive(*pid))).then_some(()))
        .await;
    let nobody = flynet(root.path(), &["ps"]);
    assert_eq!(nobody.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("flynet up"));
    // its root, socket and lock are free again
    let (_running, url) = up(root.path());
    assert_eq!(get(&format!("{url}/readyz")).await.unwrap(), "ready");
}

#[tokio::test]
async fn the_verbs_reach_it_and_sigterm_ends_it_cleanly() {
    let root = temporary();
    let here = root.path();
    workspace(here);
    let (mut running, url) = up(here);
    assert_eq!(
        get(&format!("{url}/starts")).await.unwrap(),
        "here=1 volume=2",
        "no volume: both are here"
    );

    let stopped = flynet(here, &["stop", "router"]);
    assert!(String::from_utf8_lossy(&stopped.stdout).starts_with("stopped "));
    let state = |app: &str| ps(here).into_iter().find(|m| m.app == app).unwrap();
    assert_eq!(state("echo-router").pid, None);
    assert!(flynet(here, &["start", &state("echo-router").id]).status.success());
    eventually("the router's second start", async || {
        state("echo-router").pid.filter(|_| state("echo-router").starts == 2)
    })
    .await;
    assert!(flynet(here, &["kill", "echo-retrieval"]).status.success());
    assert!(state("echo-retrieval").last_exit.unwrap().contains("SIGKILL"));
    let wrong = flynet(here, &["stop", "nobody"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("nobody"));

    let logs = flynet(here, &["logs", "gateway"]);
    let logs = String::from_utf8_lossy(&logs.stdout);
    assert!(logs.contains("echo-gateway-") && logs.contains("| listening on"), "{logs}");
    let table = flynet(here, &["ps"]);
    let table = String::from_utf8_lossy(&table.stdout);
    assert_eq!(table.lines().count(), 5, "{table}");

    let pids: Vec<_> = ps(here).iter().filter_map(|machine| machine.pid).collect();
    kill(pid_of(&running), Signal::SIGTERM).unwrap();
    assert!(running.0.wait().unwrap().success());
    assert!(!pids.into_iter().any(alive));
    assert!(!here.join("net/run/control.sock").exists());
}

#[tokio::test]
async fn machines_are_frozen_deployed_and_scaled_from_a_terminal() {
    let root = temporary();
    let here = root.path();
    workspace(here);
    let (_running, _) = up(here);
    let state = |app: &str| ps(here).into_iter().find(|m| m.app == app).unwrap();
    assert!(flynet(here, &["freeze", "router"]).status.success());
    assert!(state("echo-router").frozen);
    let table = flynet(here, &["ps"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("frozen"));
    assert!(flynet(here, &["thaw", "router"]).status.success());
    assert!(flynet(here, &["suspend", "retrieval"]).status.success());
    assert_eq!(state("echo-retrieval").state, flynet::State::Suspended);

    let before = state("echo-router").version;
    let arguments = ["deploy", "router", "--strategy", "immediate", "--env", "A=1"];
    let deployed = flynet(here, &arguments);
    assert!(deployed.status.success(), "{}", String::from_utf8_lossy(&deployed.stderr));
    assert_ne!(state("echo-router").version, before);
    assert!(flynet(here, &["scale", "router", "fra", "2"]).status.success());
    assert_eq!(ps(here).iter().filter(|machine| machine.region == "fra").count(), 2);
    assert_eq!(flynet(here, &["scale", "router", "../fra", "1"]).status.code(), Some(2));
    let wrong = flynet(here, &["secrets", "router", "sk-no-name"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(!String::from_utf8_lossy(&wrong.stderr).contains("sk-no-name"));

    let events = flynet(here, &["events"]);
    let events = String::from_utf8_lossy(&events.stdout);
    for what in ["frozen", "thawed", "suspended", "deployed", "created"] {
        assert!(events.contains(what), "{what} in {events}");
    }
}

#[tokio::test]
async fn dns_and_distances_are_troubled_from_a_terminal() {
    let root = temporary();
    let here = root.path();
    workspace(here);
    let (_running, _) = up(here);
    let router = ps(here).into_iter().find(|m| m.app == "echo-router").unwrap();
    let env = super::ask(&router, "/env").await;
    let dns = env.split('\0').find_map(|line| line.strip_prefix("SKEIN_MESH__DNS=")).unwrap();
    let resolver = super::names::resolver_at(dns);
    let listed = async || super::names::aaaa(&resolver, "echo-router.internal.").await.len();
    assert_eq!(listed().await, 1);
    assert!(flynet(here, &["dns", "empty", "--app", "router"]).status.success());
    assert_eq!(listed().await, 0);
    assert!(flynet(here, &["dns", "well"]).status.success());
    assert_eq!(listed().await, 1);
    assert_eq!(flynet(here, &["dns", "empty", "--app", "nobody"]).status.code(), Some(1));

    let unnamed = flynet(here, &["partition", "iad", "nrt"]);
    assert!(String::from_utf8_lossy(&unnamed.stderr).contains("no named pair"));
    for arguments in [&["link", "iad", "nrt", "170"][..], &["partition", "nrt", "iad"]] {
        assert!(flynet(here, arguments).status.success(), "{arguments:?}");
    }
    assert!(flynet(here, &["heal", "iad", "nrt"]).status.success());
}

#[tokio::test]
async fn keys_reach_the_apps_they_are_for() {
    let root = temporary();
    let here = root.path();
    workspace(here);
    let (running, _) = up(here);
    let path = here.join("net/dev.key");
    let key = fs::read_to_string(&path).unwrap().trim().to_owned();
    assert!(key.starts_with("sk-skein-") && key.len() == "sk-skein-".len() + 40);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    for machine in ps(here) {
        let env = super::ask(&machine, "/env").await;
        let has = |text: &str| env.split('\0').any(|line| line == text);
        let role = machine.app.trim_start_matches("echo-");
        assert_eq!(has("OPENAI_API_KEY=sk-test"), role == "model-proxy", "{role}");
        assert_eq!(has(&format!("SKEIN_BOOTSTRAP_KEY={key}")), role == "gateway", "{role}");
        assert!(!env.contains("NOT_FOR_MACHINES"), "{role}");
    }
    drop(running);
    let (_running, _) = up(here);
    assert_eq!(fs::read_to_string(&path).unwrap().trim(), key);
}
