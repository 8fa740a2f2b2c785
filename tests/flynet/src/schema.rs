//! The keys of `fly.toml`, as plain data.
//!
//! flyctl ignores what it does not know, `--strict` is blind in half of the
//! tables, and a key one table too high does nothing. So the list is ours.
//!
//! Invariants:
//! - A key that is not in the list is a complaint that names its full path.
//! - Every complaint of a file is reported, not only the first.

use toml::{Table, Value};

/// What may stand under a key.
pub enum Shape {
    /// A string, number, boolean or an array of them.
    Plain,
    /// A table with these keys.
    Table(&'static [(&'static str, Shape)]),
    /// An array of tables with these keys; the single-table spelling fails in flyctl.
    Tables(&'static [(&'static str, Shape)]),
    /// A table with free keys, each of this shape.
    Map(&'static Shape),
}

use Shape::{Map, Plain, Table as Keys, Tables};

const CONCURRENCY: Shape = Keys(&[("type", Plain), ("soft_limit", Plain), ("hard_limit", Plain)]);
const TLS_OPTIONS: Shape =
    Keys(&[("alpn", Plain), ("versions", Plain), ("default_self_signed", Plain)]);
const HTTP_OPTIONS: Shape = Keys(&[
    ("compress", Plain),
    ("h2_backend", Plain),
    ("idle_timeout", Plain),
    ("headers_read_timeout", Plain),
    ("response", Keys(&[("headers", Map(&Plain)), ("pristine", Plain)])),
    (
        "replay_cache",
        Tables(&[
            ("path_prefix", Plain),
            ("ttl_seconds", Plain),
            ("type", Plain),
            ("name", Plain),
            ("allow_bypass", Plain),
        ]),
    ),
]);
const TCP_CHECK: &[(&str, Shape)] =
    &[("interval", Plain), ("timeout", Plain), ("grace_period", Plain)];
const HTTP_CHECK: &[(&str, Shape)] = &[
    ("interval", Plain),
    ("timeout", Plain),
    ("grace_period", Plain),
    ("method", Plain),
    ("path", Plain),
    ("protocol", Plain),
    ("tls_skip_verify", Plain),
    ("tls_server_name", Plain),
    ("headers", Map(&Plain)),
];
const TOP_LEVEL_CHECK: Shape = Keys(&[
    ("interval", Plain),
    ("timeout", Plain),
    ("grace_period", Plain),
    ("method", Plain),
    ("path", Plain),
    ("protocol", Plain),
    ("tls_skip_verify", Plain),
    ("tls_server_name", Plain),
    ("headers", Map(&Plain)),
    ("port", Plain),
    ("type", Plain),
    ("processes", Plain),
]);
const MACHINE_CHECK: &[(&str, Shape)] = &[
    ("command", Plain),
    ("image", Plain),
    ("entrypoint", Plain),
    ("kill_signal", Plain),
    ("kill_timeout", Plain),
];
const VM: &[(&str, Shape)] = &[
    ("size", Plain),
    ("memory", Plain),
    ("cpu_kind", Plain),
    ("cpus", Plain),
    ("memory_mb", Plain),
    ("max_memory_mb", Plain),
    ("host_dedication_id", Plain),
    ("persist_rootfs", Plain),
    ("kernel_args", Plain),
    ("processes", Plain),
];
const SERVICE_PORT: &[(&str, Shape)] = &[
    ("port", Plain),
    ("start_port", Plain),
    ("end_port", Plain),
    ("handlers", Plain),
    ("force_https", Plain),
    ("tls_options", TLS_OPTIONS),
    ("http_options", HTTP_OPTIONS),
    ("proxy_proto_options", Keys(&[("version", Plain)])),
];

