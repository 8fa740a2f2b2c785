//! `status`, `config`, `keys`, `mesh-keys` and `token`.

use super::{Fake, bare, end, fakes::KEY};
use mesh::{
    clock,
    config::Secret,
    keys::Keys,
    token::{self, LIFETIME},
};
use serde_json::json;

#[tokio::test]
async fn status_is_a_row_a_machine() {
    let fake = Fake::start().await;
    let ended = fake.skein(&["status"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let head: Vec<_> = ended.out.lines().take(1).flat_map(str::split_whitespace).collect();
    assert_eq!(head.join(" "), "app machine region ready rtt in flight uptime reasons");
    assert!(ended.out.contains("skein-router") && ended.out.contains("1.5 ms"), "{}", ended.out);
    assert!(ended.out.contains("1m 1s") && ended.out.contains("no retrieval"), "{}", ended.out);
    let machines = fake.skein(&["status", "--json"]).await.json();
    assert_eq!(machines["machines"][1]["degraded"], json!(["no retrieval"]));
    assert_eq!(machines["machines"][0]["ready"], true);
}

#[tokio::test]
async fn status_shows_each_provider_with_what_is_wrong() {
    let fake = Fake::start().await;
    let text = fake.skein(&["status"]).await.out;
    let row = text.lines().find(|line| line.starts_with("openai")).unwrap();
    let words: Vec<_> = row.split_whitespace().collect();
    assert_eq!(words[..8], ["openai", "m3", "degraded", "412", "ms", "-", "1", "of"], "{row}");
    assert!(row.contains("PROVIDER_OVERLOADED 3s ago") && row.contains("open for 12 s"), "{row}");
    let shown = fake.skein(&["status", "--json"]).await.json();
    let provider = &shown["machines"][2]["providers"][0];
    assert_eq!(provider["keys"][1]["refused"], "PROVIDER_QUOTA");
    assert_eq!((&provider["probe_us"], &provider["p50_us"]), (&json!(null), &json!(412_000)));
    assert_eq!(provider["breakers"][0]["state"], "open");
}

#[tokio::test]
async fn config_shows_where_each_value_came_from_and_no_secret() {
    let fake = Fake::start().await;
    let ended = fake.skein(&["config"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(
        ended.out.contains("SKEIN_URL") && ended.out.contains("SKEIN_API_KEY"),
        "{}",
        ended.out
    );
    assert!(ended.out.contains("SKEIN_BOOTSTRAP_KEY"), "{}", ended.out);
    assert!(!ended.out.contains(KEY), "{}", ended.out);
    let shown = fake.skein(&["config", "--json"]).await.json();
    assert_eq!(
        shown["cli"][1],
        json!({ "name": "api_key", "value": "***", "origin": "SKEIN_API_KEY" })
    );
    assert_eq!(shown["machines"][0]["settings"][0]["value"], "***");
}

#[tokio::test]
async fn config_works_while_the_mesh_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let ended = end(bare(&["config"], folder.path())).await;
    assert_eq!(ended.code, Some(3));
    assert!(ended.out.contains("http://127.0.0.1:8080"), "{}", ended.out);
}

#[tokio::test]
async fn keys_are_made_listed_and_revoked() {
    let fake = Fake::start().await;
    let create = [
        "keys",
        "create",
        "--tenant",
        "acme",
        "--scope",
        "model,agent",
        "--expires",
        "30d",
        "--rpm",
        "60",
    ];
    let ended = fake.skein(&create).await;
    assert_eq!((ended.code, ended.out.matches("sk-secret").count()), (Some(0), 1), "{}", ended.err);
    assert_eq!(fake.log(), ["create key ttl=2592000"]);
    let made = fake.skein(&[&create[..], &["--json"]].concat()).await.json();
    assert_eq!(
        (&made["secret"], &made["key"]["scopes"]),
        (&json!("sk-secret"), &json!(["model", "agent"]))
    );
    assert_eq!(made["key"]["requests_per_minute"], 60);
    let listed = fake.skein(&["keys", "list", "--tenant", "acme", "--json"]).await.json();
    assert_eq!(listed["keys"][0]["tenant"], "acme");
    assert_eq!(fake.skein(&["keys", "revoke", "key_1"]).await.out, "revoked key_1\n");
    let missing = fake.skein(&["keys", "revoke", "key_9"]).await;
    assert_eq!(
        (missing.code, missing.err.as_str()),
        (Some(1), "skein: revoke key key_9: no key key_9\n")
    );
}

#[tokio::test]
async fn a_token_is_what_the_audience_accepts() {
    let folder = tempfile::tempdir().unwrap();
    let made = end(bare(&["mesh-keys", "--json"], folder.path())).await.json();
    let own = made["secrets"]["gateway"].as_str().unwrap();
    let mut command = bare(&["token", "--audience", "router", "--tenant", "acme"], folder.path());
    command.env("SKEIN_MESH_KEY", own);
    let ended = end(command).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let router = Secret::new(made["secrets"]["router"].as_str().unwrap());
    let keys = Keys::parse("router", &router, made["peers"].as_str().unwrap()).unwrap();
    let now = clock::now_micros() / 1_000_000;
    let claims = token::check(&keys, ended.out.trim(), now).unwrap();
    assert_eq!((claims.issuer.as_str(), claims.audience.as_str()), ("gateway", "router"));
    assert_eq!(claims.tenant, "acme");
    assert!(claims.expires <= now + LIFETIME);
}

#[tokio::test]
async fn mesh_keys_come_with_the_commands_that_set_them() {
    let folder = tempfile::tempdir().unwrap();
    let ended = end(bare(&["mesh-keys", "--apps", "acme"], folder.path())).await;
    for role in ["gateway", "router", "model-proxy", "retrieval"] {
        let command = format!("fly secrets set --stage -a acme-{role} SKEIN_MESH_KEY='");
        assert!(ended.out.contains(&command), "{}", ended.out);
    }
    let one = end(bare(&["mesh-keys", "--role", "weather", "--json"], folder.path())).await.json();
    assert!(one["peers"].as_str().unwrap().starts_with("weather="));
}
