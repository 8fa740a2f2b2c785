//! Runs from admission to their end.

use crate::fakes::{Behaviour, SOURCE, delta, finished, started, text};
use crate::mesh_of_three::{Mesh, asking, databases, events, live, meshes, said, until};
use futures_util::future::join_all;
use mesh::error::reason;
use skein_proto::agent::v1::run_event::Body;
use skein_proto::agent::v1::{
    CreateRunRequest, DeleteThreadRequest, GetRunRequest, GetThreadRequest, ListAgentsRequest,
    ListRunsRequest, ListThreadsRequest, RunLimits, RunStatus,
};
use skein_proto::model::v1::{Citation, Delta, Role, Span, delta::Piece};
use tonic::{Code, Status};

#[tokio::test]
async fn an_answer_rests_on_the_documents_and_says_so() {
    for mesh in meshes().await {
        let run = mesh.finish("Which port?").await;
        assert_eq!(run.status(), RunStatus::Completed, "{run:?}");
        assert_eq!((run.output.as_str(), run.agent.as_str()), ("It is 8080 [1].", "default"));
        let citation = &run.citations[0];
        assert_eq!((citation.document_id.as_str(), citation.quote.as_str()), ("ports.md", SOURCE));
        assert_eq!(citation.span, Some(Span { start: 100, end: 100 + SOURCE.len() as u64 }));
        let usage = run.usage.unwrap();
        assert_eq!((usage.output, usage.cost.unwrap().nano_usd), (10, Some(507)));
        let path: Vec<_> =
            run.path.iter().map(|step| (step.what.as_str(), step.app.as_str())).collect();
        assert_eq!(
            path,
            [
                ("run", "skein-router"),
                ("search", "skein-retrieval"),
                ("generate", "skein-model-proxy")
            ]
        );
        assert_eq!((run.path[2].machine.as_str(), run.path[2].region.as_str()), ("m1", "iad"));
        assert_eq!((run.degraded.as_str(), run.model.as_str()), ("", "local/extractive"));

        let call = mesh.models.calls.lock().unwrap()[0].clone();
        assert_eq!(call.model, "local/extractive");
        assert!(!call.call_id.is_empty());
        assert_eq!(call.messages[0].role(), Role::System);
        assert_eq!(call.passages[0].text, SOURCE);
        let search = mesh.retrieval.searches.lock().unwrap()[0].clone();
        assert_eq!((search.query.as_str(), search.collection.as_str()), ("Which port?", "default"));
    }
}

#[tokio::test]
async fn the_log_tells_the_story_in_order() {
    for mesh in meshes().await {
        let id = mesh.ask("Which port?").await.id;
        let told = mesh.follow(&id).await;
        let kinds: Vec<_> =
            told.iter().map(|event| router::fold::kind(event.body.as_ref().unwrap())).collect();
        assert_eq!(
            kinds,
            [
                "created",
                "status",
                "route",
                "retrieved",
                "usage",
                "model_started",
                "model_delta",
                "model_delta",
                "model_done",
                "usage",
                "status"
            ]
        );
        let seqs: Vec<_> = told.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
        assert!(
            told.iter().all(|event| event.at.is_some() && event.request_id.starts_with("req_"))
        );
    }
}

#[tokio::test]
async fn fifty_callers_with_one_request_id_make_one_run() {
    for mesh in meshes().await {
        let request = CreateRunRequest { request_id: "r-1".to_owned(), ..asking("Which port?") };
        let made = join_all((0..50).map(|_| mesh.create(request.clone()))).await;
        let made: Vec<_> = made.into_iter().map(Result::unwrap).collect();
        assert!(made.iter().all(|(run, _)| run.id == made[0].0.id));
        assert_eq!(made.iter().filter(|(_, existed)| !existed).count(), 1);
        mesh.follow(&made[0].0.id).await;
        assert_eq!(mesh.models.calls.lock().unwrap().len(), 1);
        let threads = Mesh::call().request(ListThreadsRequest::default());
        let threads = mesh.agents().list_threads(threads).await.unwrap().into_inner().threads;
        assert_eq!(threads.len(), 1, "the losers left no thread");

        let other = CreateRunRequest { request_id: "r-1".to_owned(), ..asking("Another?") };
        let refused = mesh.create(other).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(reason(&refused).as_deref(), Some("REQUEST_ID_REUSED"));
    }
}

