//! The private DNS over the wire, asked by hickory-resolver as the mesh asks it.

use super::{PATIENCE, machine, spec, temporary, up};
use flynet::Flynet;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
};
use std::net::{Ipv6Addr, SocketAddr};

pub(crate) fn resolver(net: &Flynet) -> TokioResolver {
    resolver_at(net.dns())
}

/// As the machines of one region ask.
pub(crate) fn resolver_in(net: &Flynet, region: &str) -> TokioResolver {
    resolver_at(&net.dns_in(region).unwrap())
}

pub(crate) fn resolver_at(server: &str) -> TokioResolver {
    let server: SocketAddr = server.parse().unwrap();
    let connection = |mut config: ConnectionConfig| {
        config.port = server.port();
        config
    };
    let connections =
        vec![connection(ConnectionConfig::udp()), connection(ConnectionConfig::tcp())];
    let server = NameServerConfig::new(server.ip(), true, connections);
    let config = ResolverConfig::from_parts(None, vec![], vec![server]);
    let mut options = ResolverOpts::default();
    options.cache_size = 0;
    options.edns0 = true;
    options.timeout = PATIENCE;
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options)
        .build()
        .unwrap()
}

pub(crate) async fn aaaa(resolver: &TokioResolver, name: &str) -> Vec<Ipv6Addr> {
    let Ok(found) = resolver.ipv6_lookup(name).await else { return vec![] };
    found
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            hickory_resolver::proto::rr::RData::AAAA(address) => Some(address.0),
            _ => None,
        })
        .collect()
}

pub(crate) async fn txt(resolver: &TokioResolver, name: &str) -> String {
    let found = resolver.txt_lookup(name).await.unwrap();
    let record = found.answers().first().unwrap();
    assert_eq!(record.ttl, 5);
    match &record.data {
        hickory_resolver::proto::rr::RData::TXT(text) => {
            text.txt_data.iter().map(|part| String::from_utf8_lossy(part)).collect()
        }
        other => other.to_string(),
    }
}

#[tokio::test]
async fn names_follow_the_machines() {
    let root = temporary();
    let mut spec = spec(root.path());
    spec.apps[1].placement = vec![("iad".into(), 1), ("fra".into(), 1)];
    let net = up(spec).await;
    let resolver = resolver(&net);
    let routers: Vec<_> =
        net.machines().into_iter().filter(|machine| machine.app == "echo-router").collect();
    let (iad, fra) = (&routers[0], &routers[1]);

    assert_eq!(aaaa(&resolver, "echo-router.internal.").await.len(), 2);
    assert_eq!(aaaa(&resolver, "fra.echo-router.internal.").await, [fra.address.to_ipv6_mapped()]);
    let by_id = format!("{}.vm.echo-router.internal.", iad.id);
    assert_eq!(aaaa(&resolver, &by_id).await, [iad.address.to_ipv6_mapped()]);
    assert_eq!(txt(&resolver, "regions.echo-router.internal.").await, "fra,iad");
    let vms = format!("{} iad,{} fra", iad.id, fra.id);
    assert_eq!(txt(&resolver, "vms.echo-router.internal.").await, vms);
    assert!(txt(&resolver, "_apps.internal.").await.contains("echo-gateway,echo-router"));

    net.stop_machines(&fra.id).await.unwrap();
    assert_eq!(aaaa(&resolver, "fra.echo-router.internal.").await, Vec::<Ipv6Addr>::new());
    assert_eq!(txt(&resolver, "regions.echo-router.internal.").await, "iad");
    assert_eq!(txt(&resolver, "all.vms.echo-router.internal.").await, vms);
    net.stop_machines("router").await.unwrap();
    assert_eq!(txt(&resolver, "vms.echo-router.internal.").await, "");
    let stopped = resolver.ipv6_lookup("echo-router.internal.").await.unwrap_err();
    assert!(stopped.is_no_records_found() && !stopped.is_nx_domain(), "{stopped}");
    assert!(resolver.ipv6_lookup("nobody.internal.").await.unwrap_err().is_nx_domain());

    net.start_machines("router").await.unwrap();
    assert_eq!(aaaa(&resolver, "echo-router.internal.").await.len(), 2);
}

#[tokio::test]
async fn a_machine_that_still_boots_is_listed() {
    let root = temporary();
    let mut spec = spec(root.path());
    spec.apps[1].env.insert("ECHO_BOOT_MS".into(), "3600000".into());
    let net = Flynet::start(spec).await.unwrap();
    net.ready(&machine(&net, "echo-gateway").id, PATIENCE).await.unwrap();
    let router = machine(&net, "echo-router");
    let found = aaaa(&resolver(&net), "iad.echo-router.internal.").await;
    assert_eq!(found, [router.address.to_ipv6_mapped()]);
    let soon = std::time::Duration::from_millis(50);
    let error = net.ready(&router.id, soon).await.unwrap_err().to_string();
    assert!(error.contains("is not ready"), "{error}");
}
