//! Regions that lie apart: relays, cuts, and answers that depend on who asks.

use super::{
    PATIENCE, get, machine,
    names::{aaaa, resolver_in, txt},
    spec, temporary, up,
};
use flynet::{Flynet, Link, Listed, Spec};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

const RTT: Duration = Duration::from_millis(170);
const SOON: Duration = Duration::from_millis(300);

/// A router in `iad` and one in `nrt`, 170 ms apart.
fn ocean(root: &Path) -> Spec {
    let mut spec = spec(root);
    spec.apps[1].placement = vec![("iad".into(), 1), ("nrt".into(), 1)];
    spec.links = vec![("nrt".into(), "iad".into(), Link { rtt: RTT })];
    spec
}

async fn address(net: &Flynet, from: &str, name: &str) -> Ipv4Addr {
    let found = aaaa(&resolver_in(net, from), name).await;
    assert_eq!(found.len(), 1, "{name} from {from}");
    found[0].to_ipv4_mapped().unwrap()
}

fn in_region(net: &Flynet, region: &str) -> Listed {
    let routers = net.machines().into_iter().filter(|m| m.app == "echo-router");
    routers.into_iter().find(|machine| machine.region == region).unwrap()
}

/// An external that answers every byte with itself.
async fn echoing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                let _gone = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn the_address_depends_on_who_asks() {
    let root = temporary();
    let net = up(ocean(root.path())).await;
    let (iad, nrt) = (in_region(&net, "iad"), in_region(&net, "nrt"));
    let (near, far) = ("iad.echo-router.internal.", "nrt.echo-router.internal.");
    assert_eq!(address(&net, "iad", near).await, iad.address);
    assert_eq!(address(&net, "nrt", far).await, nrt.address);
    let relay = address(&net, "iad", far).await;
    assert!(relay != nrt.address && relay == address(&net, "iad", far).await);
    assert_ne!(address(&net, "nrt", near).await, iad.address);
    // nobody named a pair with fra
    assert_eq!(address(&net, "fra", far).await, nrt.address);
    let instances = txt(&resolver_in(&net, "iad"), "_instances.internal.").await;
    assert!(instances.contains(&format!("ip=::ffff:{relay},region=nrt")), "{instances}");
    for (machine, dns) in [(&iad, "iad"), (&nrt, "nrt")] {
        let env = super::ask(machine, "/env").await;
        let told = format!("SKEIN_MESH__DNS={}", net.dns_in(dns).unwrap());
        assert!(env.split('\0').any(|line| line == told), "{dns}");
    }
    // and it is that machine which answers there
    let env = get(&format!("http://{relay}:8081/env")).await.unwrap();
    assert!(env.contains(&nrt.id));
}

#[tokio::test]
async fn setting_up_and_asking_cost_a_round_trip_each() {
    let root = temporary();
    let net = up(ocean(root.path())).await;
    let target = echoing().await;
    let relay = net.relay("nrt", "iad", target).unwrap();
    assert_eq!(relay.port(), target.port());
    assert_eq!(net.relay("nrt", "iad", target).unwrap(), relay);
    assert_eq!(net.relay("iad", "iad", target).unwrap(), target);
    assert!(net.relay("fra", "iad", target).is_err());
    let mut socket = TcpStream::connect(relay).await.unwrap();
    let mut byte = [0];
    for rounds in [2, 1, 1] {
        let begun = Instant::now();
        socket.write_all(b"x").await.unwrap();
        socket.read_exact(&mut byte).await.unwrap();
        let took = begun.elapsed();
        // a connect that was told nothing takes no time here
        let least = RTT * rounds - Duration::from_millis(20);
        assert!(took >= least && took < RTT * 20, "{rounds} rounds took {took:?}");
    }
}

#[tokio::test]
async fn many_bytes_are_on_their_way_at_once_and_in_order() {
    let root = temporary();
    let net = up(ocean(root.path())).await;
    let relay = net.relay("iad", "nrt", echoing().await).unwrap();
    let sent: Vec<u8> = (0..16 << 20).map(|n: u32| (n % 251) as u8).collect();
    let mut socket = TcpStream::connect(relay).await.unwrap();
    let (mut read, mut write) = socket.split();
    let begun = Instant::now();
    let mut came = vec![0; sent.len()];
    let beside = async {
        // another connection waits for none of these bytes
        let mut small = TcpStream::connect(relay).await.unwrap();
        small.write_all(b"x").await.unwrap();
        small.read_exact(&mut [0]).await.unwrap();
        begun.elapsed()
    };
    let (written, heard, small) =
        tokio::join!(write.write_all(&sent), read.read_exact(&mut came), beside);
    written.unwrap();
    heard.unwrap();
    assert!(came == sent, "the bytes came in another order");
    // two round trips and the copying; a window of 64 KiB would take 44 s
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(small < Duration::from_secs(4), "{small:?}");
}

