//! The official Python clients, unchanged, against the fakes.
//!
//! Invariants:
//! - What a client needs of its provider, the fake has.

#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

use providers::{Chunking, Fake, Reply, anthropic, openai, recordings, replicate};
use std::{path::Path, process::Command};

/// Runs a script of `python/`; `false`: there is no Python here.
async fn run(script: &'static str, variables: Vec<(&'static str, String)>) -> bool {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
    let running = move || {
        let requirements = scripts.join("requirements.txt");
        let Some(python) = python_env::interpreter("sdk-python", &requirements) else {
            python_env::skip();
            return false;
        };
        let mut command = Command::new(python);
        command.arg(scripts.join(script)).env("NO_PROXY", "*").envs(variables);
        python_env::succeed(&mut command);
        true
    };
    tokio::task::spawn_blocking(running).await.unwrap()
}

/// Has each recording of `folder` served whole, byte by byte and cut by chance;
/// gives the models' names.
fn replayed(fake: &Fake, folder: &str, ending: &str) -> Vec<String> {
    let files = recordings(folder, ending);
    let each = files.iter().map(|file| {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        for chunking in [Chunking::Whole, Chunking::EachByte, Chunking::Seeded(4)] {
            fake.replay(&name, std::fs::read(file).unwrap(), chunking);
        }
        name
    });
    each.collect()
}

#[tokio::test]
async fn openai_s_client_works_unchanged() {
    let fake = openai::start().await.unwrap();
    fake.script("limited-once", [Reply::status(429).retry_after("0.01")]);
    fake.script("reset-once", [Reply::reset()]);
    fake.endless("always-500", Reply::status(500).retry_after_ms("10"));
    fake.endless("do-not-retry", Reply::status(429).header("x-should-retry", "false"));
    fake.endless("long-wait", Reply::status(429).retry_after("121"));
    let mut recorded = replayed(&fake, "openai-chat-raw-sse", ".sse.txt");
    recorded.extend(replayed(&fake, "openai-chat", ".chunks.jsonl"));
    let variables = vec![
        ("OPENAI_BASE_URL", fake.url.clone()),
        ("OPENAI_API_KEY", "sk-test".to_owned()),
        ("RECORDED", recorded.join(",")),
    ];
    if run("openai_sdk.py", variables).await {
        let tries = ["limited-once", "reset-once", "always-500", "do-not-retry", "long-wait"]
            .map(|model| fake.tries(model));
        assert_eq!(tries, [2, 2, 3, 1, 1]);
    }
}

#[tokio::test]
async fn anthropic_s_client_works_unchanged() {
    let fake = anthropic::start().await.unwrap();
    let two = Reply::text("Both.").tool("weather", r#"{"city":"Oslo"}"#).tool("now", "{}");
    fake.script("two-tools", [two]);
    fake.script("overloaded-once", [Reply::status(529).retry_after("0.01")]);
    fake.endless("always-500", Reply::status(500).retry_after_ms("10"));
    let recorded = replayed(&fake, "anthropic", ".chunks.jsonl");
    let variables = vec![
        ("ANTHROPIC_BASE_URL", fake.url.clone()),
        ("ANTHROPIC_API_KEY", "sk-test".to_owned()),
        ("RECORDED", recorded.join(",")),
    ];
    if run("anthropic_sdk.py", variables).await {
        assert_eq!((fake.tries("overloaded-once"), fake.tries("always-500")), (2, 3));
    }
}

#[tokio::test]
async fn replicate_s_client_works_unchanged() {
    let (fake, forging) = (replicate::start().await.unwrap(), replicate::start().await.unwrap());
    forging.forge_webhooks(true);
    fake.script("/v1/hardware", [Reply::status(503), Reply::status(429).retry_after("0")]);
    fake.endless("acme/busy", Reply::status(503));
    let variables = vec![
        ("REPLICATE_BASE_URL", fake.url.clone()),
        ("REPLICATE_API_TOKEN", "r8_test".to_owned()),
        ("REPLICATE_POLL_INTERVAL", "0.02".to_owned()),
        ("FORGING_URL", forging.url.clone()),
    ];
    if run("replicate_sdk.py", variables).await {
        let reads = fake.log().iter().filter(|entry| entry.path == "/v1/hardware").count();
        assert_eq!((reads, fake.tries("acme/busy")), (3, 1));
    }
}
