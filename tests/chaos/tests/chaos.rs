//! The short form of every scenario.
#![expect(clippy::print_stdout, reason = "figures are worth seeing when they disappoint")]
#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

use chaos::{scenarios::ALL, scene::Scale};
use tokio::sync::Mutex;

/// Latencies of scenarios that run side by side would say nothing.
static ALONE: Mutex<()> = Mutex::const_new(());

async fn runs(name: &str) {
    let _alone = ALONE.lock().await;
    let (_, scenario) = ALL.into_iter().find(|(known, _)| *known == name).unwrap();
    let report = scenario(Scale::Short).await;
    if let Some(why) = report.skipped {
        return e2e::skip(&format!("chaos {name}: {why}"));
    }
    report.lines.iter().for_each(|line| println!("{line}"));
    assert!(report.problems.is_empty(), "{:#?}", report.problems);
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_die_hang_and_are_replaced_and_no_call_fails() {
    runs("regions").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_fails_and_lies_and_no_call_fails_or_goes_astray() {
    runs("dns").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_come_and_go_with_the_load_and_no_call_fails() {
    runs("growth").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_rotated_and_no_call_fails() {
    runs("rotation").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_request_crosses_an_ocean_beside_small_ones() {
    runs("ocean").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_release_before_and_this_one_serve_together() {
    runs("releases").await;
}
