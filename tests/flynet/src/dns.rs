//! Answers of Fly's private DNS, as a pure function over a snapshot of machines.
//!
//! Invariants:
//! - Plain forms know started machines only, ready or not; `all.` forms know all.
//! - An app, region, machine or group that does not exist is `NxDomain`; one
//!   that exists and has nothing started is an empty answer.
//! - A TXT list is one record of strings of at most 255 bytes, to be joined with
//!   nothing between; an empty list is one empty string.

use std::net::Ipv6Addr;

/// Fly's TTL, in seconds.
pub const TTL: u32 = 5;
const STRING: usize = 255;

/// The network at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub apps: Vec<String>,
    pub machines: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub app: String,
    pub id: String,
    pub region: String,
    pub group: String,
    pub address: Ipv6Addr,
    pub started: bool,
    /// Key and value.
    pub metadata: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Aaaa,
    Txt,
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Addresses(Vec<Ipv6Addr>),
    /// The strings of one TXT record.
    Text(Vec<String>),
    /// The name exists; it has nothing of this type.
    NoData,
    NxDomain,
}

/// `name` without the trailing dot; `region`: where the asking machine is.
pub fn answer(snapshot: &Snapshot, name: &str, kind: Type, region: &str) -> Answer {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let found = match name.split('.').rev().collect::<Vec<_>>().as_slice() {
        ["internal", "_apps"] => Some(Found::List(snapshot.apps.clone(), ",")),
        ["internal", "_peer"] => Some(Found::List(Vec::new(), ",")),
        ["internal", "_instances"] => Some(instances(snapshot, false)),
        ["internal", "_instances", "all"] => Some(instances(snapshot, true)),
        ["internal", app, labels @ ..] => of_app(snapshot, app, labels, region),
        // no app has a Flycast address yet
        ["flycast", app] if snapshot.apps.iter().any(|a| a == app) => Some(Found::Hosts(vec![])),
        _ => None,
    };
    match (found, kind) {
        (None, _) => Answer::NxDomain,
        (Some(Found::Hosts(hosts)), Type::Aaaa) if !hosts.is_empty() => Answer::Addresses(hosts),
        (Some(Found::List(items, separator)), Type::Txt) => {
            Answer::Text(strings(&items.join(separator)))
        }
        (Some(_), _) => Answer::NoData,
    }
}

enum Found {
    Hosts(Vec<Ipv6Addr>),
    /// Items and what stands between them.
    List(Vec<String>, &'static str),
}

/// `labels` are those before the app's, the nearest first.
fn of_app(snapshot: &Snapshot, app: &str, labels: &[&str], asker: &str) -> Option<Found> {
    if !snapshot.apps.iter().any(|name| name == app) {
        return None;
    }
    let all: Vec<&Entry> = snapshot.machines.iter().filter(|entry| entry.app == app).collect();
    let started = || all.iter().copied().filter(|entry| entry.started);
    // hosts of the machines that `of` picks; none at all: the name does not exist
    let hosts = |of: &dyn Fn(&Entry) -> bool| {
        all.iter()
            .any(|entry| of(entry))
            .then(|| Found::Hosts(started().filter(|e| of(e)).map(|entry| entry.address).collect()))
    };
    match labels {
        [] | ["global"] => Some(Found::Hosts(started().map(|entry| entry.address).collect())),
        ["vms"] => Some(vms(started())),
        ["vms", "all"] => Some(vms(all.iter().copied())),
        ["regions"] => Some(regions(started())),
        ["regions", "all"] => Some(regions(all.iter().copied())),
        ["vm", id] => hosts(&|entry| entry.id == *id),
        ["process", group] => hosts(&|entry| entry.group == *group),
        ["of", "nearest", top] => nearest(started().collect(), top, asker),
        ["_metadata", "kv", key, value] => Some(Found::Hosts(
            started()
                .filter(|entry| entry.metadata.iter().any(|(k, v)| k == key && v == value))
                .map(|entry| entry.address)
                .collect(),
        )),
        [region] => hosts(&|entry| entry.region == *region),
        _ => None,
    }
}

fn vms<'a>(entries: impl Iterator<Item = &'a Entry>) -> Found {
    Found::List(entries.map(|entry| format!("{} {}", entry.id, entry.region)).collect(), ",")
}

