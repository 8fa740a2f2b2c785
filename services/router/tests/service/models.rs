//! `ModelService` at the router.

use crate::fakes::{delta, finished, started};
use crate::mesh_of_three::{Mesh, meshes, said};
use mesh::error::reason;
use skein_proto::agent::v1::ExplainRouteRequest;
use skein_proto::model::v1::usage_service_client::UsageServiceClient;
use skein_proto::model::v1::{
    EmbedInput, EmbedRequest, GenerateRequest, ListModelsRequest, ReportUsageRequest, Role,
    embed_input::Input, generate_response::Event,
};
use tonic::Code;

fn generate(model: &str) -> GenerateRequest {
    GenerateRequest {
        model: model.to_owned(),
        messages: vec![said(Role::User, "Hello")],
        ..GenerateRequest::default()
    }
}

#[tokio::test]
async fn a_call_is_named_routed_and_passed_on() {
    for mesh in meshes().await {
        let request = Mesh::call().request(generate("default"));
        let mut stream = mesh.model_client().generate(request).await.unwrap().into_inner();
        let mut kinds = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            kinds.push(match message.event.unwrap() {
                Event::Started(_) => "started",
                Event::Delta(_) => "delta",
                Event::Finished(_) => "finished",
            });
        }
        assert_eq!(kinds, ["started", "delta", "delta", "finished"]);
        let call = mesh.models.calls.lock().unwrap()[0].clone();
        assert_eq!((call.model.as_str(), call.call_id.len()), ("local/extractive", 36));
        assert!(mesh.retrieval.searches.lock().unwrap().is_empty());

        let input = EmbedInput { input: Some(Input::Text("goose".to_owned())) };
        let call_id = "mine".to_owned();
        let model = "local/minilm".to_owned();
        let embed = EmbedRequest { call_id, model, inputs: vec![input], ..EmbedRequest::default() };
        let answer = mesh.model_client().embed(Mesh::call().request(embed)).await.unwrap();
        assert_eq!(answer.into_inner().embeddings[0].values, [1.0, 0.0]);
        assert_eq!(mesh.models.embeds.lock().unwrap()[0].call_id, "mine");
    }
}

#[tokio::test]
async fn a_stream_that_just_stops_is_an_error() {
    for mesh in meshes().await {
        let says = mesh.control();
        let request = Mesh::call().request(generate("default"));
        let mut stream = mesh.model_client().generate(request).await.unwrap().into_inner();
        says.send(Ok(started())).await.unwrap();
        says.send(Ok(delta("It is"))).await.unwrap();
        drop(says);
        stream.message().await.unwrap();
        stream.message().await.unwrap();
        let cut = stream.message().await.unwrap_err();
        assert_eq!((cut.code(), reason(&cut).as_deref()), (Code::Unavailable, Some("STREAM_CUT")));
    }
}

#[tokio::test]
async fn a_caller_that_leaves_ends_the_call_behind() {
    for mesh in meshes().await {
        let says = mesh.control();
        let request = Mesh::call().request(generate("default"));
        let mut stream = mesh.model_client().generate(request).await.unwrap().into_inner();
        says.send(Ok(started())).await.unwrap();
        stream.message().await.unwrap();
        drop(stream);
        says.closed().await;
    }
}

#[tokio::test]
async fn what_does_not_exist_is_refused_by_name() {
    for mesh in meshes().await {
        let request = Mesh::call().request(generate("gpt-5"));
        let refused = mesh.model_client().generate(request).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_deref()),
            (Code::NotFound, Some("MODEL_NOT_FOUND"))
        );
        assert!(refused.message().contains("local/extractive"), "{}", refused.message());
        let empty = mesh.model_client().generate(Mesh::call().request(generate(""))).await;
        assert_eq!(mesh::error::field(&empty.unwrap_err()).as_deref(), Some("model"));
    }
}

#[tokio::test]
async fn the_list_of_models_outlives_a_blink_of_model_proxy() {
    for mesh in meshes().await {
        let list = || async {
            let request = Mesh::call().request(ListModelsRequest {});
            let models =
                mesh.model_client().list_models(request).await.unwrap().into_inner().models;
            models.into_iter().map(|model| (model.id, model.alias_of)).collect::<Vec<_>>()
        };
        let owned = |id: &str, of: &str| (id.to_owned(), of.to_owned());
        let expected = vec![
            owned("local/extractive", ""),
            owned("local/minilm", ""),
            owned("default", "local/extractive"),
            owned("agent/default", ""),
        ];
        assert_eq!(list().await, expected);
        *mesh.models.away.lock().unwrap() = true;
        assert_eq!(list().await, expected);
        let explain =
            ExplainRouteRequest { agent: "default".to_owned(), ..ExplainRouteRequest::default() };
        let explained = mesh.agents().explain_route(Mesh::call().request(explain)).await.unwrap();
        let decision = explained.into_inner().decision.unwrap();
        assert_eq!(
            (decision.model.as_str(), decision.rule.as_str()),
            ("local/extractive", "alias")
        );
    }
}

#[tokio::test]
async fn what_comes_later_says_so() {
    for mesh in meshes().await {
        let mut usage = UsageServiceClient::new(mesh.channel());
        let refused = usage.report_usage(Mesh::call().request(ReportUsageRequest::default())).await;
        let refused = refused.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_deref()),
            (Code::Unimplemented, Some("UNIMPLEMENTED"))
        );
    }
}

#[tokio::test]
async fn a_finished_stream_ends_cleanly() {
    for mesh in meshes().await {
        let says = mesh.control();
        let request = Mesh::call().request(generate("default"));
        let mut stream = mesh.model_client().generate(request).await.unwrap().into_inner();
        says.send(Ok(started())).await.unwrap();
        says.send(Ok(finished())).await.unwrap();
        drop(says);
        stream.message().await.unwrap();
        stream.message().await.unwrap();
        assert_eq!(stream.message().await.unwrap(), None);
    }
}
