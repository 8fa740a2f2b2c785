//! Several keys of one provider, and what happens when one of them fails.

use crate::proxy::{PROBES, Proxy, ask, collect};
use mesh::error;
use providers::{Failure, Fake, Reply, openai};
use skein_proto::{
    mesh::v1::{BreakerState, MachineStatus},
    model::v1::ModelHealth,
};
use std::{collections::BTreeMap, time::Duration};
use tokio::net::TcpListener;
use tonic::Code;

const ONE: &str = "sk-test-marker-one";
const TWO: &str = "sk-test-marker-two";

async fn start(more: &[(&str, &str)]) -> (Fake, Proxy) {
    let fake = openai::start().await.unwrap();
    let keys = format!("{ONE}, {TWO}");
    let mut variables = vec![("OPENAI_BASE_URL", fake.url.as_str()), ("OPENAI_API_KEY", &keys)];
    variables.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
    variables.extend_from_slice(more);
    let proxy = Proxy::start(&variables).await;
    (fake, proxy)
}

/// How often each key was used, by the log's name of it.
fn used(fake: &Fake) -> BTreeMap<String, usize> {
    let mut used = BTreeMap::new();
    for entry in fake.log() {
        *used.entry(entry.key.clone().unwrap_or_default()).or_default() += 1;
    }
    used
}

fn by(key: &str, times: usize) -> (String, usize) {
    (providers::key_name(key), times)
}

async fn call(proxy: &Proxy, model: &str) -> Result<(), String> {
    let answer = collect(proxy, ask(&format!("openai/{model}"), "hi")).await;
    answer.map(drop).map_err(|failed| error::reason(&failed.status).unwrap_or_default())
}

#[tokio::test]
async fn a_key_at_its_limit_leaves_its_calls_to_the_other() {
    let (fake, proxy) = start(&[]).await;
    fake.quota(ONE, 3);
    for _ in 0..20 {
        call(&proxy, "m").await.unwrap();
    }
    let used = used(&fake);
    // Its last answer said that nothing is left.
    assert!(used[&by(ONE, 0).0] <= 4, "{used:?}");
    assert!(used.values().sum::<usize>() <= 21, "{used:?}");
}

#[tokio::test]
async fn a_revoked_key_is_tried_once() {
    let (fake, proxy) =
        start(&[("OPENAI_API_KEY", "sk-test-marker-wrong,sk-test-marker-two")]).await;
    for model in ["a", "b", "c", "d", "e", "f"] {
        call(&proxy, model).await.unwrap();
    }
    assert_eq!(used(&fake), [by("sk-test-marker-wrong", 1), by(TWO, 6)].into());
    let status = proxy.status().await;
    let key = &status.providers[0].keys[0];
    assert_eq!((key.label.as_str(), key.refused.as_str()), ("1", "PROVIDER_UNAUTHENTICATED"));
    assert!(!format!("{status:?}").contains("marker"), "a key is in the status");
}

#[tokio::test]
async fn an_empty_account_is_not_asked_again() {
    let (fake, proxy) = start(&[("OPENAI_API_KEY", ONE)]).await;
    fake.script("m", [Reply::failure(Failure::Quota)]);
    assert_eq!(call(&proxy, "m").await.unwrap_err(), "PROVIDER_QUOTA");
    assert_eq!(call(&proxy, "n").await.unwrap_err(), "PROVIDER_QUOTA");
    assert_eq!(fake.log().len(), 1);
}

#[tokio::test]
async fn a_breaker_opens_lets_one_call_probe_and_closes() {
    let (fake, proxy) =
        start(&[("OPENAI_API_KEY", ONE), ("SKEIN_PROVIDER__TRIES", "1"), REST]).await;
    fake.script("m", [500; 5].map(Reply::status));
    for _ in 0..5 {
        assert_eq!(call(&proxy, "m").await.unwrap_err(), "PROVIDER_UNAVAILABLE");
    }
    let (health, reason) = proxy.health("openai/gpt-4o-mini").await;
    assert_eq!((health, reason.as_str()), (ModelHealth::Up, ""), "another model's matter");
    let breaker = proxy.status().await.providers[0].breakers[0].clone();
    assert_eq!((breaker.state(), breaker.failures), (BreakerState::Open, 5));
    // The only key is never shut out: the call is the last resort, and it works.
    call(&proxy, "m").await.unwrap();
    assert_eq!(proxy.status().await.providers[0].breakers, []);
}

const REST: (&str, &str) = ("SKEIN_PROVIDER__BREAKER_REST", "300ms");