#[tokio::test]
async fn another_tenant_sees_nothing() {
    for mesh in meshes().await {
        let run = mesh.finish("Which port?").await;
        let other = Mesh::call_of("rival");
        let get = mesh.agents().get_run(other.request(GetRunRequest { id: run.id.clone() })).await;
        assert_eq!(reason(&get.unwrap_err()).as_deref(), Some("RUN_NOT_FOUND"));
        let thread = GetThreadRequest { id: run.thread_id.clone() };
        let get = mesh.agents().get_thread(other.request(thread)).await;
        assert_eq!(reason(&get.unwrap_err()).as_deref(), Some("THREAD_NOT_FOUND"));
        let continued = CreateRunRequest { thread_id: run.thread_id.clone(), ..asking("More?") };
        let refused = mesh.agents().create_run(other.request(continued)).await.unwrap_err();
        assert_eq!(reason(&refused).as_deref(), Some("THREAD_NOT_FOUND"));
        let stream = mesh.agents().stream_events(other.request(live(&run.id, 0))).await;
        assert_eq!(stream.unwrap_err().code(), Code::NotFound);
        let list = mesh.agents().list_runs(other.request(ListRunsRequest::default())).await;
        assert!(list.unwrap().into_inner().runs.is_empty());
    }
}

#[tokio::test]
async fn a_thread_remembers_whole_turns_alone() {
    for mesh in meshes().await {
        let first = mesh.finish("First?").await;
        let refusal = Behaviour::Refuse(Status::unavailable("gone"));
        mesh.models.next.lock().unwrap().push_back(refusal);
        let thread_id = first.thread_id.clone();
        let next = |text: &str| CreateRunRequest { thread_id: thread_id.clone(), ..asking(text) };
        let failed = mesh.create(next("Lost?")).await.unwrap().0;
        mesh.follow(&failed.id).await;
        assert_eq!(mesh.get(&failed.id).await.status(), RunStatus::Failed);
        let third = mesh.create(next("Third?")).await.unwrap().0;
        mesh.follow(&third.id).await;
        let call = mesh.models.calls.lock().unwrap().last().unwrap().clone();
        let expected = [
            said(Role::User, "First?"),
            said(Role::Assistant, "It is 8080 [1]."),
            said(Role::User, "Third?"),
        ];
        assert_eq!(call.messages[1..], expected);
    }
}

#[tokio::test]
async fn runs_of_one_thread_go_one_after_the_other() {
    for mesh in meshes().await {
        let says = mesh.control();
        let first = mesh.ask("First?").await;
        let mut watch = mesh.watch(live(&first.id, 0)).await;
        says.send(Ok(started())).await.unwrap();
        until(&mut watch, |event| matches!(event.body, Some(Body::ModelStarted(_)))).await;
        let request = CreateRunRequest { thread_id: first.thread_id.clone(), ..asking("Second?") };
        let second = mesh.create(request).await.unwrap().0;
        assert_eq!(mesh.get(&second.id).await.status(), RunStatus::Queued);
        let busy = DeleteThreadRequest { id: first.thread_id.clone() };
        let busy = mesh.agents().delete_thread(Mesh::call().request(busy)).await.unwrap_err();
        assert_eq!(reason(&busy).as_deref(), Some("THREAD_BUSY"));
        says.send(Ok(delta("One."))).await.unwrap();
        says.send(Ok(finished())).await.unwrap();
        drop(says);
        mesh.follow(&second.id).await;
        let calls = mesh.models.calls.lock().unwrap().clone();
        assert!(calls[1].messages.contains(&said(Role::Assistant, "One.")));
    }
}

#[tokio::test]
async fn without_documents_the_answer_is_degraded_and_comes() {
    for mesh in meshes().await {
        for (status, why) in [
            (Status::not_found("no"), "collection \"default\" does not exist"),
            (Status::unavailable("no"), "retrieval is away"),
        ] {
            *mesh.retrieval.refuse.lock().unwrap() = Some(status);
            let run = mesh.finish("Which port?").await;
            assert_eq!(run.status(), RunStatus::Completed);
            assert!(run.degraded.contains(why), "{}", run.degraded);
            assert!(run.citations.is_empty(), "the marker [1] names no passage");
        }
    }
}

#[tokio::test]
async fn a_model_citation_is_checked_against_the_document() {
    for mesh in meshes().await {
        let cite = |start: u64, end: u64, quote: &str| Delta {
            piece: Some(Piece::Citation(Citation {
                passage: 0,
                span: Some(Span { start, end }),
                quote: quote.to_owned(),
                ..Citation::default()
            })),
            ..Delta::default()
        };
        let pieces = vec![text("8080"), cite(123, 132, "port 8080"), cite(123, 132, "port 9090")];
        mesh.models.next.lock().unwrap().push_back(Behaviour::Answer(pieces));
        let run = mesh.finish("Which port?").await;
        let quotes: Vec<_> = run.citations.iter().map(|citation| citation.quote.as_str()).collect();
        assert_eq!(quotes, [&SOURCE[23..32]]);
    }
}

