//! Keys: made, used, revoked, refused; on both surfaces.

use crate::{
    client::{h1, h2, send},
    grpc::{admin, bearer},
    world::{self, ROOT, Running},
};
use http::Method;
use mesh::error;
use serde_json::json;
use skein_proto::admin::v1::{
    CreateKeyRequest, GetMeshStatusRequest, ListKeysRequest, RevokeKeyRequest, SetBudgetRequest,
};
use tonic::{Code, Request};

async fn status_with(running: &Running, authorization: &str) -> (u16, String, String) {
    let body =
        json!({"model": "hello", "messages": [{"role": "user", "content": "x"}]}).to_string();
    let headers = [("authorization", authorization)];
    let request = running.request(Method::POST, "/v1/chat/completions", &headers, body);
    let answer = send(&h1(), request).await;
    let challenge = answer.header("www-authenticate").to_owned();
    (answer.status.as_u16(), answer.text().to_owned(), challenge)
}

fn create(scopes: &[&str]) -> Request<CreateKeyRequest> {
    let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    bearer(ROOT, CreateKeyRequest { tenant: "beta".into(), scopes, ..CreateKeyRequest::default() })
}

#[tokio::test]
async fn a_key_works_at_once_and_not_once_revoked() {
    let running = world::start(&[]).await;
    let mut admin = admin(&running, h2());
    let created = admin.create_key(create(&[])).await.unwrap().into_inner();
    let key = created.key.unwrap();
    assert_eq!(key.scopes, ["model", "agent", "retrieval"]);
    assert!(created.secret.starts_with(&format!("sk-skein-{}-", key.id)));
    let authorization = format!("Bearer {}", created.secret);
    assert_eq!(status_with(&running, &authorization).await.0, 200);
    assert_eq!(&*running.seen.call.lock().unwrap().clone().unwrap().tenant, "beta");
    let listed = admin.list_keys(bearer(ROOT, ListKeysRequest { tenant: "beta".into() })).await;
    assert_eq!(listed.unwrap().into_inner().keys.len(), 1);
    let revoke = RevokeKeyRequest { id: key.id };
    let revoked = admin.revoke_key(bearer(ROOT, revoke.clone())).await.unwrap().into_inner();
    assert!(revoked.key.unwrap().revoked_at.is_some());
    let (status, body, _) = status_with(&running, &authorization).await;
    assert_eq!(status, 401);
    assert!(body.contains("revoked") && !body.contains(&created.secret), "{body}");
    assert!(admin.revoke_key(bearer(ROOT, revoke)).await.is_ok(), "idempotent");
    let unknown = RevokeKeyRequest { id: "nope".into() };
    assert_eq!(admin.revoke_key(bearer(ROOT, unknown)).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn unknown_and_wrong_keys_get_the_same_answer() {
    let running = world::start(&[]).await;
    let wrong = format!("Bearer {}x", &ROOT[..ROOT.len() - 1]);
    let (status, body, challenge) = status_with(&running, &wrong).await;
    assert_eq!((status, challenge.as_str()), (401, "Bearer realm=\"skein\""));
    assert!(body.contains("\"code\":\"invalid_api_key\""), "{body}");
    let unknown = status_with(&running, "Bearer sk-skein-abcdefghijkm-none").await;
    assert_eq!((unknown.0, &unknown.1), (401, &body));
    let missing = status_with(&running, "").await;
    assert_eq!(missing.0, 401);
    assert!(missing.1.contains("authorization: Bearer"), "{}", missing.1);
}

#[tokio::test]
async fn a_scope_is_needed_for_each_service() {
    let running = world::start(&[]).await;
    let mut client = admin(&running, h2());
    let secret = client.create_key(create(&["retrieval"])).await.unwrap().into_inner().secret;
    let (status, body, _) = status_with(&running, &format!("Bearer {secret}")).await;
    assert_eq!(status, 403);
    assert!(body.contains("\\\"model\\\""), "{body}");
    let denied = client.list_keys(bearer(&secret, ListKeysRequest::default())).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert_eq!(error::reason(&denied).as_deref(), Some("SCOPE_MISSING"));
    let denied = client.list_keys(ListKeysRequest::default()).await.unwrap_err();
    assert_eq!(denied.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn another_machines_change_arrives_by_itself() {
    let running = world::start(&[("SKEIN_GATEWAY__KEY_POLL", "10ms")]).await;
    let url = format!("sqlite:{}", running.data().join("gateway.db").display());
    let other = gateway::store::Store::open(&url).await.unwrap();
    let (id, secret) = gateway::keys::generate().unwrap();
    let key = gateway::keys::Key {
        hash: gateway::keys::hash(&secret),
        name: String::new(),
        tenant: "gamma".into(),
        principal: gateway::store::principal(&id),
        scopes: vec![gateway::keys::Scope::Model],
        allowance: gateway::limits::Allowance::default(),
        created: 1,
        expires: None,
        revoked: None,
        id,
    };
    other.insert(key).await.unwrap();
    let authorization = format!("Bearer {secret}");
    while status_with(&running, &authorization).await.0 != 200 {}
}

#[tokio::test]
async fn the_mesh_is_described_and_budgets_are_the_routers() {
    let running = world::start(&[]).await;
    let mut admin = admin(&running, h2());
    // The first call makes sure that the router is connected.
    assert_eq!(status_with(&running, &format!("Bearer {ROOT}")).await.0, 200);
    let asked = bearer(ROOT, GetMeshStatusRequest { settings: false });
    let machines = admin.get_mesh_status(asked).await.unwrap().into_inner().machines;
    let roles: Vec<_> = machines
        .iter()
        .filter(|machine| machine.error.is_empty())
        .map(|machine| machine.identity.clone().unwrap().role)
        .collect();
    assert_eq!(roles, ["gateway", "router"]);
    let budget = admin.set_budget(bearer(ROOT, SetBudgetRequest::default())).await.unwrap_err();
    assert_eq!(budget.code(), Code::Unimplemented, "the scripted router has no budgets");
}
