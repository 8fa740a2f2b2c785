//! `ingest`.

use super::{Ended, Fake, end};
use serde_json::json;
use std::{fs, path::Path};

async fn ingest(fake: &Fake, folder: &Path, args: &[&str]) -> Ended {
    end(fake.command(&[&["ingest"], args].concat(), folder)).await
}

fn puts(fake: &Fake) -> Vec<String> {
    let mut puts: Vec<_> = fake.log().into_iter().filter(|line| line.starts_with("put")).collect();
    puts.sort();
    puts
}

#[tokio::test]
async fn unchanged_files_are_not_sent_again() {
    let (fake, root) = (Fake::start().await, tempfile::tempdir().unwrap());
    let docs = root.path().join("docs");
    fs::create_dir_all(docs.join("en")).unwrap();
    fs::write(docs.join("en/a.md"), "intro\n# Title of A\ntext").unwrap();
    fs::write(docs.join("b.html"), "<title>B</title>x").unwrap();
    fs::write(docs.join("c.txt"), "plain").unwrap();
    fs::write(docs.join("d.rs"), "fn main() {}").unwrap();

    let first = ingest(&fake, root.path(), &["docs"]).await;
    assert_eq!((first.code, first.err.as_str()), (Some(0), ""));
    assert_eq!(first.out, "3 new, 0 changed, 0 unchanged, 0 failed\n");
    assert_eq!(
        puts(&fake),
        [
            "put default/b.html \"B\" format=3 ",
            "put default/c.txt \"c\" format=1 ",
            "put default/en/a.md \"Title of A\" format=2 ",
        ]
    );
    fs::write(docs.join("c.txt"), "other").unwrap();
    let second = ingest(&fake, root.path(), &["docs", "--json"]).await;
    assert_eq!(
        second.json(),
        json!({ "collection": "default", "new": 0, "changed": 1, "unchanged": 2, "failed": 0,
                "failures": [] })
    );
    assert_eq!(puts(&fake).len(), 4, "only the changed file is sent");
}

#[tokio::test]
async fn a_file_is_known_by_its_name_and_a_prefix_goes_before() {
    let (fake, root) = (Fake::start().await, tempfile::tempdir().unwrap());
    fs::create_dir_all(root.path().join("x/y")).unwrap();
    fs::write(root.path().join("x/y/a.md"), "one").unwrap();
    fs::write(root.path().join("a.md"), "two").unwrap();
    let args = ["x/y/a.md", "--prefix", "hr/", "--collection", "handbook"];
    assert_eq!(ingest(&fake, root.path(), &args).await.code, Some(0));
    assert_eq!(puts(&fake), ["put handbook/hr/a.md \"a\" format=2 "]);
    assert_eq!(fake.log()[0], "list \"hr/a.md\" after \"\"");
    let twice = ingest(&fake, root.path(), &["x/y/a.md", "a.md"]).await;
    assert_eq!(twice.code, Some(1));
    assert!(twice.err.contains("failed: a.md: another document"), "{}", twice.err);
}

#[tokio::test]
async fn each_line_of_jsonl_is_a_document() {
    let (fake, root) = (Fake::start().await, tempfile::tempdir().unwrap());
    let lines = [
        r#"{"id":"q1","title":"One","text":"first","metadata":{"lang":"en"}}"#,
        "",
        r#"{"id":"q2","title":"Two"}"#,
        r#"{"id":3,"text":"third"}"#,
        r#"{"id":"q1","text":"again"}"#,
    ];
    fs::write(root.path().join("faq.jsonl"), lines.join("\n")).unwrap();
    let ended = ingest(&fake, root.path(), &["faq.jsonl"]).await;
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.out, "2 new, 0 changed, 0 unchanged, 2 failed\n");
    assert!(ended.err.contains("failed: faq.jsonl:3: not a JSON object"), "{}", ended.err);
    assert!(ended.err.contains("failed: q1: another document"), "{}", ended.err);
    assert_eq!(
        puts(&fake),
        ["put default/3 \"\" format=1 ", r#"put default/q1 "One" format=1 {"lang":"en"}"#]
    );
    fs::write(root.path().join("faq.jsonl"), lines[0]).unwrap();
    let again = ingest(&fake, root.path(), &["faq.jsonl"]).await;
    assert_eq!(again.out, "0 new, 0 changed, 1 unchanged, 0 failed\n");
}

#[tokio::test]
async fn one_bad_document_never_keeps_another_out() {
    let (fake, root) = (Fake::start().await, tempfile::tempdir().unwrap());
    fs::write(root.path().join("a.txt"), b"abc\xffdef").unwrap();
    fs::write(root.path().join("b.txt"), "poison").unwrap();
    fs::write(root.path().join("c.txt"), "good").unwrap();
    let ended = ingest(&fake, root.path(), &[".", "missing.md"]).await;
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.out, "1 new, 0 changed, 0 unchanged, 3 failed\n");
    for failure in [
        "failed: ./a.txt: not UTF-8 at byte 3",
        "failed: b.txt: the text is poison",
        "failed: missing.md: ",
    ] {
        assert!(ended.err.contains(failure), "{}", ended.err);
    }
}

#[tokio::test]
async fn progress_is_a_line_now_and_then_where_there_is_no_terminal() {
    let (fake, root) = (Fake::start().await, tempfile::tempdir().unwrap());
    let lines: String = (0..250).map(|id| format!("{{\"id\":{id},\"text\":\"t\"}}\n")).collect();
    fs::write(root.path().join("many.jsonl"), lines).unwrap();
    let ended = ingest(&fake, root.path(), &["many.jsonl"]).await;
    assert_eq!(ended.out, "250 new, 0 changed, 0 unchanged, 0 failed\n");
    assert_eq!(ended.err, "100 of 250 documents\n200 of 250 documents\n");
}

#[tokio::test]
async fn nothing_to_ingest_is_a_failure() {
    let (fake, root) = (Fake::start().await, tempfile::tempdir().unwrap());
    let ended = ingest(&fake, root.path(), &["."]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("nothing to ingest"), "{}", ended.err);
}
