//! RPCs of the contract that belong to the router and come with the ledger.
//!
//! Invariant: each says so with `UNIMPLEMENTED` and a reason; none pretends.

use mesh::error::unimplemented;
use skein_proto::admin::v1::admin_service_server::AdminService;
use skein_proto::admin::v1::{
    CreateKeyRequest, CreateKeyResponse, GetMeshStatusRequest, GetMeshStatusResponse,
    GetUsageRequest, GetUsageResponse, ListBudgetsRequest, ListBudgetsResponse, ListKeysRequest,
    ListKeysResponse, RevokeKeyRequest, RevokeKeyResponse, SetBudgetRequest, SetBudgetResponse,
};
use skein_proto::model::v1::usage_service_server::UsageService;
use skein_proto::model::v1::{ReportUsageRequest, ReportUsageResponse};
use tonic::{Request, Response, Status};

const LEDGER: &str = "this release keeps no ledger: usage is in each answer and each run";
const GATEWAY: &str = "keys and mesh status are served by the gateway";

pub struct LaterRpc;

#[tonic::async_trait]
impl UsageService for LaterRpc {
    async fn report_usage(
        &self,
        _request: Request<ReportUsageRequest>,
    ) -> Result<Response<ReportUsageResponse>, Status> {
        Err(unimplemented(LEDGER))
    }
}

#[tonic::async_trait]
impl AdminService for LaterRpc {
    async fn create_key(
        &self,
        _request: Request<CreateKeyRequest>,
    ) -> Result<Response<CreateKeyResponse>, Status> {
        Err(unimplemented(GATEWAY))
    }

    async fn list_keys(
        &self,
        _request: Request<ListKeysRequest>,
    ) -> Result<Response<ListKeysResponse>, Status> {
        Err(unimplemented(GATEWAY))
    }

    async fn revoke_key(
        &self,
        _request: Request<RevokeKeyRequest>,
    ) -> Result<Response<RevokeKeyResponse>, Status> {
        Err(unimplemented(GATEWAY))
    }

    async fn set_budget(
        &self,
        _request: Request<SetBudgetRequest>,
    ) -> Result<Response<SetBudgetResponse>, Status> {
        Err(unimplemented(LEDGER))
    }

    async fn list_budgets(
        &self,
        _request: Request<ListBudgetsRequest>,
    ) -> Result<Response<ListBudgetsResponse>, Status> {
        Err(unimplemented(LEDGER))
    }

    async fn get_usage(
        &self,
        _request: Request<GetUsageRequest>,
    ) -> Result<Response<GetUsageResponse>, Status> {
        Err(unimplemented(LEDGER))
    }

    async fn get_mesh_status(
        &self,
        _request: Request<GetMeshStatusRequest>,
    ) -> Result<Response<GetMeshStatusResponse>, Status> {
        Err(unimplemented(GATEWAY))
    }
}
