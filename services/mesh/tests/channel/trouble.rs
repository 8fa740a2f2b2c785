//! One of two machines freezes, breaks off, is busy, or comes back.

use crate::machines::{App, Tools, list, run, until};
use mesh::error;
use std::{sync::atomic::Ordering::SeqCst, time::Duration};
use tokio::{net::TcpStream, time::Instant};

#[tokio::test]
async fn a_frozen_machine_costs_one_attempt_and_is_used_again_after() {
    let app = App::new();
    let (a, b) = (app.machine(Tools::default()).await, app.machine(Tools::default()).await);
    app.list(&[(&a, "local"), (&b, "local")]);
    let channel = app.channel().await;
    until("both", || channel.machines().len() == 2).await;
    a.relay.freeze();
    let began = Instant::now();
    for _ in 0..40 {
        list(&channel).await.unwrap();
    }
    // One sign of life is waited for, at most a second and a half; forty
    // attempts on the frozen machine would take a minute.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let before = a.tools.listed.load(SeqCst);
    a.relay.thaw();
    let back = async {
        while a.tools.listed.load(SeqCst) < before + 20 {
            list(&channel).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), back).await.unwrap();
}

#[tokio::test]
async fn slow_work_of_a_living_machine_is_not_cut_short() {
    let app = App::new();
    let slow = || Tools { takes: Duration::from_secs(2), ..Tools::default() };
    let (a, b) = (app.machine(slow()).await, app.machine(slow()).await);
    app.list(&[(&a, "local"), (&b, "local")]);
    let channel = app.channel().await;
    list(&channel).await.unwrap();
    assert_eq!(a.tools.listed.load(SeqCst) + b.tools.listed.load(SeqCst), 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_fetched_again() {
    let app = App::new();
    let long = || Tools { long: 1 << 20, ..Tools::default() };
    let (a, b) = (app.machine(long()).await, app.machine(long()).await);
    app.list(&[(&a, "local"), (&b, "local")]);
    let channel = app.channel().await;
    until("both", || channel.machines().len() == 2).await;
    a.relay.cut_after(100_000);
    for _ in 0..10 {
        let answer = list(&channel).await.unwrap();
        assert_eq!(answer.tools[0].description.len(), 1 << 20);
    }
}

#[tokio::test]
async fn a_busy_machine_sends_the_call_elsewhere_even_if_it_is_not_idempotent() {
    let app = App::new();
    let (a, b) = (app.machine(Tools::default()).await, app.machine(Tools::default()).await);
    app.list(&[(&a, "local"), (&b, "local")]);
    let channel = app.channel().await;
    until("both", || channel.machines().len() == 2).await;
    a.tools.busy.store(true, SeqCst);
    for _ in 0..20 {
        run(&channel).await.unwrap();
    }
    assert!(a.tools.called.load(SeqCst) <= 2, "left alone for as long as it asked");
    b.tools.busy.store(true, SeqCst);
    let status = run(&channel).await.unwrap_err();
    assert_eq!(error::reason(&status).as_deref(), Some("OVERLOADED"));
    assert!(error::was_retried(&status) && error::retry_after(&status).is_some(), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_under_load_loses_no_call_at_all() {
    let app = App::new();
    let (a, b) = (app.machine(Tools::default()).await, app.machine(Tools::default()).await);
    app.list(&[(&a, "local"), (&b, "local")]);
    let channel = app.channel().await;
    until("both", || channel.machines().len() == 2).await;
    let load: Vec<_> = (0..8)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move {
                for _ in 0..200 {
                    run(&channel).await?;
                }
                Ok::<_, tonic::Status>(())
            })
        })
        .collect();
    until("load", || a.tools.called.load(SeqCst) > 100).await;
    a.stop.cancel();
    a.done.await.unwrap().unwrap();
    for task in load {
        task.await.unwrap().unwrap();
    }
    let ran = a.tools.called.load(SeqCst) + b.tools.called.load(SeqCst);
    assert_eq!(ran, 1600, "none ran twice");
}

#[tokio::test]
async fn the_only_machine_may_restart_during_a_call() {
    let app = App::new();
    let a = app.machine(Tools::default()).await;
    app.list(&[(&a, "local")]);
    let channel = app.channel().await;
    list(&channel).await.unwrap();
    a.stop.cancel();
    a.done.await.unwrap().unwrap();
    until("its loss", || channel.machines().is_empty()).await;
    let waiting = tokio::spawn({
        let channel = channel.clone();
        async move { list(&channel).await }
    });
    let b = app.machine(Tools::default()).await;
    app.list(&[(&b, "local")]);
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_leaving_machine_finishes_its_calls_and_refuses_new_connections() {
    let app = App::new();
    let a = app.machine(Tools { takes: Duration::from_secs(1), ..Tools::default() }).await;
    app.list(&[(&a, "local")]);
    let channel = app.channel().await;
    let open = tokio::spawn(async move { list(&channel).await });
    until("the call", || a.tools.listed.load(SeqCst) == 1).await;
    a.stop.cancel();
    let refused = async {
        while TcpStream::connect(a.addr).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), refused).await.unwrap();
    assert!(!open.is_finished(), "refused while it still serves what it has");
    open.await.unwrap().unwrap();
    a.done.await.unwrap().unwrap();
}
