//! Answers of Fly's private DNS, as a pure function over a snapshot of machines.
//!
//! Invariants:
//! - Plain forms know started machines only, ready or not; `all.` forms know all.
//! - An app, region, machine or group that does not exist is `NxDomain`; one
//!   that exists and has nothing started is an empty answer.
//! - A TXT list is one record of strings of at most 255 bytes, to be joined with
//!   nothing between; an empty list is one empty string.

use std::{net::Ipv6Addr, time::Duration};

/// Fly's TTL, in seconds.
pub const TTL: u32 = 5;
const STRING: usize = 255;
/// Fly's own helper app, which stands among the organisation's apps.
const BUILDER: &str = "fly-builder-emulated";

/// The network at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub apps: Vec<String>,
    pub machines: Vec<Entry>,
    /// WireGuard peers.
    pub peers: Vec<(String, Ipv6Addr)>,
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

/// Who asks: the same name has another answer elsewhere.
pub trait Asker {
    /// The address by which the asker reaches a machine, if it does.
    fn reach(&self, entry: &Entry) -> Option<Ipv6Addr>;
    /// An app's Flycast address, if it has one.
    fn flycast(&self, app: &str) -> Option<Ipv6Addr>;
    /// A round trip to a region.
    fn rtt(&self, region: &str) -> Duration;
}

/// What a name is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subject<'a> {
    pub(crate) app: Option<&'a str>,
    pub(crate) region: Option<&'a str>,
}

/// `name` as [`normal`] gives it.
pub(crate) fn subject(name: &str) -> Subject<'_> {
    let labels: Vec<_> = name.split('.').rev().collect();
    let (app, region) = match labels.as_slice() {
        ["internal", app, ..] if app.starts_with('_') => (None, None),
        ["internal", _, "vms" | "regions" | "global"] => (Some(labels[1]), None),
        ["internal", app, region] => (Some(*app), Some(*region)),
        ["internal" | "flycast", app, ..] => (Some(*app), None),
        _ => (None, None),
    };
    Subject { app, region }
}

/// Lower case, without the trailing dot.
pub(crate) fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