fn regions<'a>(entries: impl Iterator<Item = &'a Entry>) -> Found {
    let mut regions: Vec<_> = entries.map(|entry| entry.region.clone()).collect();
    regions.sort();
    regions.dedup();
    Found::List(regions, ",")
}

fn instances(snapshot: &Snapshot, all: bool) -> Found {
    let entries = snapshot.machines.iter().filter(|entry| all || entry.started);
    let line =
        |e: &Entry| format!("instance={},app={},ip={},region={}", e.id, e.app, e.address, e.region);
    Found::List(entries.map(line).collect(), ";")
}

fn nearest(mut entries: Vec<&Entry>, top: &str, asker: &str) -> Option<Found> {
    let count: usize = top.strip_prefix("top")?.parse().ok()?;
    entries.sort_by(|a, b| distance(asker, &a.region).total_cmp(&distance(asker, &b.region)));
    Some(Found::Hosts(entries.iter().take(count).map(|entry| entry.address).collect()))
}

/// Latitude and longitude of Fly's regions, in degrees.
const PLACES: [(&str, f64, f64); 18] = [
    ("ams", 52.4, 4.9),
    ("arn", 59.7, 17.9),
    ("bom", 19.1, 72.9),
    ("cdg", 48.9, 2.4),
    ("dfw", 32.8, -96.8),
    ("ewr", 40.8, -74.1),
    ("fra", 50.1, 8.7),
    ("gru", -23.5, -46.7),
    ("iad", 39.0, -77.5),
    ("jnb", -26.1, 28.2),
    ("lax", 33.9, -118.4),
    ("lhr", 51.5, -0.1),
    ("nrt", 35.6, 139.7),
    ("ord", 41.9, -87.6),
    ("sin", 1.3, 103.8),
    ("sjc", 37.4, -121.9),
    ("syd", -33.9, 151.2),
    ("yyz", 43.6, -79.4),
];

/// Angle between two regions, in radians; a region we do not know is far.
fn distance(a: &str, b: &str) -> f64 {
    if a == b {
        return 0.0;
    }
    let place = |code| PLACES.iter().find(|(name, ..)| *name == code);
    let (Some((_, lat_a, lon_a)), Some((_, lat_b, lon_b))) = (place(a), place(b)) else {
        return f64::INFINITY;
    };
    let (lat_a, lat_b) = (lat_a.to_radians(), lat_b.to_radians());
    let lon = (lon_a - lon_b).to_radians();
    (lat_a.sin() * lat_b.sin() + lat_a.cos() * lat_b.cos() * lon.cos()).clamp(-1.0, 1.0).acos()
}

