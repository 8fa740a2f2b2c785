//! The public edge: both protocols, streams, and clients that go away.

use super::{ask, client, eventually, machine, spec, temporary, up};
use bytes::Bytes;
use flynet::Flynet;
use http::{Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use std::io;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

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
    let net = up(spec(root.path())).await;
    let gateway = machine(&net, "echo-gateway");
    net.stop_machines("gateway").await.unwrap();
    let response = client().get(url(&net, "/").parse().unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body.starts_with(b"no machine of the app is started"));
    // and the pooled connections of before do no harm
    net.start_machines("gateway").await.unwrap();
    net.ready(&gateway.id, super::PATIENCE).await.unwrap();
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
