//! The store alone: the same promises on both databases.

use crate::mesh_of_three::{Mesh, asking, databases};
use futures_util::future::join_all;
use mesh::database::Database;
use router::Error;
use router::store::{Admitted, Claim, Lease, MIGRATIONS, Store, Work};
use skein_proto::agent::v1::run_event::Body;
use skein_proto::agent::v1::{CancelMode, RunEvent, RunStatus, StatusChanged};

async fn stores() -> (tempfile::TempDir, Vec<(String, Store)>) {
    let (folder, urls) = databases();
    let mut stores = Vec::new();
    for url in urls {
        let database = Database::open(&url, "router", MIGRATIONS).await.unwrap();
        stores.push((url, Store::new(database)));
    }
    (folder, stores)
}

fn work(run: &str, thread: &str) -> Work {
    Work {
        tenant: "acme".into(),
        principal: "key:test".into(),
        call_request_id: "req_1".into(),
        run_id: run.into(),
        thread_id: thread.into(),
        request: asking("Which port?"),
    }
}

async fn admit(store: &Store, work: &Work, new_thread: bool, owner: &str) {
    let (agent, owner) = ("default".to_owned(), owner.to_owned());
    let claim = Claim { work: work.clone(), new_thread, agent, owner };
    assert!(matches!(store.create_run(claim).await.unwrap(), Admitted::New(_)));
}

fn running(run: &str) -> RunEvent {
    let status = StatusChanged { status: RunStatus::Running.into(), ..StatusChanged::default() };
    RunEvent { run_id: run.to_owned(), body: Some(Body::Status(status)), ..RunEvent::default() }
}

async fn start(store: &Store, work: &Work) -> Lease {
    store.start(work, "app/m", running(&work.run_id)).await.unwrap().0
}

#[tokio::test]
async fn seq_is_dense_whoever_writes() {
    let (_folder, stores) = stores().await;
    for (_, store) in stores {
        let works: Vec<_> = (0..4).map(|n| work(&format!("run_{n}"), "thr_us_1")).collect();
        for (number, work) in works.iter().enumerate() {
            admit(&store, work, number == 0, "app/m").await;
        }
        let lease = start(&store, &works[0]).await;
        let one = |count: usize| {
            let events = vec![running("run_0"); count];
            let (store, lease) = (store.clone(), lease.clone());
            async move { store.append(&lease, events, None).await.unwrap() }
        };
        let written = join_all((1..=20).map(one)).await;
        let mut seqs: Vec<_> = written.iter().flatten().map(|event| event.seq).collect();
        seqs.sort_unstable();
        assert_eq!(seqs, (6..=215).collect::<Vec<_>>());
        for batch in written {
            assert!(batch.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1));
        }
        let stored = store.events("acme", "thr_us_1", None, 0).await.unwrap();
        assert!(stored.iter().enumerate().all(|(at, event)| event.seq == at as u64 + 1));
        assert_eq!(store.last_seq("acme", "thr_us_1").await.unwrap(), Some(215));
    }
}

#[tokio::test]
async fn an_older_lease_writes_nothing() {
    let (_folder, stores) = stores().await;
    for (_, store) in stores {
        let work = work("run_1", "thr_us_1");
        admit(&store, &work, true, "app/m").await;
        let old = start(&store, &work).await;
        let new = store.take_over(&work).await.unwrap();
        assert!(new.epoch > old.epoch);
        let refused = store.append(&old, vec![running("run_1")], None).await;
        assert!(matches!(refused, Err(Error::Fenced)));
        let written = store.append(&new, vec![running("run_1")], None).await.unwrap();
        assert_eq!((written[0].seq, written[0].lease_epoch), (3, 2));
        let again = store.start(&work, "app/other", running("run_1")).await;
        assert!(matches!(again, Err(Error::Fenced)), "a run is started once");
        assert_eq!(store.last_seq("acme", "thr_us_1").await.unwrap(), Some(3));
    }
}

#[tokio::test]
async fn the_wish_to_cancel_is_kept_until_somebody_starts() {
    let (_folder, stores) = stores().await;
    for (_, store) in stores {
        let work = work("run_1", "thr_us_1");
        admit(&store, &work, true, "app/m").await;
        store.cancel("rival", "run_1", CancelMode::Interrupt).await.unwrap();
        store.cancel("acme", "run_1", CancelMode::Unspecified).await.unwrap();
        let (_, cancelled) = store.start(&work, "app/m", running("run_1")).await.unwrap();
        assert_eq!(cancelled, CancelMode::Interrupt);
        let mine = [("acme".into(), "run_1".into()), ("acme".into(), "run_2".into())];
        assert_eq!(store.cancelled(&mine).await.unwrap(), ["run_1".into()]);
    }
}

#[tokio::test]
async fn what_a_dead_process_left_is_ended_or_executed() {
    let (_folder, stores) = stores().await;
    for (url, store) in stores {
        let (begun, queued) = (work("run_begun", "thr_us_1"), work("run_queued", "thr_us_2"));
        let owner = "skein-router/local";
        admit(&store, &begun, true, owner).await;
        admit(&store, &queued, true, owner).await;
        let dead = store.start(&begun, owner, running("run_begun")).await.unwrap().0;

        let mesh = Mesh::start(&url, "local", &[]).await;
        mesh.follow("run_queued").await;
        assert_eq!(mesh.get("run_queued").await.status(), RunStatus::Completed);
        let ended = mesh.get("run_begun").await;
        assert_eq!(
            (ended.status(), ended.error.unwrap().reason.as_str()),
            (RunStatus::Failed, "INTERRUPTED")
        );
        let late = store.append(&dead, vec![running("run_begun")], None).await;
        assert!(matches!(late, Err(Error::Fenced)));
    }
}
