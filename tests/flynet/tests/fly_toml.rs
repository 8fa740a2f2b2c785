//! The deployable `fly/*.toml`: only keys that Fly knows, and numbers that agree
//! with the code's defaults.
#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

use flynet::{
    ROLES,
    fly_toml::{AutoStop, FlyToml},
    schema,
};
use mesh::config::defaults;
use nix::sys::signal::Signal;
use std::{fs, path::PathBuf};
use toml::{Table, Value};

fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn path(role: &str) -> PathBuf {
    workspace().join("fly").join(format!("{role}.toml"))
}

fn table(role: &str) -> Table {
    fs::read_to_string(path(role)).unwrap().parse().unwrap()
}

/// The value at a dotted path; an array stands for its first item.
fn at<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    rest.split('.').filter(|key| !key.is_empty()).try_fold(table.get(first)?, |value, key| {
        match value {
            Value::Array(items) => items.first()?.get(key),
            value => value.get(key),
        }
    })
}

fn text<'a>(table: &'a Table, path: &str) -> &'a str {
    at(table, path).and_then(Value::as_str).unwrap_or_default()
}

fn port(table: &Table, path: &str) -> Option<u16> {
    at(table, path).and_then(Value::as_integer).and_then(|port| u16::try_from(port).ok())
}

#[test]
fn every_key_is_flys() {
    for role in ROLES {
        assert_eq!(schema::complaints(&table(role)), Vec::<String>::new(), "{role}.toml");
    }
}

#[test]
fn names_region_and_image_follow_the_role() {
    for role in ROLES {
        let file = table(role);
        assert_eq!(text(&file, "app"), format!("skein-{role}"));
        assert_eq!(text(&file, "primary_region"), "iad");
        assert_eq!(text(&file, "build.build-target"), role);
        // relative to the file's own directory
        assert_eq!(text(&file, "build.dockerfile"), "../docker/Dockerfile");
    }
}

#[test]
fn a_drain_fits_into_the_kill_timeout() {
    for role in ROLES {
        let file = FlyToml::read(&path(role)).unwrap();
        assert_eq!(file.kill_signal, Signal::SIGTERM, "{role}");
        assert!(file.kill_timeout > defaults::NOTICE + defaults::GRACE, "{role}");
    }
}

#[test]
fn ports_are_the_codes_defaults() {
    for role in ROLES {
        let file = table(role);
        assert_eq!(port(&file, "metrics.port"), Some(defaults::METRICS_PORT), "{role}");
        assert_eq!(text(&file, "metrics.path"), "/metrics");
        assert_eq!(text(&file, "checks.ready.path"), "/readyz");
        assert_eq!(text(&file, "checks.ready.type"), "http");
    }
    let gateway = table("gateway");
    assert_eq!(port(&gateway, "http_service.internal_port"), Some(defaults::PUBLIC_PORT));
    assert_eq!(text(&gateway, "env.PORT"), defaults::PUBLIC_PORT.to_string());
    assert_eq!(port(&gateway, "checks.ready.port"), Some(defaults::PUBLIC_PORT));
    for role in ["router", "model-proxy", "retrieval"] {
        let file = table(role);
        assert_eq!(port(&file, "checks.ready.port"), Some(defaults::HEALTH_PORT), "{role}");
        assert_eq!(text(&file, "env.SKEIN_LISTEN__GRPC"), defaults::GRPC_PORT.to_string());
    }
}

#[test]
fn the_gateway_alone_is_public_and_speaks_h2c() {
    let gateway = table("gateway");
    let option = |path| at(&gateway, path);
    assert_eq!(option("http_service.http_options.h2_backend"), Some(&Value::Boolean(true)));
    assert_eq!(text(&gateway, "http_service.checks.path"), "/healthz");
    assert_eq!(text(&gateway, "http_service.concurrency.type"), "requests");
    assert_eq!(text(&gateway, "http_service.auto_stop_machines"), "off");
}

#[test]
fn private_apps_have_a_service_for_waking_up_alone() {
    for role in ["router", "model-proxy", "retrieval"] {
        let file = FlyToml::read(&path(role)).unwrap();
        assert!(file.http_service.is_none() && file.services.len() == 1, "{role}");
        let service = &file.services[0];
        assert_eq!(service.ports, [defaults::GRPC_PORT], "{role}");
        assert_eq!(service.proxied.internal_port, defaults::GRPC_PORT, "{role}");
        // calls come over 6PN, which the proxy does not see
        assert_eq!(service.proxied.auto_stop, AutoStop::Off, "{role}");
        assert!(service.proxied.auto_start, "{role}");
        // the first deploy of an app with a service and no address makes public ones
        let text = fs::read_to_string(path(role)).unwrap();
        let allocate = format!("fly ips allocate-v6 --private -a skein-{role}");
        let deploy = format!("--config fly/{role}.toml --ha=false --no-public-ips");
        let (first, then) = (text.find(&allocate).unwrap(), text.find(&deploy).unwrap());
        assert!(first < then, "{role}");
    }
}

#[test]
fn state_lies_on_a_volume_and_nothing_else_has_one() {
    for role in ROLES {
        let file = table(role);
        let directory = at(&file, "env.SKEIN_DATA__DIR").and_then(Value::as_str);
        let mounted = at(&file, "mounts.destination").and_then(Value::as_str);
        assert_eq!(directory, mounted, "{role}");
        assert_eq!(mounted.is_some(), role != "model-proxy", "{role}");
        // canary and bluegreen are refused with volumes
        assert_eq!(text(&file, "deploy.strategy"), "rolling", "{role}");
        // whoever owns no state may leave for want of work and stay stopped
        let policy = if mounted.is_some() { "always" } else { "on-failure" };
        assert_eq!(text(&file, "restart.policy"), policy, "{role}");
    }
}

#[test]
fn files_exist_where_fly_deploy_looks_for_them() {
    let router = table("router");
    // relative to where `fly deploy` runs: the root of the repository
    let agents = fs::read_to_string(workspace().join(text(&router, "files.local_path"))).unwrap();
    assert_eq!(text(&router, "files.guest_path"), text(&router, "env.SKEIN_ROUTER__AGENTS"));
    let agents: Table = agents.parse().unwrap();
    assert_eq!(text(&agents, "agent.default.model"), "default");
    assert!(at(&agents, "agent.default.limits.max_steps").is_some());
}
