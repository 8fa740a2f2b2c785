//! `GET /v1/models` and `GET /v1/models/{id}`, where an id may hold slashes.

use crate::{
    gateway::{Caller, Gateway},
    keys::Scope,
    openai::{error::Refusal, models},
};
use axum::{
    Json,
    extract::{Path, Request, State, rejection::PathRejection},
};
use mesh::Call;
use serde_json::Value;
use skein_proto::model::v1::{
    ListModelsRequest, ListModelsResponse, model_service_client::ModelServiceClient,
};

pub async fn all(State(gateway): State<Gateway>, request: Request) -> Result<Json<Value>, Refusal> {
    Ok(Json(models::list(&list(&gateway, &caller(&request)?).await?)))
}

pub async fn one(
    State(gateway): State<Gateway>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let Path(id) = id.map_err(|_| Refusal::bad_path(request.uri().path()))?;
    let listed = list(&gateway, &caller(&request)?).await?;
    let model = listed.models.iter().find(|model| model.id == id);
    model.map(|model| Json(models::model(model))).ok_or_else(|| Refusal::no_model(&id))
}

fn caller(request: &Request) -> Result<Call, Refusal> {
    let call = Caller::of(request).and_then(|caller| {
        caller.call(Scope::Model).or_else(|denied| caller.call(Scope::Agent).map_err(|_| denied))
    });
    call.map_err(|denied| Refusal::of(&denied))
}

async fn list(gateway: &Gateway, call: &Call) -> Result<ListModelsResponse, Refusal> {
    let mut client = ModelServiceClient::new(gateway.router.clone());
    let listed = client.list_models(call.request(ListModelsRequest {})).await;
    Ok(listed.map_err(|status| Refusal::from_status(&status))?.into_inner())
}
