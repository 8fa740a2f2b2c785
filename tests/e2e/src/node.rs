//! Official Node clients, installed from `node/package-lock.json` into a folder
//! below the target folder.
//!
//! Invariants:
//! - What is installed is what the lock file says, byte for byte.
//! - Each script runs in a folder of its own, so that tests can run side by side.

use crate::{KEY, Mesh, programs, python, skip, workspace};
use python_env::succeed;
use sha2::{Digest as _, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

static NODE: OnceLock<Option<PathBuf>> = OnceLock::new();

/// The folder whose `node_modules` holds the locked packages; `None` without
/// Node and npm. Scripts below it find them.
pub fn packages() -> Option<PathBuf> {
    NODE.get_or_init(install).clone()
}

fn sources() -> PathBuf {
    workspace().join("tests/e2e/node")
}

fn install() -> Option<PathBuf> {
    let lock = fs::read(sources().join("package-lock.json")).unwrap();
    let digest = hex::encode(Sha256::digest(lock));
    let dir = programs().parent()?.join(format!("e2e-node-{}", &digest[..12]));
    let done = dir.join("installed");
    if !done.exists() {
        let works = |command: &mut Command| command.status().is_ok_and(|status| status.success());
        if !works(Command::new("node").arg("--version")) {
            return None;
        }
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        for name in ["package.json", "package-lock.json"] {
            fs::copy(sources().join(name), dir.join(name)).unwrap();
        }
        let npm = ["ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"];
        if !works(Command::new("npm").args(npm).current_dir(&dir)) {
            return None;
        }
        fs::write(&done, "").unwrap();
    }
    Some(dir)
}

/// Runs `tests/e2e/node/<script>` against `mesh`, with stubs generated from
/// `proto/` in `gen/` beside it. `false`: there is no Node or no Python here.
pub fn run(mesh: &Mesh, script: &str) -> bool {
    let (Some(packages), Some(python)) = (packages(), python::interpreter()) else {
        skip("no Node with npm, or no Python with pip and venv");
        return false;
    };
    let dir = tempfile::tempdir_in(&packages).unwrap();
    generate(&python, &packages, &dir.path().join("gen"));
    fs::copy(sources().join(script), dir.path().join(script)).unwrap();
    let mut node = Command::new("node");
    node.arg(script).current_dir(dir.path());
    succeed(node.env("SKEIN_URL", &mesh.url).env("SKEIN_API_KEY", KEY));
    true
}

/// `protoc` comes with Python's grpcio-tools, the generator is a Node package.
fn generate(python: &Path, packages: &Path, out: &Path) {
    let proto = workspace().join("proto");
    fs::create_dir_all(out).unwrap();
    let mut command = Command::new(python);
    command.args(["-m", "grpc_tools.protoc"]).current_dir(&proto);
    let generator = packages.join("node_modules/.bin/protoc-gen-es");
    command.arg(format!("--plugin=protoc-gen-es={}", generator.display()));
    command.arg(format!("--es_out={}", out.display()));
    command.args(["--es_opt=target=js,import_extension=js", "--proto_path=."]);
    for name in ["admin", "agent", "mesh", "model", "retrieval", "tool"] {
        command.arg(format!("skein/{name}/v1/{name}.proto"));
    }
    succeed(&mut command);
}
