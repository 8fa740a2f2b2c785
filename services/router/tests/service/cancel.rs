//! Cancel in each window, and who may go away without stopping anything.

use crate::fakes::{delta, finished, started};
use crate::mesh_of_three::{Mesh, asking, databases, live, meshes, until};
use skein_proto::agent::v1::run_event::Body;
use skein_proto::agent::v1::{CancelRunRequest, CreateRunRequest, OnDisconnect, Run, RunStatus};

async fn cancel(mesh: &Mesh, id: &str) -> Run {
    let request = CancelRunRequest { id: id.to_owned(), wait: true, ..CancelRunRequest::default() };
    let answer = mesh.agents().cancel_run(Mesh::call().request(request)).await;
    answer.unwrap().into_inner().run.unwrap()
}

#[tokio::test]
async fn before_the_first_token() {
    for mesh in meshes().await {
        let says = mesh.control();
        let run = mesh.ask("Slow?").await;
        let mut watch = mesh.watch(live(&run.id, 0)).await;
        until(&mut watch, |event| matches!(event.body, Some(Body::Retrieved(_)))).await;
        let run = cancel(&mesh, &run.id).await;
        assert_eq!((run.status(), run.output.as_str()), (RunStatus::Cancelled, ""));
        // Whether or not the call had reached the model, it does not go on.
        drop(mesh.models.next.lock().unwrap().pop_front());
        says.closed().await;
    }
}

#[tokio::test]
async fn in_mid_stream_what_was_shown_stays() {
    for mesh in meshes().await {
        let says = mesh.control();
        let run = mesh.ask("Slow?").await;
        let mut watch = mesh.watch(live(&run.id, 0)).await;
        says.send(Ok(started())).await.unwrap();
        says.send(Ok(delta("It is"))).await.unwrap();
        until(&mut watch, |event| matches!(event.body, Some(Body::ModelDelta(_)))).await;
        let run = cancel(&mesh, &run.id).await;
        assert_eq!((run.status(), run.output.as_str()), (RunStatus::Cancelled, "It is"));
        says.closed().await;
        let done = until(&mut watch, |event| matches!(event.body, Some(Body::ModelDone(_)))).await;
        let Some(Body::ModelDone(done)) = done.body else { unreachable!() };
        assert_eq!(done.error.unwrap().reason, "CANCELLED");
        assert_eq!(mesh.get(&run.id).await.output, "It is");
    }
}

#[tokio::test]
async fn after_the_end_nothing_changes() {
    for mesh in meshes().await {
        let before = mesh.finish("Which port?").await;
        assert_eq!(cancel(&mesh, &before.id).await, before);
    }
}

#[tokio::test]
async fn a_queued_run_never_starts_its_model() {
    for mesh in meshes().await {
        let says = mesh.control();
        let first = mesh.ask("First?").await;
        let request = CreateRunRequest { thread_id: first.thread_id.clone(), ..asking("Second?") };
        let second = mesh.create(request).await.unwrap().0;
        assert_eq!(cancel(&mesh, &second.id).await.status(), RunStatus::Cancelled);
        says.send(Ok(started())).await.unwrap();
        says.send(Ok(finished())).await.unwrap();
        drop(says);
        mesh.follow(&first.id).await;
        assert_eq!(mesh.models.calls.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_watcher_that_leaves_does_not_stop_the_run() {
    for mesh in meshes().await {
        let says = mesh.control();
        let run = mesh.ask("Slow?").await;
        let mut watch = mesh.watch(live(&run.id, 0)).await;
        says.send(Ok(started())).await.unwrap();
        until(&mut watch, |event| matches!(event.body, Some(Body::ModelStarted(_)))).await;
        drop(watch);
        says.send(Ok(delta("Still here."))).await.unwrap();
        says.send(Ok(finished())).await.unwrap();
        drop(says);
        mesh.follow(&run.id).await;
        let run = mesh.get(&run.id).await;
        assert_eq!((run.status(), run.output.as_str()), (RunStatus::Completed, "Still here."));
    }
}

#[tokio::test]
async fn a_run_made_to_end_with_its_watcher_does() {
    for mesh in meshes().await {
        let says = mesh.control();
        let on_disconnect = OnDisconnect::Cancel.into();
        let run =
            mesh.create(CreateRunRequest { on_disconnect, ..asking("Slow?") }).await.unwrap().0;
        let mut watch = mesh.watch(live(&run.id, 0)).await;
        says.send(Ok(started())).await.unwrap();
        until(&mut watch, |event| matches!(event.body, Some(Body::ModelStarted(_)))).await;
        drop(watch);
        says.closed().await;
    }
}

#[tokio::test]
async fn another_machine_can_cancel_and_watch() {
    let (_folder, urls) = databases();
    for url in urls.iter().filter(|url| url.starts_with("postgres")) {
        let here = Mesh::start(url, "m-here", &[]).await;
        let there = Mesh::start(url, "m-there", &[]).await;
        let says = here.control();
        let run = here.ask("Slow?").await;
        let mut watch = there.watch(live(&run.id, 0)).await;
        says.send(Ok(started())).await.unwrap();
        says.send(Ok(delta("It is"))).await.unwrap();
        until(&mut watch, |event| matches!(event.body, Some(Body::ModelDelta(_)))).await;
        let run = cancel(&there, &run.id).await;
        assert_eq!((run.status(), run.output.as_str()), (RunStatus::Cancelled, "It is"));
        says.closed().await;
    }
}
