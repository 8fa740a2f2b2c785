//! `/.fly/api`, as a program in a machine reaches it.

use super::{PATIENCE, ask, eventually, machine, names, spec, temporary, up};
use flynet::{Flynet, Listed, State};
use serde_json::{Value, json};
use std::path::PathBuf;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

/// The socket of a machine, as its environment says.
async fn socket(machine: &Listed) -> PathBuf {
    let env = ask(machine, "/env").await;
    let path = env.split('\0').find_map(|line| line.strip_prefix("SKEIN_MESH__FLY_API="));
    PathBuf::from(path.unwrap())
}

/// Status and body.
async fn call(socket: &PathBuf, method: &str, path: &str, body: &str) -> (u16, Value) {
    assert!(socket.as_os_str().len() < 108, "the kernel takes no longer path");
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: flaps\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

const ROUTERS: &str = "/v1/apps/echo-router/machines";

/// A running router, and one that is stopped in `iad` and one in `fra`.
async fn siblings(root: &std::path::Path) -> (Flynet, Vec<Listed>) {
    let mut spec = spec(root);
    spec.apps[1].stopped = vec![("iad".into(), 1), ("fra".into(), 1)];
    let net = up(spec).await;
    let routers = net.machines().into_iter().filter(|m| m.app == "echo-router").collect();
    (net, routers)
}

fn state(net: &Flynet, id: &str) -> State {
    net.machines().into_iter().find(|machine| machine.id == id).unwrap().state
}

#[tokio::test]
async fn machines_of_the_own_app_alone_are_seen() {
    let root = temporary();
    let (net, routers) = siblings(root.path()).await;
    let api = socket(&routers[0]).await;
    let (status, all) = call(&api, "GET", ROUTERS, "").await;
    assert_eq!((status, all.as_array().unwrap().len()), (200, 3));
    let (_, fra) = call(&api, "GET", &format!("{ROUTERS}?region=fra"), "").await;
    assert_eq!(fra[0]["id"], json!(routers[2].id));
    let (status, own) = call(&api, "GET", &format!("{ROUTERS}/{}", routers[0].id), "").await;
    assert_eq!(status, 200);
    assert_eq!((&own["state"], &own["region"]), (&json!("started"), &json!("iad")));
    assert_eq!(own["private_ip"], json!(format!("::ffff:{}", routers[0].address)));
    assert_eq!(own["instance_id"], json!(routers[0].version));
    assert_eq!(own["config"]["restart"]["policy"], json!("always"));
    assert_eq!(own["config"]["metadata"]["fly_process_group"], json!("app"));
    assert_eq!(own["checks"][0]["name"], json!("ready"));
    assert!(!own.to_string().contains(&net.keys().peers), "secrets are not shown");

    let gateway = machine(&net, "echo-gateway");
    let others = "/v1/apps/echo-gateway/machines";
    for path in [others.to_owned(), format!("{others}/{}", gateway.id)] {
        assert_eq!(call(&api, "GET", &path, "").await.0, 404);
    }
    let stop = format!("{others}/{}/stop", gateway.id);
    assert_eq!(call(&api, "POST", &stop, "").await.0, 404);
    let through = format!("{ROUTERS}/{}/stop", gateway.id);
    assert_eq!(call(&api, "POST", &through, "").await.0, 404, "its id under our name");
    assert_eq!(state(&net, &gateway.id), State::Started);
}

#[tokio::test]
async fn a_machine_starts_a_sibling_and_waits_for_it() {
    let root = temporary();
    let (net, routers) = siblings(root.path()).await;
    let api = socket(&routers[0]).await;
    let sibling = format!("{ROUTERS}/{}", routers[1].id);
    let resolver = names::resolver(&net);
    assert_eq!(names::aaaa(&resolver, "iad.echo-router.internal.").await.len(), 1);
    let late = call(&api, "GET", &format!("{sibling}/wait?state=started&timeout=0"), "").await;
    assert_eq!(late.0, 408);
    let (status, answer) = call(&api, "POST", &format!("{sibling}/start"), "").await;
    assert_eq!((status, &answer["previous_state"]), (200, &json!("stopped")));
    assert_eq!(names::aaaa(&resolver, "iad.echo-router.internal.").await.len(), 2);
    assert_eq!(call(&api, "GET", &format!("{sibling}/wait?state=started"), "").await.0, 200);
    net.ready(&routers[1].id, PATIENCE).await.unwrap();
    // once more changes nothing, nor does a stop of what is stopped
    let (status, answer) = call(&api, "POST", &format!("{sibling}/start"), "{}").await;
    assert_eq!((status, &answer["previous_state"]), (200, &json!("started")));
    let stopped = format!("{ROUTERS}/{}/stop", routers[2].id);
    assert_eq!(call(&api, "POST", &stopped, "").await.0, 200);
    let again = net.machines().into_iter().find(|machine| machine.id == routers[1].id).unwrap();
    assert_eq!(again.starts, 1);
    assert_eq!(call(&api, "POST", &format!("{sibling}/fork"), "").await.0, 404);
    assert_eq!(
        call(&api, "POST", &format!("{sibling}/stop"), "{\"signal\":\"SIGINT\"}").await.0,
        400
    );
}

#[tokio::test]
async fn a_machine_stops_and_suspends_itself() {
    let root = temporary();
    let (net, routers) = siblings(root.path()).await;
    let own = format!("{ROUTERS}/{}", routers[0].id);
    let api = socket(&routers[0]).await;
    assert_eq!(call(&api, "POST", &format!("{own}/suspend"), "").await.0, 200);
    assert_eq!(state(&net, &routers[0].id), State::Suspended);
    net.start_machines(&routers[0].id).await.unwrap();
    assert_eq!(call(&api, "POST", &format!("{own}/stop"), "").await.0, 200);
    let resolver = names::resolver(&net);
    assert!(names::aaaa(&resolver, "echo-router.internal.").await.is_empty(), "gone at once");
    eventually("stopped, whatever its policy says", async || {
        (state(&net, &routers[0].id) == State::Stopped).then_some(())
    })
    .await;
    let suspend = call(&api, "POST", &format!("{own}/suspend"), "").await;
    assert_eq!(suspend.0, 412, "{suspend:?}");
}

#[tokio::test]
async fn metadata_is_seen_in_dns_and_survives_a_deploy() {
    let root = temporary();
    let (net, routers) = siblings(root.path()).await;
    let api = socket(&routers[0]).await;
    let key = |key: &str| format!("{ROUTERS}/{}/metadata/{key}", routers[0].id);
    let resolver = names::resolver(&net);
    let ready = "1.ready.kv._metadata.echo-router.internal.";
    assert!(names::aaaa(&resolver, ready).await.is_empty());
    assert_eq!(call(&api, "POST", &key("ready"), "{\"value\":\"1\"}").await.0, 204);
    let own = [routers[0].address.to_ipv6_mapped()];
    assert_eq!(names::aaaa(&resolver, ready).await, own);
    let (_, found) = call(&api, "GET", &format!("{ROUTERS}?metadata.ready=1"), "").await;
    assert_eq!(found.as_array().unwrap().len(), 1);

    let refused = call(&api, "POST", &key("fly_release_id"), "{\"value\":\"1\"}").await;
    assert_eq!(refused.0, 400);
    assert_eq!(call(&api, "DELETE", &key("fly_process_group"), "").await.0, 400);

    net.deploy(
        &routers[0].id,
        flynet::Deploy { strategy: Some(flynet::Strategy::Immediate), ..flynet::Deploy::default() },
    )
    .await
    .unwrap();
    assert_eq!(names::aaaa(&resolver, ready).await, own);
    let (_, shown) = call(&api, "GET", key("").trim_end_matches('/'), "").await;
    assert_eq!(shown["fly_release_version"], json!("2"));
    net.set_metadata(&routers[0].id, "core", Some("1")).unwrap();
    let core = "1.core.kv._metadata.echo-router.internal.";
    assert_eq!(names::aaaa(&resolver, core).await, own);
    assert_eq!(call(&api, "DELETE", &key("ready"), "").await.0, 204);
    assert!(names::aaaa(&resolver, ready).await.is_empty());
}

#[tokio::test]
async fn a_cordoned_machine_is_hidden_from_the_proxy_and_listed_in_dns() {
    let root = temporary();
    let net = up(spec(root.path())).await;
    let gateway = machine(&net, "echo-gateway");
    let api = socket(&gateway).await;
    let own = format!("/v1/apps/echo-gateway/machines/{}", gateway.id);
    let url = format!("http://{}/readyz", net.edge().unwrap());
    assert_eq!(call(&api, "POST", &format!("{own}/cordon"), "").await.0, 200);
    assert!(super::get(&url).await.unwrap().contains("no machine"));
    let resolver = names::resolver(&net);
    assert_eq!(names::aaaa(&resolver, "echo-gateway.internal.").await.len(), 1);
    assert_eq!(call(&api, "POST", &format!("{own}/uncordon"), "").await.0, 200);
    assert_eq!(super::get(&url).await.unwrap(), "ready");
}

#[tokio::test]
async fn asking_too_often_is_refused_for_that_action_of_that_machine() {
    let root = temporary();
    let (_net, routers) = siblings(root.path()).await;
    let api = socket(&routers[0]).await;
    let start = |n: usize| format!("{ROUTERS}/{}/start", routers[n].id);
    let mut seen = Vec::new();
    for _ in 0..16 {
        seen.push(call(&api, "POST", &start(0), "").await.0);
    }
    assert_eq!(seen[..3], [200, 200, 200]);
    assert!(seen.contains(&429), "{seen:?}");
    assert_eq!(call(&api, "POST", &start(1), "").await.0, 200, "another machine");
    let look = format!("{ROUTERS}/{}", routers[0].id);
    for _ in 0..10 {
        assert_eq!(call(&api, "GET", &look, "").await.0, 200, "ten at once");
    }
}
