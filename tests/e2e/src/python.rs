//! Official Python clients, in a virtual environment below the target folder.

use crate::{KEY, Mesh, programs, workspace};
use sha2::{Digest as _, Sha256};
use std::{fs, path::PathBuf, process::Command, sync::OnceLock};

static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();

/// The interpreter with `requirements.txt` installed; `None` without Python.
pub fn interpreter() -> Option<PathBuf> {
    PYTHON.get_or_init(install).clone()
}

fn install() -> Option<PathBuf> {
    let requirements = workspace().join("tests/e2e/python/requirements.txt");
    let digest = hex::encode(Sha256::digest(fs::read(&requirements).unwrap()));
    let dir = programs().parent()?.join(format!("e2e-python-{}", &digest[..12]));
    let python = dir.join("bin/python");
    let done = dir.join("installed");
    // Test binaries run one after the other, but their tests side by side.
    if !done.exists() {
        let run = |command: &mut Command| command.status().is_ok_and(|status| status.success());
        let _ = fs::remove_dir_all(&dir);
        if !run(Command::new("python3").args(["-m", "venv"]).arg(&dir)) {
            return None;
        }
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
        if !run(Command::new(&python).args(pip).arg(&requirements)) {
            return None;
        }
        fs::write(&done, "").unwrap();
    }
    Some(python)
}

/// Runs `tests/e2e/python/<script>` against `mesh`; its output is shown when it
/// fails. `false`: there is no Python here.
pub fn run(mesh: &Mesh, script: &str) -> bool {
    run_as(mesh, KEY, script)
}

/// The same with another API key than the developer's.
pub fn run_as(mesh: &Mesh, key: &str, script: &str) -> bool {
    let Some(python) = interpreter() else {
        crate::skip("no Python with pip and venv");
        return false;
    };
    let output = Command::new(python)
        .arg(workspace().join("tests/e2e/python").join(script))
        .current_dir(mesh.scratch())
        .env("SKEIN_URL", &mesh.url)
        .env("SKEIN_API_KEY", key)
        .env("SKEIN_PROTO", workspace().join("proto"))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{script} failed:\n{out}\n{err}");
    true
}
