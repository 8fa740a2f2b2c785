//! One key, two machines.

use super::{Fake, unused};
use skein_proto::{
    admin::v1::{
        self as wire, CreateKeyRequest, CreateKeyResponse, GetMeshStatusRequest,
        GetMeshStatusResponse, Key, ListKeysRequest, ListKeysResponse, RevokeKeyRequest,
        RevokeKeyResponse, admin_service_server::AdminService,
    },
    mesh::v1::{
        Breaker, BreakerState, Identity, MachineStatus, ProviderKey, ProviderStatus, Setting,
    },
    model::v1::ModelHealth,
};
use tonic::{Request, Response, Status};

fn key(id: &str, request: CreateKeyRequest) -> Key {
    Key {
        id: id.to_owned(),
        name: request.name,
        tenant: request.tenant,
        scopes: request.scopes,
        requests_per_minute: request.requests_per_minute,
        concurrency: request.concurrency,
        ..Key::default()
    }
}

fn machine(app: &str, id: &str) -> MachineStatus {
    let identity = Identity {
        app: app.to_owned(),
        machine: id.to_owned(),
        region: "iad".to_owned(),
        ..Identity::default()
    };
    MachineStatus {
        identity: Some(identity),
        ready: true,
        uptime_ms: 61_000,
        ..MachineStatus::default()
    }
}

fn provider() -> ProviderStatus {
    let key = |label: &str, refused: &str| ProviderKey {
        label: label.to_owned(),
        refused: refused.to_owned(),
        ..ProviderKey::default()
    };
    let breaker = Breaker {
        model: "m".to_owned(),
        key: "1".to_owned(),
        state: BreakerState::Open.into(),
        left_ms: 12_000,
        failures: 5,
        reason: "PROVIDER_OVERLOADED".to_owned(),
    };
    ProviderStatus {
        name: "openai".to_owned(),
        health: ModelHealth::Degraded.into(),
        reason: "m key 1: open for 12 s after 5 failures (PROVIDER_OVERLOADED)".to_owned(),
        p50_us: 412_000,
        keys: vec![key("1", ""), key("2", "PROVIDER_QUOTA")],
        breakers: vec![breaker],
        last_error: "PROVIDER_OVERLOADED".to_owned(),
        last_error_ms: 3_000,
        ..ProviderStatus::default()
    }
}

#[tonic::async_trait]
impl AdminService for Fake {
    async fn create_key(
        &self,
        request: Request<CreateKeyRequest>,
    ) -> Result<Response<CreateKeyResponse>, Status> {
        let request = request.into_inner();
        self.note(format!("create key ttl={}", request.ttl_seconds));
        let key = Some(key("key_1", request));
        Ok(Response::new(CreateKeyResponse { key, secret: "sk-secret".to_owned() }))
    }

    async fn list_keys(
        &self,
        request: Request<ListKeysRequest>,
    ) -> Result<Response<ListKeysResponse>, Status> {
        let tenant = request.into_inner().tenant;
        let one = key("key_1", CreateKeyRequest { tenant, ..CreateKeyRequest::default() });
        Ok(Response::new(ListKeysResponse { keys: vec![one] }))
    }

    async fn revoke_key(
        &self,
        request: Request<RevokeKeyRequest>,
    ) -> Result<Response<RevokeKeyResponse>, Status> {
        match request.into_inner().id.as_str() {
            "key_1" => {
                let key = Some(key("key_1", CreateKeyRequest::default()));
                Ok(Response::new(RevokeKeyResponse { key }))
            }
            other => Err(Status::not_found(format!("no key {other}"))),
        }
    }

    async fn get_mesh_status(
        &self,
        request: Request<GetMeshStatusRequest>,
    ) -> Result<Response<GetMeshStatusResponse>, Status> {
        let mut gateway = machine("skein-gateway", "m1");
        if request.into_inner().settings {
            gateway.settings = vec![Setting {
                name: "bootstrap.key".to_owned(),
                value: "***".to_owned(),
                origin: "SKEIN_BOOTSTRAP_KEY".to_owned(),
            }];
        }
        let mut router = machine("skein-router", "m2");
        router.rtt_us = 1_500;
        router.degraded = vec!["no retrieval".to_owned()];
        let mut model_proxy = machine("skein-model-proxy", "m3");
        model_proxy.providers = vec![provider()];
        let machines = vec![gateway, router, model_proxy];
        Ok(Response::new(GetMeshStatusResponse { machines }))
    }

    async fn set_budget(
        &self,
        _: Request<wire::SetBudgetRequest>,
    ) -> Result<Response<wire::SetBudgetResponse>, Status> {
        Err(unused())
    }
    async fn list_budgets(
        &self,
        _: Request<wire::ListBudgetsRequest>,
    ) -> Result<Response<wire::ListBudgetsResponse>, Status> {
        Err(unused())
    }
    async fn get_usage(
        &self,
        _: Request<wire::GetUsageRequest>,
    ) -> Result<Response<wire::GetUsageResponse>, Status> {
        Err(unused())
    }
}
