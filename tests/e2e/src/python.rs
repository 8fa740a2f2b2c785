//! Official Python clients against a mesh.

use crate::{KEY, Mesh, workspace};
use std::{path::PathBuf, process::Command};

/// The interpreter with `requirements.txt` installed; `None` without Python.
pub fn interpreter() -> Option<PathBuf> {
    python_env::interpreter("e2e-python", &workspace().join("tests/e2e/python/requirements.txt"))
}

/// Runs `tests/e2e/python/<script>` against `mesh`; its output is shown when it
/// fails. `false`: there is no Python here.
pub fn run(mesh: &Mesh, script: &str) -> bool {
    run_as(mesh, KEY, script)
}

/// The same with another API key than the developer's.
pub fn run_as(mesh: &Mesh, key: &str, script: &str) -> bool {
    let Some(python) = interpreter() else {
        python_env::skip();
        return false;
    };
    python_env::succeed(
        Command::new(python)
            .arg(workspace().join("tests/e2e/python").join(script))
            .current_dir(mesh.scratch())
            .env("SKEIN_URL", &mesh.url)
            .env("SKEIN_API_KEY", key)
            .env("SKEIN_PROTO", workspace().join("proto")),
    );
    true
}
