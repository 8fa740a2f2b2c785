//! DNS that answers wrongly, late or not at all.

use super::{
    machine,
    names::{aaaa, resolver_in, txt},
    spec, temporary, up,
};
use flynet::{Fault, Scope};
use hickory_resolver::{
    net::{DnsError, NetError},
    proto::op::ResponseCode,
};
use std::{net::Ipv6Addr, time::Duration};
use tokio::time::{Instant, timeout};

const NAME: &str = "iad.echo-router.internal.";
const OTHER: &str = "iad.echo-gateway.internal.";

#[tokio::test]
async fn servfail_is_an_error_for_its_scope_alone() {
    let root = temporary();
    let net = up(spec(root.path())).await;
    let (iad, nrt) = (resolver_in(&net, "iad"), resolver_in(&net, "nrt"));
    let scope = Scope::everything().app("router").asked_in("iad");
    let guard = net.dns_fault(scope, Fault::ServFail);
    let error = iad.ipv6_lookup(NAME).await.unwrap_err();
    assert!(
        matches!(error, NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail))),
        "{error}"
    );
    assert_eq!(aaaa(&iad, OTHER).await.len(), 1);
    assert_eq!(aaaa(&nrt, NAME).await.len(), 1);
    drop(guard);
    assert_eq!(aaaa(&iad, NAME).await.len(), 1);
}

#[tokio::test]
async fn slow_answers_come_late_and_hold_up_nobody() {
    let root = temporary();
    let net = up(spec(root.path())).await;
    let iad = resolver_in(&net, "iad");
    let late = Duration::from_millis(200);
    let _slow = net.dns_fault(Scope::everything().app("router"), Fault::Slow(late));
    let begun = Instant::now();
    let router = async { (aaaa(&iad, NAME).await.len(), begun.elapsed()) };
    let gateway = async { (aaaa(&iad, OTHER).await.len(), begun.elapsed()) };
    let ((one, slow), (other, quick)) = tokio::join!(router, gateway);
    assert_eq!((one, other), (1, 1));
    assert!(slow >= late && quick < slow, "{slow:?} {quick:?}");
}

#[tokio::test]
async fn stale_answers_name_the_machines_of_before() {
    let root = temporary();
    let net = up(spec(root.path())).await;
    let iad = resolver_in(&net, "iad");
    let stale = net.dns_fault(Scope::everything(), Fault::Stale);
    let router = machine(&net, "echo-router");
    net.stop_machines("router").await.unwrap();
    net.scale("router", "fra", 1).await.unwrap();
    assert_eq!(aaaa(&iad, NAME).await, [router.address.to_ipv6_mapped()]);
    assert_eq!(txt(&iad, "regions.echo-router.internal.").await, "iad");
    drop(stale);
    assert_eq!(aaaa(&iad, NAME).await, Vec::<Ipv6Addr>::new());
    assert_eq!(txt(&iad, "regions.echo-router.internal.").await, "fra");
}

#[tokio::test]
async fn empty_answers_are_no_errors() {
    let root = temporary();
    let net = up(spec(root.path())).await;
    let iad = resolver_in(&net, "iad");
    net.dns_fault(Scope::everything(), Fault::Empty).keep();
    let error = iad.ipv6_lookup(NAME).await.unwrap_err();
    assert!(error.is_no_records_found() && !error.is_nx_domain(), "{error}");
    assert_eq!(txt(&iad, "regions.echo-router.internal.").await, "");
    net.clear_dns_faults();
    assert_eq!(aaaa(&iad, NAME).await.len(), 1);
}

#[tokio::test]
async fn dropped_questions_get_no_answer() {
    let root = temporary();
    let net = up(spec(root.path())).await;
    let iad = resolver_in(&net, "iad");
    let dropped = net.dns_fault(Scope::everything().region("iad"), Fault::Dropped);
    let asking = timeout(Duration::from_millis(300), iad.ipv6_lookup(NAME)).await;
    assert!(asking.is_err(), "{asking:?}");
    assert_eq!(txt(&iad, "regions.echo-router.internal.").await, "iad");
    drop(dropped);
    assert_eq!(aaaa(&iad, NAME).await.len(), 1);
}

#[tokio::test]
async fn an_address_can_be_another_apps() {
    let root = temporary();
    let net = up(spec(root.path())).await;
    let iad = resolver_in(&net, "iad");
    let (router, gateway) = (machine(&net, "echo-router"), machine(&net, "echo-gateway"));
    let guard = net.impersonate("router", gateway.address).unwrap();
    let mut found = aaaa(&iad, NAME).await;
    found.sort();
    let both = [gateway.address, router.address].map(|address| address.to_ipv6_mapped());
    assert_eq!(found, both);
    assert_eq!(aaaa(&iad, OTHER).await, [gateway.address.to_ipv6_mapped()]);
    assert!(net.impersonate("router", [127, 0, 0, 9].into()).is_err());
    drop(guard);
    assert_eq!(aaaa(&iad, NAME).await, [router.address.to_ipv6_mapped()]);
}