#[tokio::test]
async fn one_of_two_keys_probes_a_model_that_failed_with_both() {
    let (fake, proxy) = start(&[("SKEIN_PROVIDER__TRIES", "1"), REST]).await;
    fake.endless("m", Reply::status(500));
    for _ in 0..12 {
        assert_eq!(call(&proxy, "m").await.unwrap_err(), "PROVIDER_UNAVAILABLE");
    }
    assert_eq!(fake.tries("m"), 12, "there is always a way");
    assert_eq!(proxy.status().await.providers[0].breakers.len(), 2);
    fake.clear_scripts();
    fake.endless("m", Reply::usual().late_first(Duration::from_millis(300)));
    tokio::time::sleep(Duration::from_millis(700)).await; // the rest of both is over
    let (one, two, three) = tokio::join!(call(&proxy, "m"), call(&proxy, "m"), call(&proxy, "m"));
    assert_eq!((one, two, three), (Ok(()), Ok(()), Ok(())));
    assert_eq!(proxy.status().await.providers[0].breakers, [], "both work again");
}

#[tokio::test]
async fn while_all_fail_a_call_is_tried_once() {
    let (fake, proxy) = start(&[("OPENAI_API_KEY", ONE)]).await;
    fake.endless("m", Reply::status(500));
    for _ in 0..4 {
        call(&proxy, "m").await.unwrap_err();
    }
    // Five failures opened it: two calls with all their tries, or a little more.
    let before = fake.tries("m");
    call(&proxy, "m").await.unwrap_err();
    assert_eq!(fake.tries("m"), before + 1);
}

#[tokio::test]
async fn a_provider_that_is_away_is_shown_and_takes_no_readiness() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", gone.local_addr().unwrap());
    drop(gone);
    let proxy =
        Proxy::start(&[("OPENAI_BASE_URL", &url), ("OPENAI_API_KEY", ONE), (PROBES, "50ms")]).await;
    let status = proxy.status_when(|status| !status.degraded.is_empty()).await;
    assert!(status.ready);
    assert_eq!(status.degraded, ["provider openai does not answer (PROVIDER_UNREACHABLE)"]);
    assert_eq!(status.providers[0].health(), ModelHealth::Down);
    // It has the models that there are prices for.
    let (health, reason) = proxy.health("openai/gpt-4o-mini").await;
    assert_eq!(health, ModelHealth::Down);
    assert_eq!(reason, "does not answer (PROVIDER_UNREACHABLE)");
}

#[tokio::test]
async fn probes_find_a_revoked_key_before_a_caller_does_and_cost_nothing() {
    let keys = "sk-test-marker-wrong,sk-test-marker-two";
    let (fake, proxy) = start(&[("OPENAI_API_KEY", keys), (PROBES, "50ms")]).await;
    let refused =
        |status: &MachineStatus| status.providers[0].keys.iter().any(|key| !key.refused.is_empty());
    let status = proxy.status_when(refused).await;
    assert_eq!(status.providers[0].keys[1].refused, "");
    assert_eq!(status.in_flight, 0);
    call(&proxy, "m").await.unwrap();
    let log = fake.log();
    let calls: Vec<_> = log.iter().filter(|entry| entry.path != "/v1/models").collect();
    assert_eq!(calls.len(), 1, "nothing else was asked");
    assert_eq!(calls[0].key, Some(providers::key_name(TWO)));
}

#[tokio::test]
async fn a_named_model_is_made_to_say_one_token() {
    let (fake, proxy) = start(&[
        ("OPENAI_API_KEY", ONE),
        (PROBES, "50ms"),
        ("SKEIN_PROVIDER__PROBE_MODELS", "openai/gpt-4o-mini"),
    ])
    .await;
    let spoke = |status: &MachineStatus| status.providers[0].p50_us > 0;
    let status = proxy.status_when(spoke).await;
    assert_eq!(status.providers[0].health(), ModelHealth::Up);
    let log = fake.log();
    let call = log.iter().find(|entry| entry.path != "/v1/models").unwrap();
    assert_eq!((call.model.as_str(), &call.request["max_tokens"]), ("gpt-4o-mini", &1.into()));
}

#[tokio::test]
async fn a_provider_without_a_list_hides_no_other() {
    let (silent, fake) = (openai::start().await.unwrap(), openai::start().await.unwrap());
    silent.endless("/v1/models", Reply::silence());
    let proxy = Proxy::start(&[
        ("OPENAI_BASE_URL", &silent.url),
        ("OPENAI_API_KEY", ONE),
        ("SKEIN_OPENAI__TOTAL_TIMEOUT", "200ms"),
        ("GROQ_BASE_URL", &fake.url),
        ("GROQ_API_KEY", TWO),
    ])
    .await;
    let models = proxy.models().await;
    assert!(models.iter().any(|model| model.id.ends_with("/slow-20")), "{models:#?}");
    let priced = models.iter().find(|model| model.id == "openai/gpt-4o-mini").unwrap();
    assert!(priced.price.is_some() && priced.health() == ModelHealth::Down, "{priced:?}");
    let status = proxy.generate(ask("nobody/x", "hi")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}
