//! The public edge: both protocols, streams, and clients that go away.

use super::{GATEWAY, PATIENCE, ask, client, eventually, get, machine, spec, temporary, up};
use bytes::Bytes;
use flynet::{Flynet, Listed, Spec, State};
use http::{Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use std::{collections::BTreeMap, fs, io, path::Path, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Whose gateway has more keys in its `[http_service]`.
fn gateway(root: &Path, keys: &str) -> Spec {
    let spec = spec(root);
    let keys = format!("internal_port = 8080\n{keys}");
    fs::write(&spec.apps[0].config, GATEWAY.replace("internal_port = 8080", &keys)).unwrap();
    spec
}

fn url(net: &Flynet, path: &str) -> String {
    format!("http://{}{path}", net.edge().unwrap())
}

async fn send(request: Request<Full<Bytes>>, http2: bool) -> Response<Incoming> {
    let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
    client.request(request).await.unwrap()
}

fn echo(net: &Flynet, body: &'static str) -> Request<Full<Bytes>> {
    let request = Request::post(url(net, "/echo?x=1"))
        .header("fly-client-ip", "6.6.6.6")
        .header("fly-made-up", "x")
        .header("te", "trailers")
        .header("x-mine", "kept");
    request.body(Full::from(body)).unwrap()
}

#[tokio::test]
async fn each_protocol_arrives_as_itself_with_flys_headers() {
    let root = temporary();
    let net = up(spec(root.path())).await;
    for (http2, version) in [(false, "HTTP/1.1"), (true, "HTTP/2.0")] {
        let response = send(echo(&net, "hello"), http2).await;
        let got = |name: &str| {
            let value = response.headers().get(format!("x-got-{name}"));
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(got("version").unwrap(), version);
        assert_eq!(got("fly-client-ip").unwrap(), "127.0.0.1");
        assert_eq!(got("fly-region").unwrap(), "iad");
        assert_eq!(got("x-mine").unwrap(), "kept");
        assert_eq!(got("fly-made-up"), None);
        assert!(got("via").unwrap().ends_with("fly.io"));
        let id = got("fly-request-id").unwrap();
        assert_eq!(response.headers()["fly-request-id"], id);
        assert!(response.headers().contains_key("via"));
        let body = response.into_body().collect().await.unwrap();
        if http2 {
            assert_eq!(body.trailers().unwrap()["x-echo-trailer"], "kept");
        }
        assert_eq!(body.to_bytes(), "hello");
    }
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let root = temporary();
    let net = up(spec(root.path())).await;
    let (say, said) = mpsc::channel::<Result<Frame<Bytes>, io::Error>>(1);
    let request =
        Request::post(url(&net, "/echo")).body(StreamBody::new(ReceiverStream::new(said)));
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let mut response = client.request(request.unwrap()).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    for word in ["one", "two", "three"] {
        say.send(Ok(Frame::data(Bytes::from_static(word.as_bytes())))).await.unwrap();
        let heard = response.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(heard, word);
    }
    drop(say);
    assert!(response.frame().await.unwrap().unwrap().is_trailers());
}

#[tokio::test]
async fn a_client_that_goes_takes_its_request_with_it() {
    let root = temporary();
    let net = up(spec(root.path())).await;
    let gateway = machine(&net, "echo-gateway");
    for http2 in [false, true] {
        let request = Request::get(url(&net, "/ticks")).body(Full::from("")).unwrap();
        let mut response = send(request, http2).await;
        response.frame().await.unwrap().unwrap();
        assert_eq!(ask(&gateway, "/open").await, "1");
        drop(response);
        eventually("the machine's stream closed", async || {
            (ask(&gateway, "/open").await == "0").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn without_a_machine_the_answer_says_so() {
    let root = temporary();
    let net = up(gateway(root.path(), "auto_start_machines = false")).await;
    let gateway = machine(&net, "echo-gateway");
    net.stop_machines("gateway").await.unwrap();
    let response = client().get(url(&net, "/").parse().unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body.starts_with(b"no machine of echo-gateway is free"));
    // and the pooled connections of before do no harm
    net.start_machines("gateway").await.unwrap();
    net.ready(&gateway.id, PATIENCE).await.unwrap();
    let response = client().get(url(&net, "/readyz").parse().unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_machine_that_does_not_listen_is_named() {
    let root = temporary();
    let mut spec = spec(root.path());
    spec.apps[0].env.insert("PORT".into(), "9".into());
    let net = Flynet::start(spec).await.unwrap();
    let gateway = machine(&net, "echo-gateway");
    let response = client().get(url(&net, "/").parse().unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body = String::from_utf8_lossy(&body);
    assert!(body.contains(&gateway.id) && body.contains("refused"), "{body}");
}

#[tokio::test]
async fn requests_go_to_the_preferred_region_and_the_least_loaded_machine() {
    let root = temporary();
    let mut spec = spec(root.path());
    spec.apps[0].placement = vec![("iad".into(), 2), ("fra".into(), 1)];
    let net = up(spec).await;
    let region = async |prefer: &str| {
        let request = Request::get(url(&net, "/env")).header("fly-prefer-region", prefer);
        let response = send(request.body(Full::from("")).unwrap(), false).await;
        let env = response.into_body().collect().await.unwrap().to_bytes();
        let env = String::from_utf8_lossy(&env).into_owned();
        env.split('\0')
            .find_map(|line| line.strip_prefix("FLY_REGION=").map(str::to_owned))
            .unwrap()
    };
    assert_eq!(region("fra").await, "fra");
    assert_eq!(region("syd").await, "iad");
    // four streams held open over two machines of iad: two each
    let mut held = Vec::new();
    for _ in 0..4 {
        let request = Request::get(url(&net, "/ticks")).body(Full::from("")).unwrap();
        let mut response = send(request, false).await;
        response.frame().await.unwrap().unwrap();
        held.push(response);
    }
    for machine in net.machines().iter().filter(|m| m.app == "echo-gateway") {
        let expected = if machine.region == "iad" { "2" } else { "0" };
        assert_eq!(ask(machine, "/open").await, expected);
    }
}

/// Opens a stream and gives its machine's region, or the refusal's status.
async fn stream(net: &Flynet, prefer: &str) -> (Response<Incoming>, StatusCode) {
    let request = Request::get(url(net, "/ticks")).header("fly-prefer-region", prefer);
    let mut response = send(request.body(Full::from("")).unwrap(), true).await;
    response.frame().await.unwrap().unwrap();
    let status = response.status();
    (response, status)
}

/// How many streams each region's gateways have open.
async fn open(net: &Flynet) -> BTreeMap<String, usize> {
    let mut open = BTreeMap::new();
    for machine in net.machines().iter().filter(|m| m.app == "echo-gateway" && m.pid.is_some()) {
        let here: usize = ask(machine, "/open").await.parse().unwrap();
        *open.entry(machine.region.clone()).or_default() += here;
    }
    open
}

fn gateways(net: &Flynet, state: State) -> Vec<Listed> {
    let all = net.machines().into_iter();
    all.filter(|machine| machine.app == "echo-gateway" && machine.state == state).collect()
}

#[tokio::test]
async fn only_the_hard_limit_sends_traffic_to_another_region() {
    let root = temporary();
    let limits = "[http_service.concurrency]\ntype = \"requests\"\nsoft_limit = 1\nhard_limit = 2";
    let mut spec = gateway(root.path(), limits);
    spec.apps[0].placement = vec![("iad".into(), 1), ("nrt".into(), 1)];
    let net = up(spec).await;
    let mut held = Vec::new();
    for (iad, nrt) in [(1, 0), (2, 0), (2, 1), (2, 2)] {
        let (response, status) = stream(&net, "").await;
        assert_eq!(status, StatusCode::OK);
        held.push(response);
        let expected = [("iad".to_owned(), iad), ("nrt".to_owned(), nrt)];
        assert_eq!(open(&net).await, BTreeMap::from(expected));
    }
    // above all limits a request waits, and is refused
    let (refused, status) = stream(&net, "").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    drop(refused);
    // or gets the place of one that ends while it waits
    let waiting = stream(&net, "");
    let ending = async { drop(held.pop()) };
    let ((_served, status), ()) = tokio::join!(waiting, ending);
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_service_of_connections_counts_them_and_not_their_requests() {
    let root = temporary();
    let limits = "[http_service.concurrency]\nsoft_limit = 1\nhard_limit = 1";
    let net = up(gateway(root.path(), limits)).await;
    let one = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let mut held = Vec::new();
    for _ in 0..5 {
        let body: Full<Bytes> = Full::from("");
        let request = Request::get(url(&net, "/ticks")).body(body).unwrap();
        let mut response: Response<Incoming> = one.request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.frame().await.unwrap().unwrap();
        held.push(response);
    }
    let (_refused, status) = stream(&net, "").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_machine_that_refuses_costs_a_try_and_not_the_request() {
    let root = temporary();
    let mut spec = spec(root.path());
    spec.intervals.boot = Some(Duration::from_secs(1));
    let net = up(spec).await;
    // for a second it is started and refuses connections
    net.scale("gateway", "iad", 2).await.unwrap();
    for _ in 0..20 {
        let request = Request::post(url(&net, "/echo")).body(Full::from("kept whole")).unwrap();
        let response = send(request, false).await;
        assert_eq!(response.status(), StatusCode::OK);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "kept whole");
    }
}

#[tokio::test]
async fn a_stopped_machine_is_woken_and_the_request_waits_for_it() {
    let root = temporary();
    let mut spec = spec(root.path());
    spec.intervals.proxy_queue = Some(PATIENCE);
    let net = up(spec).await;
    net.stop_machines("gateway").await.unwrap();
    let request = Request::post(url(&net, "/echo")).body(Full::from("early")).unwrap();
    let response = send(request, true).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "early");
    assert_eq!(gateways(&net, State::Started).len(), 1);
}

#[tokio::test]
async fn load_above_the_soft_limit_wakes_and_the_loop_stops_again() {
    let root = temporary();
    let keys = "auto_stop_machines = \"stop\"\nmin_machines_running = 1\n\
                [http_service.concurrency]\ntype = \"requests\"\nsoft_limit = 1";
    let mut spec = gateway(root.path(), keys);
    spec.apps[0].placement = vec![("iad".into(), 1), ("nrt".into(), 1)];
    spec.apps[0].stopped = vec![("iad".into(), 2)];
    spec.intervals.speed = Some(100);
    spec.intervals.autostop = Some(Duration::from_millis(100));
    // nrt may be stopped before it was ever ready
    let net = Flynet::start(spec).await.unwrap();
    let iad = net.machines().into_iter().find(|m| m.region == "iad" && m.state == State::Started);
    net.ready(&iad.unwrap().id, PATIENCE).await.unwrap();
    let (_one, _) = stream(&net, "").await;
    let running =
        |region: &str| gateways(&net, State::Started).iter().filter(|m| m.region == region).count();
    // the primary region keeps one; elsewhere an idle machine goes
    eventually("nrt idle and stopped", async || (running("nrt") == 0).then_some(())).await;
    assert_eq!(running("iad"), 1);
    let (_two, _) = stream(&net, "").await;
    eventually("a second machine", async || (running("iad") == 2).then_some(())).await;
    drop((_one, _two));
    eventually("one machine again", async || (running("iad") == 1).then_some(())).await;
    let (_three, status) = stream(&net, "nrt").await;
    assert_eq!(status, StatusCode::OK, "iad answers while nrt is woken");
    // the loop may have stopped it again by now
    let nrt = || net.machines().into_iter().find(|m| m.region == "nrt").unwrap();
    eventually("nrt woken", async || (nrt().starts == 2).then_some(())).await;
}

#[tokio::test]
async fn a_suspending_service_keeps_the_process() {
    let root = temporary();
    let mut spec = gateway(root.path(), "auto_stop_machines = \"suspend\"");
    spec.intervals.speed = Some(100);
    spec.intervals.autostop = Some(Duration::from_millis(100));
    spec.intervals.proxy_queue = Some(PATIENCE);
    // it may be suspended before it was ever ready
    let net = Flynet::start(spec).await.unwrap();
    let before = eventually("suspended", async || gateways(&net, State::Suspended).pop()).await;
    assert_eq!(get(&url(&net, "/starts")).await.unwrap(), "here=1 volume=2");
    assert_eq!(machine(&net, "echo-gateway").pid, before.pid);
}

#[tokio::test]
async fn a_connection_is_cut_when_the_proxy_has_had_it_long_enough() {
    let root = temporary();
    let mut spec = spec(root.path());
    spec.intervals.proxy_cut = Some(Duration::from_millis(300));
    let net = up(spec).await;
    let begun = tokio::time::Instant::now();
    let (response, _) = stream(&net, "").await;
    let cut = tokio::time::timeout(PATIENCE, response.into_body().collect()).await.unwrap();
    assert!(cut.is_err(), "an open stream does not end cleanly");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let gateway = machine(&net, "echo-gateway");
    eventually("no stream left", async || (ask(&gateway, "/open").await == "0").then_some(()))
        .await;
}

#[tokio::test]
async fn silence_is_cut_after_the_idle_timeout() {
    let root = temporary();
    let spec = spec(root.path());
    let options = "h2_backend = true\nidle_timeout = 1";
    fs::write(&spec.apps[0].config, GATEWAY.replace("h2_backend = true", options)).unwrap();
    let net = up(spec).await;
    // a tick every 10 ms keeps it open; a request that is never finished does not
    let (mut ticking, _) = stream(&net, "").await;
    let (say, said) = mpsc::channel::<Result<Frame<Bytes>, io::Error>>(1);
    let request =
        Request::post(url(&net, "/echo")).body(StreamBody::new(ReceiverStream::new(said)));
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let silent: Response<Incoming> = client.request(request.unwrap()).await.unwrap();
    let cut = tokio::time::timeout(PATIENCE, silent.into_body().collect()).await.unwrap();
    assert!(cut.is_err(), "silence was not cut");
    drop(say);
    assert!(ticking.frame().await.unwrap().is_ok());
}

#[tokio::test]
async fn a_machine_that_is_stopping_gets_no_new_requests() {
    let root = temporary();
    let mut spec = spec(root.path());
    spec.apps[0].placement = vec![("iad".into(), 2)];
    spec.apps[0].env.insert("ECHO_STUBBORN".into(), "1".into());
    let net = up(spec).await;
    let leaving = gateways(&net, State::Started).remove(0);
    let stopping = net.stop_machines(&leaving.id);
    let asking = async {
        eventually("stopping", async || gateways(&net, State::Stopping).pop()).await;
        for _ in 0..20 {
            assert!(!get(&url(&net, "/env")).await.unwrap().contains(&leaving.id));
        }
    };
    let (stopped, ()) = tokio::join!(stopping, asking);
    stopped.unwrap();
}

#[tokio::test]
async fn without_h2_backend_the_app_is_spoken_to_in_http_1() {
    let root = temporary();
    let spec = spec(root.path());
    fs::write(&spec.apps[0].config, GATEWAY.replace("h2_backend = true", "")).unwrap();
    let net = up(spec).await;
    let response = send(echo(&net, "hello"), true).await;
    assert_eq!(response.headers()["x-got-version"], "HTTP/1.1");
}
