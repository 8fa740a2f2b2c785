//! Keys of providers are in nothing that leaves the process: neither in its log
//! at the most talkative level, with every span and its fields (what a collector
//! of traces would get), nor in metrics, statuses, lists and errors.
//!
//! A binary of its own, because a process has one log.
#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

use mesh::{
    Call, World,
    config::{Setting, Sources},
    keys, telemetry,
};
use model_proxy::Config;
use providers::{Failure, Fake, Reply, anthropic, openai, replicate};
use serde_json::json;
use skein_proto::{
    mesh::v1::{StatusRequest, peer_service_client::PeerServiceClient},
    model::v1::{
        ContentPart, EmbedInput, EmbedRequest, GenerateRequest, ListModelsRequest, Message, Role,
        content_part::Part, embed_input::Input, model_service_client::ModelServiceClient,
    },
};
use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};
use tracing_subscriber::fmt::{MakeWriter, format::FmtSpan};

/// In every key that any test of the workspace gives to a provider.
const MARK: &str = "test-marker";
const FIRST: &str = "sk-first-test-marker-wrong";
const SECOND: &str = "sk-second-test-marker";

/// Everything that was said.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Said {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Lines of `text` that tell a key.
fn leaks(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.contains(MARK)).collect()
}

/// What a provider may do to a call, and some of it with the key in its words.
fn misdeeds() -> Vec<Reply> {
    let echo = json!({"error": {"type": "x", "message": format!("bad key {FIRST} or {SECOND}")}});
    let mut all: Vec<_> = [400, 401, 403, 404, 429, 500].map(|s| Reply::json(s, &echo)).into();
    all.extend([408, 429, 500, 529].map(Reply::status));
    all.extend([
        Reply::html(502),
        Reply::reset(),
        Reply::close(),
        Reply::usual(),
        Reply::usual().error_after(1),
        Reply::usual().cut(1, providers::End::Reset),
        Reply::usual().insert(1, &b"data: {junk\n\n"[..]),
        Reply::failure(Failure::ContextLength),
        Reply::failure(Failure::Quota), // last: nothing is asked with an empty account
    ]);
    all
}

fn ask(model: String) -> GenerateRequest {
    let content =
        vec![ContentPart { part: Some(Part::Text("hi".to_owned())), ..ContentPart::default() }];
    GenerateRequest {
        model,
        messages: vec![Message { role: Role::User.into(), content, ..Message::default() }],
        ..GenerateRequest::default()
    }
}

fn call() -> Call {
    Call::new("acme", "key:test", Duration::from_secs(60))
}

fn configured(openai: &str, anthropic: &str, replicate: &str) -> (Config, Vec<Setting>) {
    let both = format!("{FIRST},{SECOND}");
    Config::read(&Sources::of(&[
        ("SKEIN_MESH_KEY", "unused"),
        ("SKEIN_MESH_PEERS", "unused"),
        ("SKEIN_PROVIDER__PROBE_INTERVAL", "100ms"),
        ("SKEIN_PROVIDER__TRIES", "2"),
        ("SKEIN_PROVIDER__LONGEST_WAIT", "1s"),
        ("OPENAI_API_KEY", &both),
        ("OPENAI_BASE_URL", openai),
        ("ANTHROPIC_API_KEY", &both),
        ("ANTHROPIC_BASE_URL", anthropic),
        ("REPLICATE_API_TOKEN", &both),
        ("REPLICATE_BASE_URL", replicate),
    ]))
    .unwrap()
}

/// All that a caller is told.
async fn told(models: &mut ModelServiceClient<mesh::Channel>, request: GenerateRequest) -> String {
    let mut stream = match models.generate(call().request(request)).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return format!("{status:?}\n"),
    };
    let mut out = String::new();
    loop {
        match stream.message().await {
            Ok(Some(event)) => out += &format!("{event:?}\n"),
            Ok(None) => return out,
            Err(status) => return out + &format!("{status:?}\n"),
        }
    }
}

#[tokio::test]
async fn a_key_is_never_told() {
    let said = Said::default();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::FULL)
        .with_writer(said.clone())
        .init();
    telemetry::prometheus();
    let replicate = replicate::start().await.unwrap();
    let (openai, anthropic) = (openai::start().await.unwrap(), anthropic::start().await.unwrap());
    let fakes: [(&str, &Fake); 3] =
        [("openai", &openai), ("anthropic", &anthropic), ("replicate", &replicate)];
    let (config, settings) = configured(&openai.url, &anthropic.url, &replicate.url);
    let mut out = format!("{settings:?}\n{config:?}\n");
    let keys = keys::generate(&["router", "model-proxy"]).unwrap();
    let world = World::local("model-proxy", &keys, &[]).await.unwrap();
    let (address, stop) = (world.addr().unwrap(), world.stop.clone());
    let server = tokio::spawn(async move { model_proxy::run(&config, world).await });
    let caller = World::local("router", &keys, &[("model-proxy", address)]).await.unwrap();
    let channel = caller.network.channel("model-proxy");
    let mut models = ModelServiceClient::new(channel.clone());
    for (provider, fake) in &fakes {
        for (at, reply) in misdeeds().into_iter().enumerate() {
            // Replicate's models have owners; a model each, as breakers are.
            let name = if *provider == "replicate" { format!("a/m{at}") } else { format!("m{at}") };
            fake.script(&name, [reply]);
            let request = ask(format!("{provider}/{name}"));
            out += &told(&mut models, request).await;
        }
    }
    let input = EmbedInput { input: Some(Input::Text("hi".to_owned())) };
    let request =
        EmbedRequest { model: "openai/e".into(), inputs: vec![input], ..EmbedRequest::default() };
    out += &format!("{:?}\n", models.embed(call().request(request)).await);
    out += &format!("{:?}\n", models.list_models(call().request(ListModelsRequest {})).await);
    let request = call().request(StatusRequest { settings: true, peers: true });
    out += &format!("{:?}\n", PeerServiceClient::new(channel).status(request).await);
    let metrics = telemetry::prometheus().unwrap().render();
    stop.cancel();
    server.await.unwrap().unwrap();

    let log = said.text();
    assert!(log.contains("a key is not used"), "the log is not complete");
    assert!(metrics.contains("skein_model_key_unused"), "the metrics are not complete");
    assert!(out.contains("***"), "no provider has told the key");
    for (what, text) in [("log", &log), ("answers", &out), ("metrics", &metrics)] {
        println!("{what}: {} bytes", text.len());
        assert_eq!(leaks(text), Vec::<&str>::new(), "in the {what}");
    }
}
