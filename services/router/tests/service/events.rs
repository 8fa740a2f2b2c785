//! The event stream: resume, filters, bounds, ends.

use crate::fakes::started;
use crate::mesh_of_three::{Mesh, asking, databases, events, live, meshes, until};
use skein_proto::agent::v1::run_event::Body;
use skein_proto::agent::v1::stream_events_request::Of;
use skein_proto::agent::v1::stream_events_response::Item;
use skein_proto::agent::v1::{CreateRunRequest, LeaseEnded, RunStatus, StreamEventsRequest};

#[tokio::test]
async fn a_stream_resumes_at_every_seq_with_exactly_the_rest() {
    for mesh in meshes().await {
        let run = mesh.finish("First?").await;
        let second = CreateRunRequest { thread_id: run.thread_id.clone(), ..asking("Second?") };
        let second = mesh.create(second).await.unwrap().0;
        mesh.follow(&second.id).await;
        let of_thread = |after_seq| StreamEventsRequest {
            of: Some(Of::ThreadId(run.thread_id.clone())),
            after_seq,
            ..StreamEventsRequest::default()
        };
        let all = events(mesh.watch(of_thread(0)).await).await;
        assert_eq!(all.len(), 22);
        for seq in 0..=all.len() {
            let rest = events(mesh.watch(of_thread(seq as u64)).await).await;
            assert_eq!(rest, all[seq..], "thread after {seq}");
            let rest = events(mesh.watch(live(&second.id, seq as u64)).await).await;
            assert_eq!(rest, all[seq.max(11)..], "run after {seq}");
        }
        let past = mesh.agents().stream_events(Mesh::call().request(of_thread(23))).await;
        assert_eq!(mesh::error::field(&past.unwrap_err()).as_deref(), Some("after_seq"));
    }
}

#[tokio::test]
async fn the_snapshot_comes_first_and_only_wanted_kinds_follow() {
    for mesh in meshes().await {
        let run = mesh.finish("Which port?").await;
        let request = StreamEventsRequest { kinds: vec!["status".to_owned()], ..live(&run.id, 0) };
        let mut stream = mesh.watch(request).await;
        let first = stream.message().await.unwrap().unwrap().item;
        let Some(Item::Snapshot(snapshot)) = first else { unreachable!() };
        assert_eq!((snapshot.run.unwrap(), snapshot.thread.unwrap().last_seq), (run.clone(), 11));
        let status = |body| match body {
            Some(Body::Status(changed)) => changed.status(),
            _ => RunStatus::Unspecified,
        };
        let told = events(stream).await.into_iter();
        let statuses: Vec<_> = told.map(|event| status(event.body)).collect();
        assert_eq!(statuses, [RunStatus::Running, RunStatus::Completed]);
        let wrong = StreamEventsRequest { kinds: vec!["stats".to_owned()], ..live(&run.id, 0) };
        let refused = mesh.agents().stream_events(Mesh::call().request(wrong)).await.unwrap_err();
        assert_eq!(mesh::error::field(&refused).as_deref(), Some("kinds[0]"));
    }
}

#[tokio::test]
async fn max_bytes_gives_at_least_one_event_and_a_place_to_go_on() {
    for mesh in meshes().await {
        let run = mesh.finish("Which port?").await;
        let all = events(mesh.watch(live(&run.id, 0)).await).await;
        let (mut after, mut seen) = (0, Vec::new());
        while seen.len() < all.len() {
            let request = StreamEventsRequest { max_bytes: 1, ..live(&run.id, after) };
            let part = events(mesh.watch(request).await).await;
            assert_eq!(part.len(), 1);
            after = part[0].seq;
            seen.extend(part);
        }
        assert_eq!(seen, all);
    }
}

async fn last(mesh: &Mesh, id: &str) -> LeaseEnded {
    let mut stream = mesh.watch(live(id, 0)).await;
    let mut last = None;
    while let Some(response) = stream.message().await.unwrap() {
        last = response.item;
    }
    let Some(Item::LeaseEnded(ended)) = last else { unreachable!() };
    ended
}

#[tokio::test]
async fn a_lease_ends_with_the_place_to_go_on() {
    let (_folder, urls) = databases();
    for url in urls {
        let mesh = Mesh::start(&url, "local", &[("SKEIN_ROUTER__LEASE", "50ms")]).await;
        let says = mesh.control();
        let id = mesh.ask("Slow?").await.id;
        says.send(Ok(started())).await.unwrap();
        let ended = last(&mesh, &id).await;
        assert_eq!(ended.reason, "lease");
        assert!(ended.last_seq >= 1);
    }
}

#[tokio::test]
async fn a_router_that_leaves_says_so_and_ends_its_runs() {
    for mut mesh in meshes().await {
        let says = mesh.control();
        let id = mesh.ask("Slow?").await.id;
        let mut watch = mesh.watch(live(&id, 0)).await;
        says.send(Ok(started())).await.unwrap();
        until(&mut watch, |event| matches!(event.body, Some(Body::ModelStarted(_)))).await;
        let stop = mesh.stop.clone();
        let ((), ended) = tokio::join!(async { stop.cancel() }, async {
            loop {
                if let Some(Item::LeaseEnded(ended)) = watch.message().await.unwrap().unwrap().item
                {
                    return ended;
                }
            }
        });
        assert_eq!(ended.reason, "draining");
        says.closed().await;
        mesh.router.take().unwrap().await.unwrap();
    }
}
