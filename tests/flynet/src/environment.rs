//! The variables of a machine.
//!
//! Invariants:
//! - Nothing of flynet's own environment reaches a machine.
//! - `[env]` < the network's < the app's < secrets, and the `FLY_*` and
//!   emulator variables are above all but secrets.
//! - A value of `[env]` that points into a mount or at a `[[files]]` path points
//!   to where that is here; nothing else is rewritten.

use crate::{fly_toml::FlyToml, layout, maker::Place};
use std::collections::BTreeMap;

pub(crate) struct Inputs<'a> {
    pub(crate) place: &'a Place,
    pub(crate) version: &'a str,
    pub(crate) dns: &'a str,
    pub(crate) config: &'a FlyToml,
    /// In order of precedence, lowest first.
    pub(crate) overrides: &'a [&'a BTreeMap<String, String>],
    pub(crate) secrets: &'a BTreeMap<String, String>,
}

pub(crate) fn of(inputs: &Inputs<'_>) -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> = inputs
        .config
        .env
        .iter()
        .map(|(name, value)| (name.clone(), located(value, inputs)))
        .collect();
    env.extend(inputs.overrides.iter().flat_map(|layer| (*layer).clone()));
    let place = inputs.place;
    let directory = place.directory.display().to_string();
    let own = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("TMPDIR", format!("{directory}/tmp")),
        ("HOME", directory),
        ("FLY_APP_NAME", place.app.clone()),
        ("FLY_MACHINE_ID", place.id.clone()),
        ("FLY_ALLOC_ID", place.id.clone()),
        ("FLY_REGION", place.region.clone()),
        ("FLY_PRIVATE_IP", place.address.to_ipv6_mapped().to_string()),
        ("FLY_MACHINE_VERSION", inputs.version.to_owned()),
        ("FLY_IMAGE_REF", format!("registry.fly.io/{}:flynet", place.app)),
        ("FLY_PROCESS_GROUP", "app".to_owned()),
        ("FLY_VM_MEMORY_MB", inputs.config.memory_mb.to_string()),
        ("PRIMARY_REGION", inputs.config.primary_region.clone()),
        ("SKEIN_MESH__DNS", inputs.dns.to_owned()),
        ("SKEIN_MESH__FLY_API", place.api.display().to_string()),
        ("SKEIN_LISTEN__HOST", place.address.to_string()),
    ];
    env.extend(own.map(|(name, value)| (name.to_owned(), value)));
    env.extend(inputs.secrets.clone());
    env
}

fn located(value: &str, inputs: &Inputs<'_>) -> String {
    for (destination, volume) in &inputs.place.volumes {
        match value.strip_prefix(destination.as_str()) {
            Some("") => return volume.display().to_string(),
            Some(rest) if rest.starts_with('/') => return format!("{}{rest}", volume.display()),
            _ => {}
        }
    }
    match inputs.config.files.iter().any(|file| file.guest_path == value) {
        true => layout::inside(&inputs.place.directory, value).display().to_string(),
        false => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::Ipv4Addr, path::PathBuf};

    #[test]
    fn only_env_of_the_file_is_moved_into_the_volume() {
        let config = FlyToml::parse(
            "app='a-router'\nprimary_region='iad'\n[env]\nDIR='/data'\nDB='/data/x.db'\n\
             OTHER='/database'\nAGENTS='/app/agents.toml'\n[[mounts]]\nsource='v'\n\
             destination='/data'\n[[files]]\nguest_path='/app/agents.toml'\nlocal_path='x'",
        )
        .unwrap();
        let overrides = BTreeMap::from([("MODELS".to_owned(), "/data/models".to_owned())]);
        let secrets = BTreeMap::from([("LANG".to_owned(), "secret".to_owned())]);
        let place = Place {
            app: "a-router".to_owned(),
            id: "00000000000001".to_owned(),
            region: "fra".to_owned(),
            number: 0,
            address: Ipv4Addr::new(127, 5, 6, 7),
            directory: PathBuf::from("/m"),
            volumes: vec![("/data".to_owned(), PathBuf::from("/v"))],
            log: PathBuf::from("/l"),
            api: PathBuf::from("/r/00000000000001"),
        };
        let env = of(&Inputs {
            place: &place,
            version: "01TEST",
            dns: "127.5.6.1:10053",
            config: &config,
            overrides: &[&overrides],
            secrets: &secrets,
        });
        let is = |name: &str| env[name].as_str();
        assert_eq!((is("DIR"), is("DB"), is("OTHER")), ("/v", "/v/x.db", "/database"));
        assert_eq!(is("AGENTS"), "/m/app/agents.toml");
        assert_eq!(is("MODELS"), "/data/models");
        assert_eq!(is("LANG"), "secret");
        assert_eq!(is("FLY_PRIVATE_IP"), "::ffff:127.5.6.7");
        assert_eq!((is("FLY_REGION"), is("PRIMARY_REGION")), ("fra", "iad"));
    }
}
