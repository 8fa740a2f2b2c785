//! Keys that Fly knows and flynet does not emulate.
//!
//! Invariants:
//! - What would make a machine behave otherwise than here is refused, not ignored.

const KEYS: [&str; 6] = [
    "deploy.release_command",
    "deploy.seed_command",
    "machine_checks",
    "http_service.machine_checks",
    "services.machine_checks",
    "vm.persist_rootfs",
];

pub(super) fn complaints(file: &toml::Table) -> impl Iterator<Item = String> {
    let there = KEYS.into_iter().filter(|path| is_there(file, path));
    there.map(|path| format!("{path}: flynet does not emulate it"))
}

/// Whether a dotted path exists, in any table of an array.
fn is_there(table: &toml::Table, path: &str) -> bool {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    match table.get(first) {
        None => false,
        Some(_) if rest.is_empty() => true,
        Some(toml::Value::Table(inner)) => is_there(inner, rest),
        Some(toml::Value::Array(items)) => {
            items.iter().filter_map(toml::Value::as_table).any(|item| is_there(item, rest))
        }
        Some(_) => false,
    }
}
