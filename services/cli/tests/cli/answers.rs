//! `ask`, `chat` and `search`.

use super::Fake;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use tokio::io::AsyncReadExt as _;

const ANSWER: &str = "Geese fly in a skein [2].";

#[tokio::test]
async fn an_answer_comes_with_what_it_rests_on() {
    let fake = Fake::start().await;
    let args =
        ["ask", "geese", "--agent", "birds", "--collection", "zoo", "--model", "m", "--top-k", "3"];
    let ended = fake.skein(&args).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    assert_eq!(
        ended.out,
        format!(
            "{ANSWER}\n\n\
             [2] Geese (default/birds/geese.md)\n    \
             bytes 10..42  “a flight of geese is a skein”\n\
             path    skein-router m1 iad run 12.3 ms\n\
             tokens  42 in, 7 out · cost $0.001500 · local/extractive\n"
        )
    );
    assert_eq!(fake.log()[0], "create geese thread= agent=birds model=m collections=zoo top_k=3");
}

#[tokio::test]
async fn json_is_one_object() {
    let fake = Fake::start().await;
    let answer = fake.skein(&["ask", "--json", "geese"]).await.json();
    assert_eq!(answer["answer"], ANSWER);
    assert_eq!(answer["citations"][0]["span"], json!({ "start": 10, "end": 42 }));
    assert_eq!(answer["citations"][0]["document_id"], "birds/geese.md");
    assert_eq!(answer["cost_usd"], 0.0015);
    assert_eq!(answer["usage"]["input_tokens"], 42);
    assert_eq!(answer["path"][0]["region"], "iad");
    assert_eq!(
        (&answer["run_id"], &answer["thread_id"]),
        (&json!("run_geese"), &json!("thr_us_1"))
    );
    assert!(answer["degraded"].is_null());
}

#[tokio::test]
async fn an_unknown_price_is_not_zero_and_degraded_is_said() {
    let fake = Fake::start().await;
    assert!(fake.skein(&["ask", "unpriced"]).await.out.contains("cost unknown"));
    assert!(fake.skein(&["ask", "--json", "unpriced"]).await.json()["cost_usd"].is_null());
    let degraded = fake.skein(&["ask", "degraded"]).await;
    assert_eq!((degraded.code, degraded.err.as_str()), (Some(0), "degraded: no dense search\n"));
}

#[tokio::test]
async fn an_ended_lease_and_a_broken_stream_are_taken_up_where_they_ended() {
    for question in ["lease", "break"] {
        let fake = Fake::start().await;
        let ended = fake.skein(&["ask", question]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        assert!(ended.out.starts_with(&format!("{ANSWER}\n\n")), "{}", ended.out);
        let run = format!("run_{question}");
        assert_eq!(
            fake.log()[1..],
            [format!("stream {run} after 0"), format!("stream {run} after 4")]
        );
    }
}

#[tokio::test]
async fn a_failed_run_exits_by_its_reason() {
    let fake = Fake::start().await;
    let ended = fake.skein(&["ask", "budget"]).await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(5), ""));
    assert!(
        ended.err.contains("the budget of tenant dev is spent (BUDGET_EXCEEDED)"),
        "{}",
        ended.err
    );
    let ended = fake.skein(&["ask", "nobody"]).await;
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.err, "skein: ask: no agent named nobody\n");
}

#[tokio::test]
async fn ctrl_c_cancels_the_run() {
    let fake = Fake::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut child = fake.command(&["ask", "forever"], folder.path()).spawn().unwrap();
    let mut first = [0; 5];
    child.stdout.as_mut().unwrap().read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"Geese");
    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let ended = child.wait_with_output().await.unwrap();
    assert_eq!(ended.status.code(), Some(130));
    assert_eq!(*fake.cancelled.borrow(), ["run_forever"]);
    assert!(String::from_utf8(ended.stderr).unwrap().contains("cancelled run run_forever"));
}

#[tokio::test]
async fn a_closed_stdout_is_quiet_and_cancels_the_run() {
    let fake = Fake::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut child = fake.command(&["ask", "lease"], folder.path()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().await.unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(*fake.cancelled.borrow(), ["run_lease"]);
    let err = String::from_utf8(ended.stderr).unwrap();
    assert!(!err.contains("panicked") && !err.contains("skein:"), "{err}");
}

#[tokio::test]
async fn a_piped_chat_is_one_thread_and_goes_on_after_a_failure() {
    let fake = Fake::start().await;
    let ended = fake.typed(&["chat"], "geese\n\nbudget\nunpriced\n/exit\nlease\n").await;
    assert_eq!(ended.code, Some(5), "{}", ended.err);
    assert_eq!(ended.out.matches(ANSWER).count(), 2);
    let asked: Vec<_> = fake.log().into_iter().filter(|line| line.starts_with("create")).collect();
    assert_eq!(asked.len(), 3);
    assert!(asked[0].starts_with("create geese thread= "), "{asked:?}");
    assert!(asked[2].starts_with("create unpriced thread=thr_us_1 "), "{asked:?}");
    let ended = fake.typed(&["chat", "--json"], "geese\ngeese\n").await;
    assert_eq!((ended.code, ended.out.lines().count()), (Some(0), 2));
}

#[tokio::test]
async fn a_search_shows_passages() {
    let fake = Fake::start().await;
    let args =
        ["search", "--collection", "zoo", "--top-k", "3", "--mode", "keyword", "wild", "geese"];
    let ended = fake.skein(&args).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(
        ended.out.contains("1. Geese  (0.7500)\n   birds/geese.md bytes 10..38\n"),
        "{}",
        ended.out
    );
    assert_eq!(fake.log(), ["search zoo \"wild geese\" top_k=3 mode=Keyword"]);
    let ended = fake.skein(&["search", "--json", "dim"]).await;
    let hit = &ended.json()["hits"][0];
    assert_eq!(hit["span"], json!({ "start": 10, "end": 38 }));
    assert_eq!((&hit["score"], &hit["metadata"]), (&json!(0.75), &json!({ "lang": "en" })));
    assert_eq!(ended.json()["degraded"], "dense: no router");
    assert_eq!(ended.err, "degraded: dense: no router\n");
}
