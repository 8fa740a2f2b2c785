//! Which gateway, which key, and what a wrong one looks like.

use super::{Fake, bare, end, fakes::KEY};
use std::{fs, net::TcpListener};

#[tokio::test]
async fn after_make_up_nothing_has_to_be_set() {
    let fake = Fake::start().await;
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("a/b");
    fs::create_dir_all(&below).unwrap();
    fs::create_dir(folder.path().join(".skein")).unwrap();
    fs::write(folder.path().join(".skein/dev.key"), format!("{KEY}\n")).unwrap();
    let mut command = bare(&["search", "geese"], &below);
    command.env("SKEIN_PORT", fake.address.port().to_string());
    let ended = end(command).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
}

#[tokio::test]
async fn a_wrong_key_is_named_by_its_place() {
    let fake = Fake::start().await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("key"), "sk-wrong").unwrap();
    for args in [["ask", "x"], ["search", "x"], ["keys", "list"], ["ingest", "key"]] {
        let mut command = bare(&args, folder.path());
        command.args(["--url", &fake.url(), "--api-key-file", "key"]);
        let ended = end(command).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(3), ""), "{args:?}");
        assert!(ended.err.contains("does not accept the key from key"), "{}", ended.err);
        assert!(!ended.err.contains("sk-wrong"), "{}", ended.err);
    }
}

#[tokio::test]
async fn no_key_says_where_one_is_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let ended = end(bare(&["status"], folder.path())).await;
    assert_eq!(ended.code, Some(3));
    assert!(ended.err.contains("SKEIN_API_KEY") && ended.err.contains("make up"), "{}", ended.err);
}

#[tokio::test]
async fn an_unreachable_mesh_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    // bound and never accepting gRPC: closed again, so that nobody listens
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = bare(&["ask", "x"], folder.path());
    command.env("SKEIN_PORT", port.to_string()).env("SKEIN_API_KEY", KEY);
    let ended = end(command).await;
    assert_eq!(ended.code, Some(4));
    let expected = format!("skein: cannot reach http://127.0.0.1:{port}: ");
    assert!(ended.err.starts_with(&expected), "{}", ended.err);
    assert!(ended.err.contains("try `make up`"), "{}", ended.err);
}

#[tokio::test]
async fn a_wrong_command_line_exits_2_and_help_exits_0() {
    let folder = tempfile::tempdir().unwrap();
    let wrong: [&[&str]; 9] = [
        &[],
        &["fly"],
        &["ask"],
        &["ask", "x", "--top-k", "0"],
        &["search", "x", "--mode", "psychic"],
        &["keys", "create", "--tenant", "a", "--expires", "soon"],
        &["keys", "create", "--tenant", "a", "--scope", "root"],
        &["status", "--url", "acme"],
        &["token", "--audience", "router", "--tenant", "dev"],
    ];
    for args in wrong {
        let ended = end(bare(args, folder.path())).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{args:?}");
        assert!(!ended.err.is_empty(), "{args:?}");
    }
    for verb in
        ["ask", "chat", "ingest", "search", "status", "config", "keys", "mesh-keys", "token"]
    {
        let mut command = bare(&[verb, "--help"], folder.path());
        command.env("SKEIN_API_KEY", "sk-hidden").env("SKEIN_MESH_KEY", "sk-hidden");
        let ended = end(command).await;
        assert_eq!(ended.code, Some(0), "{verb}");
        assert!(ended.out.contains("Examples:") && !ended.out.contains("sk-hidden"), "{verb}");
    }
}
