//! `GET /v1/models` and one of them.

use serde_json::{Value, json};
use skein_proto::model::v1::{ListModelsResponse, Model};

pub fn list(response: &ListModelsResponse) -> Value {
    let data: Vec<_> = response.models.iter().map(model).collect();
    json!({"object": "list", "data": data})
}

pub fn model(model: &Model) -> Value {
    let owner = if model.provider.is_empty() { "skein" } else { &model.provider };
    json!({
        "id": model.id,
        "object": "model",
        "created": model.created_unix,
        "owned_by": owner,
    })
}
