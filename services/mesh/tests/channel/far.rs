//! Machines of other regions.

use crate::machines::{App, Tools, addrs, list, until};
use std::sync::atomic::Ordering::SeqCst;

#[tokio::test]
async fn other_regions_are_connected_when_needed_and_two_machines_of_each() {
    let app = App::new();
    let near = app.machine(Tools::default()).await;
    let mut far = Vec::new();
    for _ in 0..3 {
        far.push(app.machine(Tools::default()).await);
    }
    let mut listed = vec![(&near, "local")];
    listed.extend(far.iter().map(|machine| (machine, "nrt")));
    app.list(&listed);
    let channel = app.channel().await;
    for _ in 0..20 {
        list(&channel).await.unwrap();
    }
    assert_eq!(addrs(&channel), [near.relay.addr]);
    assert!(far.iter().all(|machine| machine.relay.connections.load(SeqCst) == 0));
    near.stop.cancel();
    for _ in 0..20 {
        list(&channel).await.unwrap();
    }
    until("two of the other region", || addrs(&channel).len() == 2).await;
    assert!(far.iter().map(|machine| machine.tools.listed.load(SeqCst)).sum::<usize>() > 0);
    assert!(!addrs(&channel).contains(&near.relay.addr));
}

#[tokio::test]
async fn our_own_region_takes_over_again_when_it_returns() {
    let app = App::new();
    let far = app.machine(Tools::default()).await;
    app.list(&[(&far, "nrt")]);
    let channel = app.caller();
    list(&channel).await.unwrap();
    let near = app.machine(Tools::default()).await;
    app.list(&[(&far, "nrt"), (&near, "local")]);
    until("the return", || addrs(&channel).contains(&near.relay.addr)).await;
    let before = far.tools.listed.load(SeqCst);
    for _ in 0..20 {
        list(&channel).await.unwrap();
    }
    assert_eq!((far.tools.listed.load(SeqCst), near.tools.listed.load(SeqCst)), (before, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sudden_end_of_the_only_machine_of_a_region_fails_no_call() {
    let app = App::new();
    let (near, far) = (app.machine(Tools::default()).await, app.machine(Tools::default()).await);
    app.list(&[(&near, "local"), (&far, "nrt")]);
    let channel = app.channel().await;
    let load: Vec<_> = (0..4)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move {
                for _ in 0..200 {
                    list(&channel).await?;
                }
                Ok::<_, tonic::Status>(())
            })
        })
        .collect();
    until("load", || near.tools.listed.load(SeqCst) > 100).await;
    near.relay.cut_after(0);
    for task in load {
        task.await.unwrap().unwrap();
    }
    assert!(far.tools.listed.load(SeqCst) > 0);
}
