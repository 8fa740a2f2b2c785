//! What a machine sees of the others and of us: nothing.

use super::{ask, machine, spec, temporary, up};
use std::collections::BTreeSet;

#[tokio::test]
async fn the_environment_is_clean() {
    let root = temporary();
    let mut spec = spec(root.path());
    spec.prefix = Some("acme-staging".into());
    spec.apps[0].secrets.insert("ONLY_GATEWAY".into(), "1".into());
    let net = up(spec).await;
    let router = machine(&net, "acme-staging-router");
    let env = ask(&router, "/env").await;
    let env: Vec<_> = env.split('\0').filter_map(|line| line.split_once('=')).collect();
    // PWD, SHLVL and _ are what `sh` adds on its own
    let names: BTreeSet<_> = env
        .iter()
        .map(|(name, _)| *name)
        .filter(|n| !["PWD", "OLDPWD", "SHLVL", "_"].contains(n))
        .collect();
    let expected = [
        "AGENTS",
        "DATA_DIR",
        "FLY_ALLOC_ID",
        "FLY_APP_NAME",
        "FLY_IMAGE_REF",
        "FLY_MACHINE_ID",
        "FLY_MACHINE_VERSION",
        "FLY_PRIVATE_IP",
        "FLY_PROCESS_GROUP",
        "FLY_REGION",
        "FLY_VM_MEMORY_MB",
        "HOME",
        "LANG",
        "PATH",
        "PORT",
        "PRIMARY_REGION",
        "SKEIN_LISTEN__HOST",
        "SKEIN_MESH_KEY",
        "SKEIN_MESH_PEERS",
        "SKEIN_MESH__DNS",
        "SKEIN_MESH__FLY_API",
        "TMPDIR",
    ];
    assert_eq!(names, BTreeSet::from(expected));
    let is = |name: &str| env.iter().find(|(n, _)| *n == name).unwrap().1;
    assert_eq!(is("FLY_APP_NAME"), "acme-staging-router");
    assert_eq!(is("FLY_PRIVATE_IP"), format!("::ffff:{}", router.address));
    assert_eq!(is("SKEIN_MESH__DNS"), net.dns());
    assert_eq!(std::fs::read_to_string(is("AGENTS")).unwrap(), "[agent.default]\n");
    assert!(is("AGENTS").starts_with(is("HOME")));
}

#[tokio::test]
async fn no_two_machines_have_a_writable_file_in_common() {
    let root = temporary();
    let mut spec = spec(root.path());
    spec.apps[1].placement = vec![("iad".into(), 2), ("fra".into(), 1)];
    let net = up(spec).await;
    let mut seen = BTreeSet::new();
    for machine in net.machines() {
        let files = ask(&machine, "/files").await;
        // stdout and stderr are one file
        let files: BTreeSet<_> = files.lines().filter(|line| !line.starts_with("/dev")).collect();
        for file in files {
            assert!(seen.insert(file.to_owned()), "{file} belongs to two machines");
        }
        for directory in
            net.directory(&machine.id).into_iter().chain(net.volume(&machine.id, "/data"))
        {
            assert!(seen.insert(directory.display().to_string()));
        }
    }
    // a log and a directory each, a volume for each router
    assert!(seen.len() >= 4 * 2 + 3, "{seen:?}");
}

#[tokio::test]
async fn networks_run_side_by_side() {
    let (one, two) = (temporary(), temporary());
    let (one, two) = (up(spec(one.path())).await, up(spec(two.path())).await);
    assert_ne!(one.dns(), two.dns());
    assert_ne!(one.edge(), two.edge());
    let (a, b) = (machine(&one, "echo-router"), machine(&two, "echo-router"));
    assert_ne!(a.address, b.address);
    one.stop_machines("router").await.unwrap();
    assert_eq!(ask(&b, "/readyz").await, "ready");
}
