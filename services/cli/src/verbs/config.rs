//! `skein config`: each setting of this command and of every machine, and
//! where it came from.
//!
//! Invariants:
//! - A secret is `***` if it is set; it is never fetched, so never shown.
//! - What this command itself uses is shown even when the mesh is away.

use crate::{access::Access, connect::Gateway, errors::Error, render, terminal::Terminal};
use serde_json::{Value, json};
use skein_proto::mesh::v1::Setting;

pub(crate) async fn run(access: Access, json: bool, terminal: &mut Terminal) -> Result<(), Error> {
    let own = [
        setting("url", &access.url, access.url_origin),
        setting("api_key", if access.key.is_some() { "***" } else { "" }, &access.key_origin),
    ];
    if !json {
        print("skein (this command)", &own, terminal)?;
    }
    let machines = match Gateway::connect(access).await {
        Ok(gateway) => super::status::machines(&gateway, true).await,
        Err(error) => Err(error),
    };
    if json {
        let shown: Vec<_> = machines
            .as_deref()
            .unwrap_or_default()
            .iter()
            .map(|machine| {
                let identity = super::status::identity(machine);
                json!({
                    "app": identity.app, "machine": identity.machine, "region": identity.region,
                    "settings": as_json(&machine.settings),
                    "error": render::present(&machine.error),
                })
            })
            .collect();
        terminal.json(&json!({ "cli": as_json(&own), "machines": shown }), true)?;
        return machines.map(drop);
    }
    for machine in machines? {
        let identity = super::status::identity(&machine);
        let title = format!("{} {} {}", identity.app, identity.machine, identity.region);
        if machine.error.is_empty() {
            print(&title, &machine.settings, terminal)?;
        } else {
            terminal.note(&format!("{title}: {}", machine.error));
        }
    }
    Ok(())
}

fn setting(name: &str, value: &str, origin: &str) -> Setting {
    Setting { name: name.to_owned(), value: value.to_owned(), origin: origin.to_owned() }
}

fn as_json(settings: &[Setting]) -> Vec<Value> {
    settings
        .iter()
        .map(|one| json!({ "name": one.name, "value": one.value, "origin": one.origin }))
        .collect()
}

fn print(title: &str, settings: &[Setting], terminal: &mut Terminal) -> Result<(), Error> {
    let rows: Vec<_> = settings
        .iter()
        .map(|one| vec![format!("  {}", one.name), one.value.clone(), one.origin.clone()])
        .collect();
    terminal.line(title)?;
    terminal.line(&render::table(&rows))
}
