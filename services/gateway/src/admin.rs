//! `AdminService`: keys are kept here; budgets and usage are the router's.
//!
//! The admin scope is the operator's: it reaches every tenant.
//!
//! Invariants:
//! - A secret is in the answer to its `CreateKey` and nowhere else.
//! - A number that cannot be meant is refused naming its field.

use crate::{
    gateway::Gateway,
    keys::{self, Key, Scope},
    limits::Allowance,
    store::principal,
};
use mesh::{
    Call, Channel, clock,
    error::{self, Kind},
};
use prost_types::Timestamp;
use skein_proto::{
    admin::v1::{
        self, admin_service_client::AdminServiceClient, admin_service_server::AdminService,
    },
    mesh::v1::StatusRequest,
};
use tonic::{Request, Response, Status};

pub const TENANT_RULE: &str = "must be 1 to 63 of a-z 0-9 - _";
const DEFAULT_SCOPES: [Scope; 3] = [Scope::Model, Scope::Agent, Scope::Retrieval];
const LONGEST_NAME: usize = 128;
const LONGEST_TTL: i64 = 100 * 366 * 86_400;

pub struct Admin(Gateway);

impl Admin {
    pub const fn new(gateway: Gateway) -> Self {
        Self(gateway)
    }

    fn router(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.0.router.clone())
    }
}

pub fn is_tenant(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
}

fn checked(request: &v1::CreateKeyRequest) -> Result<Vec<Scope>, Status> {
    if !is_tenant(&request.tenant) {
        return Err(error::invalid("tenant", format!("{TENANT_RULE}, is {:?}", request.tenant)));
    }
    if request.name.len() > LONGEST_NAME || request.name.chars().any(char::is_control) {
        let rule = format!("must be at most {LONGEST_NAME} bytes without control characters");
        return Err(error::invalid("name", rule));
    }
    for (field, number) in [
        ("ttl_seconds", request.ttl_seconds),
        ("requests_per_minute", request.requests_per_minute),
        ("concurrency", request.concurrency),
    ] {
        if number < 0 {
            return Err(error::invalid(field, format!("must not be negative, is {number}")));
        }
    }
    if request.ttl_seconds > LONGEST_TTL {
        let rule = format!(
            "must be at most {LONGEST_TTL} (a hundred years), is {}; 0 never expires",
            request.ttl_seconds
        );
        return Err(error::invalid("ttl_seconds", rule));
    }
    if request.scopes.is_empty() {
        return Ok(DEFAULT_SCOPES.to_vec());
    }
    let scope = |name: &String| {
        Scope::parse(name).ok_or_else(|| {
            error::invalid(
                "scopes",
                format!("{name:?} is not one of model, agent, retrieval, admin"),
            )
        })
    };
    let mut scopes = request.scopes.iter().map(scope).collect::<Result<Vec<_>, _>>()?;
    scopes.dedup();
    Ok(scopes)
}

fn timestamp(micros: i64) -> Timestamp {
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or_default();
    Timestamp { seconds: micros.div_euclid(1_000_000), nanos }
}