#[tokio::test]
async fn a_failure_of_the_model_is_the_end_with_its_reason() {
    for mesh in meshes().await {
        let limited = mesh::error::status(
            mesh::error::Kind::RateLimited { retry_after: None },
            Some("PROVIDER_QUOTA"),
            None,
            "the provider says no".to_owned(),
        );
        mesh.models.next.lock().unwrap().push_back(Behaviour::Refuse(limited));
        let run = mesh.finish("Which port?").await;
        let error = run.error.unwrap();
        assert_eq!(
            (error.reason.as_str(), error.message.as_str()),
            ("PROVIDER_QUOTA", "the provider says no")
        );

        let says = mesh.control();
        let id = mesh.ask("Which port?").await.id;
        says.send(Ok(started())).await.unwrap();
        says.send(Ok(delta("It is"))).await.unwrap();
        drop(says);
        let told = mesh.follow(&id).await;
        let run = mesh.get(&id).await;
        assert_eq!((run.status(), run.output.as_str()), (RunStatus::Failed, "It is"));
        assert_eq!(run.error.unwrap().reason, "STREAM_CUT");
        let done = |body: &Option<Body>| matches!(body, Some(Body::ModelDone(done)) if done.error.is_some());
        assert_eq!(told.iter().filter(|event| done(&event.body)).count(), 1);

        let unknown = CreateRunRequest { model: "nope".to_owned(), ..asking("Which port?") };
        let id = mesh.create(unknown).await.unwrap().0.id;
        mesh.follow(&id).await;
        assert_eq!(mesh.get(&id).await.error.unwrap().reason, "MODEL_NOT_FOUND");
    }
}

#[tokio::test]
async fn a_run_ends_at_its_timeout_and_its_call_with_it() {
    for mesh in meshes().await {
        let says = mesh.control();
        let limits = Some(RunLimits { timeout_ms: 300, ..RunLimits::default() });
        let run = mesh.create(CreateRunRequest { limits, ..asking("Slow?") }).await.unwrap().0;
        says.send(Ok(started())).await.unwrap();
        mesh.follow(&run.id).await;
        let run = mesh.get(&run.id).await;
        assert_eq!(
            (run.status(), run.error.unwrap().reason.as_str()),
            (RunStatus::Failed, "DEADLINE_EXCEEDED")
        );
        says.closed().await;
    }
}

#[tokio::test]
async fn lists_come_in_pages_newest_first() {
    for mesh in meshes().await {
        let mut ids = Vec::new();
        for number in 0..5 {
            ids.push(mesh.finish(&format!("Question {number}?")).await.id);
        }
        ids.reverse();
        let (mut token, mut seen) = (String::new(), Vec::new());
        loop {
            let request =
                ListRunsRequest { page_size: 2, page_token: token, ..ListRunsRequest::default() };
            let page = mesh.agents().list_runs(Mesh::call().request(request)).await.unwrap();
            let page = page.into_inner();
            assert!(page.runs.len() <= 2);
            seen.extend(page.runs.into_iter().map(|run| run.id));
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, ids);
        let wrong = ListRunsRequest { page_token: "zzz".to_owned(), ..ListRunsRequest::default() };
        let refused = mesh.agents().list_runs(Mesh::call().request(wrong)).await.unwrap_err();
        assert_eq!(mesh::error::field(&refused).as_deref(), Some("page_token"));
        let agents = mesh.agents().list_agents(Mesh::call().request(ListAgentsRequest {})).await;
        assert_eq!(agents.unwrap().into_inner().agents[0].name, "default");
    }
}

#[tokio::test]
async fn a_deleted_thread_is_gone_with_everything_in_it() {
    for mesh in meshes().await {
        let run = mesh.finish("Which port?").await;
        let delete = || DeleteThreadRequest { id: run.thread_id.clone() };
        let first = mesh.agents().delete_thread(Mesh::call().request(delete())).await.unwrap();
        let second = mesh.agents().delete_thread(Mesh::call().request(delete())).await.unwrap();
        assert_eq!((first.into_inner().existed, second.into_inner().existed), (true, false));
        let get = Mesh::call().request(GetRunRequest { id: run.id.clone() });
        assert_eq!(mesh.agents().get_run(get).await.unwrap_err().code(), Code::NotFound);
    }
}

#[tokio::test]
async fn a_restarted_router_still_knows_what_was_said() {
    let (_folder, urls) = databases();
    for url in urls {
        let mesh = Mesh::start(&url, "local", &[]).await;
        let before = mesh.finish("Which port?").await;
        mesh.stopped().await;
        let mesh = Mesh::start(&url, "local", &[]).await;
        assert_eq!(mesh.get(&before.id).await, before);
        assert_eq!(events(mesh.watch(live(&before.id, 0)).await).await.len(), 11);
    }
}