/// Cuts at bytes, as DNS does: every name we serve is ASCII.
fn strings(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec![String::new()];
    }
    text.as_bytes().chunks(STRING).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u16, app: &str, region: &str, started: bool) -> Entry {
        Entry {
            app: app.to_owned(),
            id: format!("{n:014x}"),
            region: region.to_owned(),
            group: "app".to_owned(),
            address: Ipv6Addr::new(0xfdaa, 0, 0, 0, 0, 0, 0, n),
            started,
            metadata: vec![("ready".to_owned(), n.to_string())],
        }
    }

    fn net() -> Snapshot {
        Snapshot {
            apps: vec!["a-router".into(), "a-empty".into()],
            machines: vec![
                entry(1, "a-router", "iad", true),
                entry(2, "a-router", "fra", true),
                entry(3, "a-router", "fra", false),
                entry(4, "a-router", "syd", false),
                entry(5, "a-other", "iad", true),
            ],
        }
    }

    fn aaaa(name: &str) -> Option<Vec<u16>> {
        match answer(&net(), name, Type::Aaaa, "lhr") {
            Answer::Addresses(found) => Some(found.iter().map(|a| a.segments()[7]).collect()),
            Answer::NoData => Some(vec![]),
            Answer::NxDomain => None,
            Answer::Text(_) => unreachable!(),
        }
    }

    fn txt(name: &str) -> String {
        match answer(&net(), name, Type::Txt, "lhr") {
            Answer::Text(strings) => strings.concat(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn addresses_of_started_machines_in_every_form() {
        assert_eq!(aaaa("a-router.internal."), Some(vec![1, 2]));
        assert_eq!(aaaa("A-Router.Internal"), Some(vec![1, 2]));
        assert_eq!(aaaa("global.a-router.internal"), Some(vec![1, 2]));
        assert_eq!(aaaa("fra.a-router.internal"), Some(vec![2]));
        assert_eq!(aaaa("00000000000002.vm.a-router.internal"), Some(vec![2]));
        assert_eq!(aaaa("app.process.a-router.internal"), Some(vec![1, 2]));
        assert_eq!(aaaa("top1.nearest.of.a-router.internal"), Some(vec![2]));
        assert_eq!(aaaa("top9.nearest.of.a-router.internal"), Some(vec![2, 1]));
        assert_eq!(aaaa("1.ready.kv._metadata.a-router.internal"), Some(vec![1]));
    }

    #[test]
    fn nothing_started_is_empty_and_nothing_there_is_nxdomain() {
        for empty in [
            "syd.a-router.internal",
            "00000000000004.vm.a-router.internal",
            "a-empty.internal",
            "a-router.flycast",
        ] {
            assert_eq!(aaaa(empty), Some(vec![]), "{empty}");
        }
        for unknown in [
            "nope.internal",
            "lax.a-router.internal",
            "x.vm.a-router.internal",
            "web.process.a-router.internal",
            "topx.nearest.of.a-router.internal",
            "example.com",
            "nope.flycast",
            "internal",
            "",
        ] {
            assert_eq!(aaaa(unknown), None, "{unknown}");
        }
        assert_eq!(answer(&net(), "a-router.internal", Type::Other, "iad"), Answer::NoData);
        assert_eq!(answer(&net(), "a-router.internal", Type::Txt, "iad"), Answer::NoData);
    }

    #[test]
    fn text_follows_flys_grammar() {
        assert_eq!(txt("vms.a-router.internal"), "00000000000001 iad,00000000000002 fra");
        assert!(txt("all.vms.a-router.internal").ends_with("00000000000004 syd"));
        assert_eq!(txt("regions.a-router.internal"), "fra,iad");
        assert_eq!(txt("all.regions.a-router.internal"), "fra,iad,syd");
        assert_eq!(txt("_apps.internal"), "a-router,a-empty");
        assert_eq!(txt("_peer.internal"), "");
        assert_eq!(txt("regions.a-empty.internal"), "");
        let all = txt("all._instances.internal");
        assert!(txt("_instances.internal").starts_with(
            "instance=00000000000001,app=a-router,ip=fdaa::1,region=iad;instance=00000000000002,"
        ));
        assert_eq!((txt("_instances.internal").split(';').count(), all.split(';').count()), (3, 5));
    }

    #[test]
    fn long_text_comes_in_strings_of_255_bytes() {
        let mut net = net();
        net.machines.extend((10..200).map(|n| entry(n, "a-router", "iad", true)));
        let Answer::Text(parts) = answer(&net, "vms.a-router.internal", Type::Txt, "iad") else {
            panic!("no text")
        };
        assert!(parts.len() > 1 && parts[..parts.len() - 1].iter().all(|part| part.len() == 255));
        assert_eq!(parts.concat().split(',').count(), 192);
        assert_eq!(strings(""), [""]);
    }
}