#[tokio::test]
async fn a_cut_passes_nothing_and_a_heal_delivers_it() {
    let root = temporary();
    let mut spec = ocean(root.path());
    spec.links[0].2.rtt = Duration::from_millis(10);
    let net = up(spec).await;
    assert!(net.partition("iad", "fra").is_err());
    let relay = net.relay("nrt", "iad", echoing().await).unwrap();
    let mut open = TcpStream::connect(relay).await.unwrap();
    let mut byte = [0];
    open.write_all(b"a").await.unwrap();
    open.read_exact(&mut byte).await.unwrap();

    net.partition("iad", "nrt").unwrap();
    let mut new = TcpStream::connect(relay).await.unwrap();
    for socket in [&mut open, &mut new] {
        socket.write_all(b"b").await.unwrap();
    }
    assert!(timeout(SOON, open.read_exact(&mut byte)).await.is_err());
    assert!(timeout(SOON, new.read_exact(&mut byte)).await.is_err());

    net.heal("nrt", "iad").unwrap();
    for socket in [&mut open, &mut new] {
        timeout(PATIENCE, socket.read_exact(&mut byte)).await.unwrap().unwrap();
        assert_eq!(&byte, b"b");
    }
}

#[tokio::test]
async fn ends_and_refusals_cross_too() {
    let root = temporary();
    let net = up(ocean(root.path())).await;
    let closed = SocketAddr::from(([127, 0, 0, 1], 9));
    let relay = net.relay("iad", "nrt", closed).unwrap();
    let mut refused = TcpStream::connect(relay).await.unwrap();
    let error = timeout(PATIENCE, refused.read_exact(&mut [0])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");

    let relay = net.relay("iad", "nrt", echoing().await).unwrap();
    let mut socket = TcpStream::connect(relay).await.unwrap();
    socket.write_all(b"bye").await.unwrap();
    socket.shutdown().await.unwrap();
    let mut text = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut text)).await.unwrap().unwrap();
    assert_eq!(text, "bye");
}

#[tokio::test]
async fn machines_made_later_are_as_far_away() {
    let root = temporary();
    let net = up(ocean(root.path())).await;
    net.scale("router", "iad", 0).await.unwrap();
    net.scale("router", "iad", 1).await.unwrap();
    let made = in_region(&net, "iad");
    net.ready(&made.id, PATIENCE).await.unwrap();
    let relay = address(&net, "nrt", "iad.echo-router.internal.").await;
    assert_ne!(relay, made.address);
    let begun = Instant::now();
    let env = get(&format!("http://{relay}:8081/env")).await.unwrap();
    assert!(env.contains(&made.id) && begun.elapsed() >= RTT);
}

#[tokio::test]
async fn a_dozen_regions_and_more() {
    let root = temporary();
    let mut spec = spec(root.path());
    let regions: Vec<String> = (1..=14).map(|n| format!("r{n:02}")).collect();
    spec.apps[0].placement = vec![("r01".into(), 1)];
    spec.apps[1].placement = regions.iter().map(|region| (region.clone(), 1)).collect();
    let last = regions.last().unwrap();
    for (n, region) in (1..).zip(&regions[..13]) {
        spec.links.push((last.clone(), region.clone(), Link { rtt: Duration::from_millis(n) }));
    }
    let net = up(spec).await;
    let listed = txt(&resolver_in(&net, "r01"), "regions.echo-router.internal.").await;
    assert_eq!(listed, regions.join(","));
    let servers: BTreeSet<_> = regions.iter().map(|region| net.dns_in(region).unwrap()).collect();
    assert_eq!(servers.len(), regions.len());
    let resolver = resolver_in(&net, last);
    let mut seen = BTreeSet::new();
    for region in &regions {
        let relay = address(&net, last, &format!("{region}.echo-router.internal.")).await;
        assert!(seen.insert(relay), "{relay} stands for two machines");
        let env = get(&format!("http://{relay}:8081/env")).await.unwrap();
        assert!(env.contains(&format!("FLY_REGION={region}")), "{region}");
    }
    // the nearest are those of the shortest links; the asker's own first
    let nearest = aaaa(&resolver, "top3.nearest.of.echo-router.internal.").await;
    let mut expected = vec![in_region(&net, last).address];
    for region in ["r01", "r02"] {
        expected.push(address(&net, last, &format!("{region}.echo-router.internal.")).await);
    }
    let nearest: BTreeSet<_> = nearest.iter().filter_map(Ipv6Addr::to_ipv4_mapped).collect();
    assert_eq!(nearest, expected.into_iter().collect());
    assert_eq!(machine(&net, "echo-gateway").region, "r01");
}
