//! `ModelService` at the router: what a model call needs before model-proxy.
//!
//! Invariants:
//! - nothing here calls retrieval, which calls `Embed` and `Rerank` while an
//!   agent's turn waits for it;
//! - a caller that goes away drops the stream, and with it the call behind.

use crate::error::Error;
use crate::models::{Models, Whole, name_call};
use mesh::call::Call;
use skein_proto::model::v1::model_service_server::ModelService;
use skein_proto::model::v1::{
    EmbedRequest, EmbedResponse, GenerateImageRequest, GenerateImageResponse, GenerateRequest,
    GenerateResponse, ListModelsRequest, ListModelsResponse, RerankRequest, RerankResponse,
};
use tonic::{Request, Response, Status};

pub struct ModelRpc {
    pub models: Models,
}

#[tonic::async_trait]
impl ModelService for ModelRpc {
    type GenerateStream = Whole<GenerateResponse>;
    type GenerateImageStream = Whole<GenerateImageResponse>;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let call = Call::of(&request)?;
        let mut request = request.into_inner();
        request.model = self.models.route(&call, &request.model).await?.model;
        Ok(Response::new(self.models.generate(&call, request).await?))
    }

    async fn embed(
        &self,
        request: Request<EmbedRequest>,
    ) -> Result<Response<EmbedResponse>, Status> {
        let call = Call::of(&request)?;
        let mut request = request.into_inner();
        name_call(&mut request.call_id);
        request.model = self.models.route(&call, &request.model).await?.model;
        let answer = self.models.model_proxy.clone().embed(call.request(request)).await;
        Ok(Response::new(answer.map_err(Error::from)?.into_inner()))
    }

    async fn generate_image(
        &self,
        request: Request<GenerateImageRequest>,
    ) -> Result<Response<Self::GenerateImageStream>, Status> {
        let call = Call::of(&request)?;
        let mut request = request.into_inner();
        name_call(&mut request.call_id);
        request.model = self.models.route(&call, &request.model).await?.model;
        let answer = self.models.model_proxy.clone().generate_image(call.request(request)).await;
        Ok(Response::new(Whole::new(answer.map_err(Error::from)?.into_inner())))
    }

    async fn rerank(
        &self,
        request: Request<RerankRequest>,
    ) -> Result<Response<RerankResponse>, Status> {
        let call = Call::of(&request)?;
        let mut request = request.into_inner();
        name_call(&mut request.call_id);
        request.model = self.models.route(&call, &request.model).await?.model;
        let answer = self.models.model_proxy.clone().rerank(call.request(request)).await;
        Ok(Response::new(answer.map_err(Error::from)?.into_inner()))
    }

    async fn list_models(
        &self,
        request: Request<ListModelsRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        let call = Call::of(&request)?;
        Ok(Response::new(self.models.list(&call).await?))
    }
}
