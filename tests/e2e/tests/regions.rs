//! Two regions: what is made at one is there at the other.

#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

use e2e::Mesh;
use skein_proto::agent::v1::{
    CreateRunRequest, GetRunRequest, Run, RunStatus, StreamEventsRequest, run_event::Body,
    stream_events_request::Of, stream_events_response::Item,
};
use skein_proto::model::v1::{
    ContentPart, EmbedInput, EmbedRequest, Message, Role, content_part::Part, embed_input::Input,
};
use std::{fs, time::Duration};
use tokio::time::Instant;

/// Ten times what is promised.
const KEY_BOUND: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_secs(30);

/// A gateway, a router and a model-proxy in `iad` and in `nrt`; `None` where
/// Postgres cannot be had. The provider is a fake.
async fn two_regions() -> Option<(Mesh, providers::openai::Fake)> {
    if !pg_test::is_available() {
        return None;
    }
    let fake = providers::openai::start().await.unwrap();
    let mesh = Mesh::with(|spec| {
        spec.across(&["iad".to_owned(), "nrt".to_owned()]);
        let provider =
            [("OPENAI_API_KEY", "sk-test-marker"), ("OPENAI_BASE_URL", fake.url.as_str())];
        let provider = provider.map(|(name, value)| (name.to_owned(), value.to_owned()));
        spec.app_mut("model-proxy").unwrap().secrets.extend(provider);
    });
    Some((mesh.await, fake))
}

fn ask(model: &str) -> CreateRunRequest {
    let part = ContentPart { part: Some(Part::Text("hello".to_owned())), ..ContentPart::default() };
    let input = Message { role: Role::User.into(), content: vec![part], ..Message::default() };
    CreateRunRequest { input: vec![input], model: model.to_owned(), ..CreateRunRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_made_at_one_gateway_works_at_the_other_within_a_second() {
    let Some((mesh, _fake)) = two_regions().await else { return };
    let made = mesh.skein_json(&["keys", "create", "--tenant", "acme", "--json"]);
    let (secret, begun) = (made["secret"].as_str().unwrap(), Instant::now());
    let client = e2e::client();
    let elsewhere = async || {
        let request = client.get(format!("{}/v1/models", mesh.url)).bearer_auth(secret);
        let request = request.header("fly-prefer-region", "nrt").send();
        request.await.unwrap().status()
    };
    while elsewhere().await != 200 {
        assert!(begun.elapsed() < KEY_BOUND, "the other gateway does not know the key");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("a new key worked at the other gateway after {} ms", begun.elapsed().as_millis());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_region_serves_its_own_callers() {
    let Some((mesh, _fake)) = two_regions().await else { return };
    for region in ["iad", "nrt"] {
        let request = EmbedRequest {
            model: "openai/text-embedding-3-small".to_owned(),
            inputs: vec![EmbedInput { input: Some(Input::Text("geese".to_owned())) }],
            ..EmbedRequest::default()
        };
        let embedded = mesh.caller(region, DEADLINE).await.models().embed(request).await.unwrap();
        assert_eq!(embedded.into_inner().region, region);
    }
    let databases = mesh.net.machines().into_iter().filter_map(|machine| {
        let directory = mesh.net.volume(&machine.id, "/data")?;
        Some((machine.app, fs::read_dir(directory).unwrap().count()))
    });
    for (app, files) in databases {
        assert_eq!(files > 0, app.ends_with("retrieval"), "{app} keeps {files} files of its own");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_outlives_the_router_that_made_it() {
    let Some((mesh, _fake)) = two_regions().await else { return };
    let caller = mesh.caller("iad", DEADLINE).await;
    let mut agents = caller.agents();
    let done = agents.create_run(ask("openai/gpt-4o-mini")).await.unwrap().into_inner().run;
    let done = ended(&caller, &done.unwrap().id).await;
    assert_eq!(done.status(), RunStatus::Completed);
    let open = agents.create_run(ask("openai/slow-20")).await.unwrap().into_inner().run;
    let open = open.unwrap().id;
    until_it_speaks(&caller, &open).await;

    let machines = mesh.net.machines();
    let router = |m: &&flynet::Listed| m.app.ends_with("-router") && m.region == "iad";
    let router = &machines.iter().find(router).unwrap().id;
    mesh.net.kill_machines(router).await.unwrap();

    let read = agents.get_run(GetRunRequest { id: done.id.clone() }).await.unwrap().into_inner();
    assert_eq!(read.run.unwrap(), done);
    let read = agents.get_run(GetRunRequest { id: open.clone() }).await.unwrap().into_inner();
    let read = read.run.unwrap();
    assert_eq!(read.status(), RunStatus::Running, "{read:?}");

    // back again, it ends what it had begun
    mesh.net.start_machines(router).await.unwrap();
    let read = ended(&caller, &open).await;
    assert_eq!(read.status(), RunStatus::Failed);
    assert_eq!(read.error.unwrap().reason, "INTERRUPTED");
}

/// The run once it has ended.
async fn ended(caller: &e2e::caller::Caller, id: &str) -> Run {
    let begun = Instant::now();
    loop {
        let request = GetRunRequest { id: id.to_owned() };
        let run = caller.agents().get_run(request).await.unwrap().into_inner().run.unwrap();
        if !matches!(run.status(), RunStatus::Queued | RunStatus::Running) {
            return run;
        }
        assert!(begun.elapsed() < DEADLINE, "{run:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_it_speaks(caller: &e2e::caller::Caller, id: &str) {
    let of = Some(Of::RunId(id.to_owned()));
    let request = StreamEventsRequest { of, live: true, ..StreamEventsRequest::default() };
    let mut events = caller.agents().stream_events(request).await.unwrap().into_inner();
    while let Some(answer) = events.message().await.unwrap() {
        if let Some(Item::Event(event)) = answer.item
            && matches!(event.body, Some(Body::ModelDelta(_)))
        {
            return;
        }
    }
    unreachable!("a live stream ended before the run spoke");
}
