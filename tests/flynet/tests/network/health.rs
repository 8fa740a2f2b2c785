//! Health checks: what they change, and what they do not.

use super::{GATEWAY, ROUTER, ask, eventually, get, machine, names, spec, temporary};
use flynet::{Flynet, Spec, Verdict, What};
use std::{fs, path::Path};

/// The gateway with a check of its service, both at a hundred times Fly's pace.
fn checked(root: &Path) -> Spec {
    let mut spec = spec(root);
    let check = "[[http_service.checks]]\npath = \"/readyz\"\ninterval = \"10s\"\n\
                 timeout = \"2s\"\ngrace_period = \"1s\"\n[[restart]]";
    fs::write(&spec.apps[0].config, GATEWAY.replace("[[restart]]", check)).unwrap();
    let interval = "path = \"/readyz\"\ninterval = \"10s\"\ngrace_period = \"1s\"";
    fs::write(&spec.apps[1].config, ROUTER.replace("path = \"/readyz\"", interval)).unwrap();
    spec.intervals.speed = Some(100);
    spec
}

async fn verdict(net: &Flynet, app: &str, wanted: Verdict) {
    eventually("the verdict", async || {
        (machine(net, app).checks.first()?.status == wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_failing_service_check_takes_the_machine_from_the_proxy_alone() {
    let root = temporary();
    let net = super::up(checked(root.path())).await;
    let gateway = machine(&net, "echo-gateway");
    verdict(&net, "echo-gateway", Verdict::Passing).await;
    let check = &machine(&net, "echo-gateway").checks[0];
    assert!(check.service && check.name == "servicecheck-00-http-8080", "{check:?}");
    let url = format!("http://{}/starts", net.edge().unwrap());
    assert!(get(&url).await.unwrap().contains("here=1"));

    assert_eq!(ask(&gateway, "/sick").await, "sick");
    verdict(&net, "echo-gateway", Verdict::Critical).await;
    assert!(get(&url).await.unwrap().contains("no machine"));
    let now = machine(&net, "echo-gateway");
    assert_eq!((now.pid, now.starts), (gateway.pid, 1), "nobody restarts it");
    let found = names::aaaa(&names::resolver(&net), "echo-gateway.internal.").await;
    assert_eq!(found.len(), 1, "DNS does not know of checks");

    ask(&gateway, "/well").await;
    verdict(&net, "echo-gateway", Verdict::Passing).await;
    assert!(get(&url).await.unwrap().contains("here=1"));
}

#[tokio::test]
async fn a_failing_top_level_check_changes_nothing_while_the_machine_runs() {
    let root = temporary();
    let net = super::up(checked(root.path())).await;
    let router = machine(&net, "echo-router");
    verdict(&net, "echo-router", Verdict::Passing).await;
    ask(&router, "/sick").await;
    verdict(&net, "echo-router", Verdict::Critical).await;
    let now = machine(&net, "echo-router");
    assert_eq!((now.state, now.pid, now.starts), (router.state, router.pid, 1));
    assert!(now.checks[0].output.contains("503") && !now.checks[0].service);
    let found = names::aaaa(&names::resolver(&net), "echo-router.internal.").await;
    assert_eq!(found.len(), 1);
    let failed = What::Checked { name: "ready".to_owned(), passing: false };
    assert!(net.events().iter().any(|event| event.what == failed));
}

#[tokio::test]
async fn the_first_check_waits_for_the_grace_period() {
    let root = temporary();
    let mut spec = checked(root.path());
    let text = fs::read_to_string(&spec.apps[1].config).unwrap();
    let text = text.replace("grace_period = \"1s\"", "grace_period = \"60m\"");
    fs::write(&spec.apps[1].config, text).unwrap();
    spec.intervals.speed = None;
    let net = super::up(spec).await;
    assert_eq!(machine(&net, "echo-router").checks[0].status, Verdict::Warning);
}

#[tokio::test]
async fn a_hung_machine_fails_its_checks_and_nobody_restarts_it() {
    let root = temporary();
    let mut spec = checked(root.path());
    spec.intervals.kill_timeout = Some(std::time::Duration::from_millis(100));
    let net = super::up(spec).await;
    verdict(&net, "echo-router", Verdict::Passing).await;
    let router = machine(&net, "echo-router");
    net.freeze("router").await.unwrap();
    verdict(&net, "echo-router", Verdict::Critical).await;
    let now = machine(&net, "echo-router");
    assert_eq!((now.pid, now.starts), (router.pid, 1));
    assert!(now.checks[0].output.contains("no answer"), "{:?}", now.checks);
    net.thaw("router").await.unwrap();
    verdict(&net, "echo-router", Verdict::Passing).await;
}