fn to_wire(key: &Key) -> v1::Key {
    v1::Key {
        id: key.id.clone(),
        name: key.name.clone(),
        tenant: key.tenant.to_string(),
        scopes: key.scopes.iter().map(|scope| scope.name().to_owned()).collect(),
        created_at: Some(timestamp(key.created)),
        expires_at: key.expires.map(timestamp),
        revoked_at: key.revoked.map(timestamp),
        requests_per_minute: key.allowance.per_minute.cast_signed(),
        concurrency: key.allowance.concurrency.cast_signed(),
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn create_key(
        &self,
        request: Request<v1::CreateKeyRequest>,
    ) -> Result<Response<v1::CreateKeyResponse>, Status> {
        let request = request.into_inner();
        let scopes = checked(&request)?;
        let (id, secret) = keys::generate().map_err(|error| {
            let message = format!("no random numbers: {error}");
            error::status(Kind::Unavailable, None, None, message)
        })?;
        let created = clock::now_micros();
        let expires = (request.ttl_seconds > 0)
            .then(|| created.saturating_add(request.ttl_seconds.saturating_mul(1_000_000)));
        let key = Key {
            hash: keys::hash(&secret),
            name: request.name,
            tenant: request.tenant.into(),
            principal: principal(&id),
            scopes,
            allowance: Allowance {
                per_minute: request.requests_per_minute.unsigned_abs(),
                concurrency: request.concurrency.unsigned_abs(),
            },
            created,
            expires,
            revoked: None,
            id,
        };
        let shown = to_wire(&key);
        self.0.store.insert(key).await.map_err(|error| error::to_status(&error))?;
        tracing::info!(key = shown.id, tenant = shown.tenant, "API key created");
        Ok(Response::new(v1::CreateKeyResponse { key: Some(shown), secret }))
    }

    async fn list_keys(
        &self,
        request: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysResponse>, Status> {
        let tenant = request.into_inner().tenant;
        let keys = self.0.store.list().await.map_err(|error| error::to_status(&error))?;
        let wanted = keys.iter().filter(|key| tenant.is_empty() || *key.tenant == tenant);
        Ok(Response::new(v1::ListKeysResponse { keys: wanted.map(to_wire).collect() }))
    }

    async fn revoke_key(
        &self,
        request: Request<v1::RevokeKeyRequest>,
    ) -> Result<Response<v1::RevokeKeyResponse>, Status> {
        let id = request.into_inner().id;
        let revoked = self.0.store.revoke(id.clone()).await;
        let Some(key) = revoked.map_err(|error| error::to_status(&error))? else {
            let message = format!("there is no key with the id {id:?}");
            return Err(error::status(Kind::NotFound, Some("KEY_NOT_FOUND"), Some("id"), message));
        };
        tracing::info!(key = key.id, tenant = %key.tenant, "API key revoked");
        Ok(Response::new(v1::RevokeKeyResponse { key: Some(to_wire(&key)) }))
    }

    async fn get_mesh_status(
        &self,
        request: Request<v1::GetMeshStatusRequest>,
    ) -> Result<Response<v1::GetMeshStatusResponse>, Status> {
        let call = Call::of(&request)?;
        let asked = StatusRequest { settings: request.into_inner().settings, peers: true };
        let machines = self.0.peer.mesh_status(&call, asked).await;
        Ok(Response::new(v1::GetMeshStatusResponse { machines }))
    }

    async fn set_budget(
        &self,
        request: Request<v1::SetBudgetRequest>,
    ) -> Result<Response<v1::SetBudgetResponse>, Status> {
        let call = Call::of(&request)?;
        self.router().set_budget(call.request(request.into_inner())).await
    }

    async fn list_budgets(
        &self,
        request: Request<v1::ListBudgetsRequest>,
    ) -> Result<Response<v1::ListBudgetsResponse>, Status> {
        let call = Call::of(&request)?;
        self.router().list_budgets(call.request(request.into_inner())).await
    }

    async fn get_usage(
        &self,
        request: Request<v1::GetUsageRequest>,
    ) -> Result<Response<v1::GetUsageResponse>, Status> {
        let call = Call::of(&request)?;
        self.router().get_usage(call.request(request.into_inner())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_key_request_is_refused_naming_the_field() {
        let good = v1::CreateKeyRequest { tenant: "acme".into(), ..Default::default() };
        assert_eq!(checked(&good).unwrap(), DEFAULT_SCOPES);
        for (request, field) in [
            (v1::CreateKeyRequest { tenant: "A/B".into(), ..good.clone() }, "tenant"),
            (v1::CreateKeyRequest { tenant: String::new(), ..good.clone() }, "tenant"),
            (v1::CreateKeyRequest { name: "a\nb".into(), ..good.clone() }, "name"),
            (v1::CreateKeyRequest { ttl_seconds: -1, ..good.clone() }, "ttl_seconds"),
            (v1::CreateKeyRequest { ttl_seconds: i64::MAX, ..good.clone() }, "ttl_seconds"),
            (v1::CreateKeyRequest { concurrency: -1, ..good.clone() }, "concurrency"),
            (v1::CreateKeyRequest { scopes: vec!["root".into()], ..good }, "scopes"),
        ] {
            let status = checked(&request).unwrap_err();
            assert_eq!(error::field(&status).as_deref(), Some(field));
        }
    }

    #[test]
    fn times_before_1970_are_whole_too() {
        assert_eq!(timestamp(1_500_000), Timestamp { seconds: 1, nanos: 500_000_000 });
        assert_eq!(timestamp(-1), Timestamp { seconds: -1, nanos: 999_999_000 });
    }
}