pub fn answer(snapshot: &Snapshot, name: &str, kind: Type, asker: &dyn Asker) -> Answer {
    let name = normal(name);
    let found = match name.split('.').rev().collect::<Vec<_>>().as_slice() {
        ["internal", "_apps"] => {
            let builder = [BUILDER.to_owned()];
            Some(Found::List(snapshot.apps.iter().cloned().chain(builder).collect(), ","))
        }
        ["internal", "_peer"] => {
            Some(Found::List(peers(snapshot).map(|(name, _)| name.clone()).collect(), ","))
        }
        ["internal", "_peer", name] => peers(snapshot)
            .find(|(peer, _)| peer == name)
            .map(|(_, address)| Found::Hosts(vec![*address])),
        ["internal", "_instances"] => Some(instances(snapshot, false, asker)),
        ["internal", "_instances", "all"] => Some(instances(snapshot, true, asker)),
        ["internal", app, labels @ ..] => of_app(snapshot, app, labels, asker),
        ["flycast", app] if snapshot.apps.iter().any(|a| a == app) => {
            Some(Found::Hosts(asker.flycast(app).into_iter().collect()))
        }
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
fn of_app(snapshot: &Snapshot, app: &str, labels: &[&str], asker: &dyn Asker) -> Option<Found> {
    if !snapshot.apps.iter().any(|name| name == app) {
        return None;
    }
    let all: Vec<&Entry> = snapshot.machines.iter().filter(|entry| entry.app == app).collect();
    let started = || all.iter().copied().filter(|entry| entry.started);
    let reached = |entries: &mut dyn Iterator<Item = &Entry>| {
        Found::Hosts(entries.filter_map(|entry| asker.reach(entry)).collect())
    };
    // hosts of the machines that `of` picks; none at all: the name does not exist
    let hosts = |of: &dyn Fn(&Entry) -> bool| {
        all.iter().any(|entry| of(entry)).then(|| reached(&mut started().filter(|e| of(e))))
    };
    let has = |entry: &Entry, key: &str, value: &str| {
        let same = |(k, v): &(String, String)| {
            k.eq_ignore_ascii_case(key) && v.eq_ignore_ascii_case(value)
        };
        entry.metadata.iter().any(same)
    };
    match labels {
        [] | ["global"] => Some(reached(&mut started())),
        ["vms"] => Some(vms(started())),
        ["vms", "all"] => Some(vms(all.iter().copied())),
        ["regions"] => Some(regions(started())),
        ["regions", "all"] => Some(regions(all.iter().copied())),
        ["vm", id] => hosts(&|entry| entry.id == *id),
        ["process", group] => hosts(&|entry| entry.group == *group),
        ["of", "nearest", top] => {
            let count: usize = top.strip_prefix("top")?.parse().ok()?;
            let mut nearest: Vec<_> = started().collect();
            nearest.sort_by_key(|entry| asker.rtt(&entry.region));
            Some(reached(&mut nearest.into_iter().take(count)))
        }
        ["_metadata", "kv", key, value] => {
            Some(reached(&mut started().filter(|entry| has(entry, key, value))))
        }
        [region] => hosts(&|entry| entry.region == *region),
        _ => None,
    }
}

/// Those of `fly wireguard`'s own sessions are hidden.
fn peers(snapshot: &Snapshot) -> impl Iterator<Item = &(String, Ipv6Addr)> {
    snapshot.peers.iter().filter(|(name, _)| !name.starts_with("interactive-"))
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

fn instances(snapshot: &Snapshot, all: bool, asker: &dyn Asker) -> Found {
    let entries = snapshot.machines.iter().filter(|entry| all || entry.started);
    let line = |e: &Entry| {
        let ip = asker.reach(e)?;
        Some(format!("instance={},app={},ip={ip},region={}", e.id, e.app, e.region))
    };
    Found::List(entries.filter_map(line).collect(), ";")
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

    /// In London; nothing stands between it and the machines.
    struct London;

    impl Asker for London {
        fn reach(&self, entry: &Entry) -> Option<Ipv6Addr> {
            Some(entry.address)
        }

        fn flycast(&self, app: &str) -> Option<Ipv6Addr> {
            (app == "a-router").then_some(Ipv6Addr::new(0xfdaa, 0, 0, 1, 0, 0, 0, 7))
        }

        fn rtt(&self, region: &str) -> Duration {
            crate::places::rtt("lhr", region)
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
            peers: ["ci", "interactive-1"].map(|name| (name.into(), Ipv6Addr::LOCALHOST)).into(),
        }
    }

    fn aaaa(name: &str) -> Option<Vec<u16>> {
        match answer(&net(), name, Type::Aaaa, &London) {
            Answer::Addresses(found) => Some(found.iter().map(|a| a.segments()[7]).collect()),
            Answer::NoData => Some(vec![]),
            Answer::NxDomain => None,
            Answer::Text(_) => unreachable!(),
        }
    }

    fn txt(name: &str) -> String {
        match answer(&net(), name, Type::Txt, &London) {
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
        assert_eq!(aaaa("1.Ready.kv._metadata.a-router.internal"), Some(vec![1]));
        assert_eq!(aaaa("3.ready.kv._metadata.a-router.internal"), Some(vec![]));
        assert_eq!(aaaa("a-router.flycast"), Some(vec![7]));
        assert_eq!(aaaa("ci._peer.internal"), Some(vec![1]));
    }

    #[test]
    fn nothing_started_is_empty_and_nothing_there_is_nxdomain() {
        for empty in [
            "syd.a-router.internal",
            "00000000000004.vm.a-router.internal",
            "a-empty.internal",
            "a-empty.flycast",
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
            "iad.a-router.flycast",
            "interactive-1._peer.internal",
            "internal",
            "",
        ] {
            assert_eq!(aaaa(unknown), None, "{unknown}");
        }
        assert_eq!(answer(&net(), "a-router.internal", Type::Other, &London), Answer::NoData);
        assert_eq!(answer(&net(), "a-router.internal", Type::Txt, &London), Answer::NoData);
    }

    #[test]
    fn text_follows_flys_grammar() {
        assert_eq!(txt("vms.a-router.internal"), "00000000000001 iad,00000000000002 fra");
        assert!(txt("all.vms.a-router.internal").ends_with("00000000000004 syd"));
        assert_eq!(txt("regions.a-router.internal"), "fra,iad");
        assert_eq!(txt("all.regions.a-router.internal"), "fra,iad,syd");
        assert_eq!(txt("_apps.internal"), "a-router,a-empty,fly-builder-emulated");
        assert_eq!(txt("_peer.internal"), "ci");
        assert_eq!(txt("regions.a-empty.internal"), "");
        let all = txt("all._instances.internal");
        assert!(txt("_instances.internal").starts_with(
            "instance=00000000000001,app=a-router,ip=fdaa::1,region=iad;instance=00000000000002,"
        ));
        assert_eq!((txt("_instances.internal").split(';').count(), all.split(';').count()), (3, 5));
    }

    #[test]
    fn a_name_says_what_it_is_about() {
        let of = |name| {
            let Subject { app, region } = subject(name);
            (app, region)
        };
        assert_eq!(of("fra.a-router.internal"), (Some("a-router"), Some("fra")));
        for name in ["a-router.internal", "all.regions.a-router.internal", "vms.a-router.internal"]
        {
            assert_eq!(of(name), (Some("a-router"), None), "{name}");
        }
        assert_eq!(of("a-router.flycast"), (Some("a-router"), None));
        assert_eq!(of("all._instances.internal"), (None, None));
    }

    #[test]
    fn long_text_comes_in_strings_of_255_bytes() {
        let mut net = net();
        net.machines.extend((10..200).map(|n| entry(n, "a-router", "iad", true)));
        let Answer::Text(parts) = answer(&net, "vms.a-router.internal", Type::Txt, &London) else {
            panic!("no text")
        };
        assert!(parts.len() > 1 && parts[..parts.len() - 1].iter().all(|part| part.len() == 255));
        assert_eq!(parts.concat().split(',').count(), 192);
        assert_eq!(strings(""), [""]);
    }
}
