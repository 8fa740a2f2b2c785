//! The official Python client, unchanged. Skipped, visibly, where it is not
//! installed.

use crate::{
    limits,
    world::{self, ROOT},
};
use tokio::process::Command;

const SCRIPT: &str = r#"
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key=sys.argv[2], max_retries=0)
messages = [{"role": "user", "content": "hi"}]
answer = client.chat.completions.create(model="hello", messages=messages)
assert answer.choices[0].message.content == "Hello", answer
stream = client.chat.completions.create(
    model="hello", messages=messages, stream=True, stream_options={"include_usage": True})
chunks = list(stream)
assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello", chunks
assert chunks[-1].usage.total_tokens == 12, chunks[-1]
assert client.embeddings.create(model="m", input="a").data[0].embedding == [0.0, 0.5, -1.0]
assert [m.id for m in client.models.list()] == ["openai/gpt-x", "agent/default"]
for error, call in [
    (openai.BadRequestError, lambda: client.chat.completions.create(model="hello", messages=[])),
    (openai.NotFoundError, lambda: client.chat.completions.create(model="none", messages=messages)),
    (openai.RateLimitError, lambda: client.chat.completions.create(model="limited", messages=messages)),
    (openai.AuthenticationError,
     lambda: client.with_options(api_key="sk-wrong").models.list()),
    (openai.APIError, lambda: list(
        client.chat.completions.create(model="breaks", messages=messages, stream=True))),
]:
    try:
        call()
    except error:
        continue
    raise AssertionError(f"no {error}")
"#;

const LIMITED: &str = include_str!("../../../../tests/e2e/python/limited_client.py");

/// Runs `script` with the client, if it is installed.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
async fn python(script: &str, url: &str, key: &str) {
    let installed = Command::new("python3").args(["-c", "import openai"]).output().await;
    if !installed.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: python3 with the package `openai` is not installed");
        return;
    }
    let mut command = Command::new("python3");
    command.args(["-c", script, url, key]).env("SKEIN_URL", url).env("SKEIN_API_KEY", key);
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn the_official_python_client() {
    let running = world::start(&[]).await;
    python(SCRIPT, &running.uri(""), ROOT).await;
}

#[tokio::test]
async fn the_official_python_client_with_a_limited_key() {
    let running = world::start(&[]).await;
    let (_, secret) = limits::key(&running, 3, 0).await;
    python(LIMITED, &running.uri(""), &secret).await;
}
