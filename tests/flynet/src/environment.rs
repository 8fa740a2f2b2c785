//! The variables of a machine.
//!
//! Invariants:
//! - Nothing of flynet's own environment reaches a machine.
//! - `[env]` < the network's < the app's < secrets, and the `FLY_*` and
//!   emulator variables are above all but secrets.
//! - A value of `[env]` that points into a mount or at a `[[files]]` path points
//!   to where that is here; nothing else is rewritten.

use crate::{fly_toml::FlyToml, layout};
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

pub(crate) struct Inputs<'a> {
    pub(crate) app: &'a str,
    pub(crate) id: &'a str,
    pub(crate) region: &'a str,
    pub(crate) address: Ipv4Addr,
    pub(crate) dns: &'a str,
    pub(crate) config: &'a FlyToml,
    pub(crate) directory: &'a Path,
    pub(crate) volumes: &'a [(String, PathBuf)],
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
    let directory = inputs.directory.display().to_string();
    let own = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("TMPDIR", format!("{directory}/tmp")),
        ("HOME", directory),
        ("FLY_APP_NAME", inputs.app.to_owned()),
        ("FLY_MACHINE_ID", inputs.id.to_owned()),
        ("FLY_ALLOC_ID", inputs.id.to_owned()),
        ("FLY_REGION", inputs.region.to_owned()),
        ("FLY_PRIVATE_IP", inputs.address.to_ipv6_mapped().to_string()),
        ("FLY_MACHINE_VERSION", "01FLYNET".to_owned()),
        ("FLY_IMAGE_REF", format!("registry.fly.io/{}:flynet", inputs.app)),
        ("FLY_PROCESS_GROUP", "app".to_owned()),
        ("FLY_VM_MEMORY_MB", inputs.config.memory_mb.to_string()),
        ("PRIMARY_REGION", inputs.config.primary_region.clone()),
        ("SKEIN_MESH__DNS", inputs.dns.to_owned()),
        ("SKEIN_LISTEN__HOST", inputs.address.to_string()),
    ];
    env.extend(own.map(|(name, value)| (name.to_owned(), value)));
    env.extend(inputs.secrets.clone());
    env
}

fn located(value: &str, inputs: &Inputs<'_>) -> String {
    for (destination, volume) in inputs.volumes {
        match value.strip_prefix(destination.as_str()) {
            Some("") => return volume.display().to_string(),
            Some(rest) if rest.starts_with('/') => return format!("{}{rest}", volume.display()),
            _ => {}
        }
    }
    match inputs.config.files.iter().any(|file| file.guest_path == value) {
        true => layout::inside(inputs.directory, value).display().to_string(),
        false => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let env = of(&Inputs {
            app: "a-router",
            id: "00000000000001",
            region: "fra",
            address: Ipv4Addr::new(127, 5, 6, 7),
            dns: "127.5.6.1:10053",
            config: &config,
            directory: Path::new("/m"),
            volumes: &[("/data".to_owned(), PathBuf::from("/v"))],
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
