//! Stock clients, unchanged, against the whole mesh.

#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

use e2e::{KEY, Mesh, PROVIDER_KEY, python};
use providers::replicate;
use std::time::Duration;
use tokio::time::Instant;

async fn mesh_with_provider() -> (Mesh, providers::openai::Fake) {
    let fake = providers::openai::start().await.unwrap();
    let mesh = Mesh::with(|spec| {
        let provider =
            [("OPENAI_API_KEY", "sk-test-marker"), ("OPENAI_BASE_URL", fake.url.as_str())];
        let provider = provider.map(|(name, value)| (name.to_owned(), value.to_owned()));
        spec.app_mut("model-proxy").unwrap().secrets.extend(provider);
    })
    .await;
    (mesh, fake)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_clients_work_unchanged() {
    let (mesh, _fake) = mesh_with_provider().await;
    let mesh = std::sync::Arc::new(mesh);
    for script in ["openai_client.py", "reflection_client.py", "grpc_stubs.py"] {
        let mesh = std::sync::Arc::clone(&mesh);
        tokio::task::spawn_blocking(move || python::run(&mesh, script)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_client_draws_with_both_providers() {
    let openai = providers::openai::start().await.unwrap();
    let predictions = replicate::start().await.unwrap();
    let mesh = Mesh::with(|spec| {
        let providers = [
            ("OPENAI_API_KEY", "sk-test-marker"),
            ("OPENAI_BASE_URL", openai.url.as_str()),
            ("REPLICATE_API_TOKEN", "r8_test-marker"),
            ("REPLICATE_BASE_URL", predictions.url.as_str()),
            ("SKEIN_PROVIDER__TRIES", "1"),
        ];
        let providers = providers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        spec.app_mut("model-proxy").unwrap().secrets.extend(providers);
    })
    .await;
    tokio::task::spawn_blocking(move || python::run(&mesh, "openai_images.py")).await.unwrap();
    let running = |id: &String| {
        let status = predictions.status(id).unwrap();
        !matches!(status, replicate::Status::Succeeded | replicate::Status::Failed)
    };
    assert!(!predictions.predictions().iter().any(running), "a prediction runs for nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_client_chats_with_every_provider() {
    let openai = providers::openai::start().await.unwrap();
    let anthropic = providers::anthropic::start().await.unwrap();
    let predictions = replicate::start().await.unwrap();
    let mesh = Mesh::with(|spec| {
        let variables = [
            ("OPENAI_API_KEY", "sk-fake"),
            ("OPENAI_BASE_URL", openai.url.as_str()),
            ("ANTHROPIC_API_KEY", "sk-ant-fake"),
            ("ANTHROPIC_BASE_URL", anthropic.url.as_str()),
            ("REPLICATE_API_TOKEN", "r8_fake"),
            ("REPLICATE_BASE_URL", predictions.url.as_str()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        spec.app_mut("model-proxy").unwrap().secrets.extend(variables);
    })
    .await;
    let run = move || python::run(&mesh, "providers_client.py");
    tokio::task::spawn_blocking(run).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_client_understands_its_limits() {
    let (mesh, _fake) = mesh_with_provider().await;
    let mesh = std::sync::Arc::new(mesh);
    let made = {
        let mesh = std::sync::Arc::clone(&mesh);
        let create = ["keys", "create", "--tenant", "dev", "--rpm", "3", "--concurrency", "2"];
        let create = move || mesh.skein_json(&[&create[..], &["--json"]].concat());
        tokio::task::spawn_blocking(create).await.unwrap()
    };
    assert_eq!(
        (&made["key"]["requests_per_minute"], &made["key"]["concurrency"]),
        (&3.into(), &2.into())
    );
    let secret = made["secret"].as_str().unwrap().to_owned();
    let script = move || python::run_as(&mesh, &secret, "limited_client.py");
    tokio::task::spawn_blocking(script).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_the_provider_and_no_key() {
    let (mesh, _fake) = mesh_with_provider().await;
    let shown = move || {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let status = mesh.skein_json(&["status", "--json"]);
            let machines = status["machines"].as_array().unwrap();
            let mut providers =
                machines.iter().filter_map(|machine| machine["providers"].as_array()).flatten();
            let openai = providers.find(|provider| provider["name"] == "openai").cloned();
            // Asked for its list of models at start, before anybody calls it.
            if openai.as_ref().is_some_and(|provider| provider["health"] == "up") {
                return (openai.unwrap(), mesh.skein(&["status"]));
            }
            assert!(Instant::now() < deadline, "{status:#}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let (openai, text) = tokio::task::spawn_blocking(shown).await.unwrap();
    assert_eq!(openai["keys"][0]["label"], "1");
    assert!(openai["probe_us"].as_u64().is_some(), "{openai:#}");
    assert!(text.lines().any(|line| line.starts_with("openai") && line.contains(" up ")), "{text}");
    assert!(!text.contains(PROVIDER_KEY) && !openai.to_string().contains(PROVIDER_KEY));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_aborts_the_provider_request() {
    let (mesh, fake) = mesh_with_provider().await;
    let body =
        r#"{"model":"openai/slow-20","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let request = e2e::client().post(format!("{}/v1/chat/completions", mesh.url));
    let request = request.bearer_auth(KEY).header("content-type", "application/json").body(body);
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    // Within a second, says the promise; ten times that is the bound.
    let log = fake.log_when(Duration::from_secs(10), |log| log.iter().any(|e| e.aborted)).await;
    assert!(log.iter().any(|entry| entry.aborted), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_a_clear_error_and_secrets_stay_out_of_the_logs() {
    let (mesh, _fake) = mesh_with_provider().await;
    let chat = "/v1/chat/completions";
    let secret = "the-prompt-nobody-may-log";
    let ok =
        format!(r#"{{"model":"openai/echo","messages":[{{"role":"user","content":"{secret}"}}]}}"#);
    assert_eq!(mesh.post(chat, Some(KEY), ok.clone().into_bytes()).await.0, 200);
    assert_eq!(mesh.post(chat, None, ok.clone().into_bytes()).await.0, 401);
    let big = vec![b'a'; 40 << 20];
    for (body, status, says) in [
        (r#"{"model":"openai/echo","messages":[]}"#.as_bytes().to_vec(), 400, "messages"),
        (ok.replace(secret, " ").into_bytes(), 400, "content"),
        (br#"{"model":"openai/echo","messages":"#.to_vec(), 400, "JSON"),
        (b"{\"model\":\"\xff\"}".to_vec(), 400, "unicode"),
        (ok.replace("openai/echo", "local/no-such-model").into_bytes(), 404, "no-such-model"),
        (ok.replacen('{', r#"{"max_tokens":-5,"#, 1).into_bytes(), 400, "max_tokens"),
        (big, 413, "32"),
    ] {
        let (got, text) = mesh.post(chat, Some(KEY), body).await;
        assert_eq!(got, status, "{text}");
        assert!(text.contains(says) && text.contains("\"error\""), "{says}: {text}");
    }
    assert_eq!(mesh.post("/v1/nothing", Some(KEY), b"{}".to_vec()).await.0, 404);
    assert_eq!(
        e2e::client().get(format!("{}{chat}", mesh.url)).send().await.unwrap().status(),
        405
    );
    let logs = mesh.logs();
    assert!(!logs.contains(secret) && !logs.contains(KEY), "a log tells a secret");
    assert!(mesh.net.machines().iter().all(|machine| machine.starts == 1), "a machine died");
}