/// The whole file.
pub const FLY_TOML: &[(&str, Shape)] = &[
    ("app", Plain),
    ("primary_region", Plain),
    ("kill_signal", Plain),
    ("kill_timeout", Plain),
    ("swap_size_mb", Plain),
    ("console_command", Plain),
    ("host_dedication_id", Plain),
    (
        "build",
        Keys(&[
            ("dockerfile", Plain),
            ("ignorefile", Plain),
            ("build-target", Plain),
            ("image", Plain),
            ("builder", Plain),
            ("buildpacks", Plain),
            ("builtin", Plain),
            ("compression", Plain),
            ("compression_level", Plain),
            ("args", Map(&Plain)),
            ("settings", Map(&Plain)),
            ("compose", Keys(&[("file", Plain)])),
        ]),
    ),
    (
        "deploy",
        Keys(&[
            ("strategy", Plain),
            ("max_unavailable", Plain),
            ("wait_timeout", Plain),
            ("release_command", Plain),
            ("release_command_timeout", Plain),
            ("seed_command", Plain),
            ("release_command_vm", Keys(VM)),
        ]),
    ),
    ("env", Map(&Plain)),
    ("processes", Map(&Plain)),
    (
        "http_service",
        Keys(&[
            ("internal_port", Plain),
            ("force_https", Plain),
            ("auto_stop_machines", Plain),
            ("auto_start_machines", Plain),
            ("min_machines_running", Plain),
            ("processes", Plain),
            ("concurrency", CONCURRENCY),
            ("tls_options", TLS_OPTIONS),
            ("http_options", HTTP_OPTIONS),
            ("checks", Tables(HTTP_CHECK)),
            ("machine_checks", Tables(MACHINE_CHECK)),
        ]),
    ),
    (
        "services",
        Tables(&[
            ("protocol", Plain),
            ("internal_port", Plain),
            ("auto_stop_machines", Plain),
            ("auto_start_machines", Plain),
            ("min_machines_running", Plain),
            ("processes", Plain),
            ("concurrency", CONCURRENCY),
            ("ports", Tables(SERVICE_PORT)),
            ("tcp_checks", Tables(TCP_CHECK)),
            ("http_checks", Tables(HTTP_CHECK)),
            ("machine_checks", Tables(MACHINE_CHECK)),
        ]),
    ),
    ("checks", Map(&TOP_LEVEL_CHECK)),
    ("machine_checks", Tables(MACHINE_CHECK)),
    (
        "mounts",
        Tables(&[
            ("source", Plain),
            ("destination", Plain),
            ("initial_size", Plain),
            ("snapshot_retention", Plain),
            ("scheduled_snapshots", Plain),
            ("auto_extend_size_threshold", Plain),
            ("auto_extend_size_increment", Plain),
            ("auto_extend_size_limit", Plain),
            ("processes", Plain),
        ]),
    ),
    ("vm", Tables(VM)),
    ("restart", Tables(&[("policy", Plain), ("retries", Plain), ("processes", Plain)])),
    (
        "metrics",
        Tables(&[("port", Plain), ("path", Plain), ("https", Plain), ("processes", Plain)]),
    ),
    (
        "files",
        Tables(&[
            ("guest_path", Plain),
            ("local_path", Plain),
            ("secret_name", Plain),
            ("raw_value", Plain),
            ("processes", Plain),
        ]),
    ),
];

/// Everything about `file` that the list does not allow.
pub fn complaints(file: &Table) -> Vec<String> {
    let mut found = Vec::new();
    walk("", file, FLY_TOML, &mut found);
    found
}

fn walk(path: &str, table: &Table, keys: &[(&str, Shape)], found: &mut Vec<String>) {
    for (name, value) in table {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match keys.iter().find(|(key, _)| key == name) {
            Some((_, shape)) => check(&path, value, shape, found),
            None => found.push(format!("{path}: not a key of fly.toml (flyctl would ignore it)")),
        }
    }
}

fn check(path: &str, value: &Value, shape: &Shape, found: &mut Vec<String>) {
    match (shape, value) {
        (Keys(keys), Value::Table(table)) => walk(path, table, keys, found),
        (Tables(keys), Value::Array(items)) => {
            for item in items {
                match item {
                    Value::Table(table) => walk(path, table, keys, found),
                    _ => found.push(format!("{path}: must be an array of tables, [[{path}]]")),
                }
            }
        }
        (Map(shape), Value::Table(table)) => {
            for (name, value) in table {
                check(&format!("{path}.{name}"), value, shape, found);
            }
        }
        (Plain, Value::Table(_)) => found.push(format!("{path}: must be a value, not a table")),
        (Plain, _) => {}
        (Tables(_), _) => found.push(format!("{path}: must be an array of tables, [[{path}]]")),
        (Keys(_) | Map(_), _) => found.push(format!("{path}: must be a table, [{path}]")),
    }
}

#[cfg(test)]
mod tests {
    use super::complaints;

    #[test]
    fn each_unknown_key_is_named_with_its_path() {
        let file = "ap = 'x'\n[[services]]\nhttp_options = {}\n[[services.ports]]\nprot = 1\n\
                    [checks.ready]\npth = '/'\n[env]\nANY = 'thing'";
        let found = complaints(&file.parse().unwrap()).join("\n");
        for path in ["ap:", "services.http_options:", "services.ports.prot:", "checks.ready.pth:"] {
            assert!(found.contains(path), "{path} in {found}");
        }
        assert!(!found.contains("env"), "{found}");
    }

    #[test]
    fn a_single_table_where_flyctl_wants_an_array_is_refused() {
        let found = complaints(&"[http_service.checks]\npath = '/'".parse().unwrap());
        assert_eq!(
            found,
            ["http_service.checks: must be an array of tables, [[http_service.checks]]"]
        );
    }
}
