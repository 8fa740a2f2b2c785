//! Official Python clients for tests, in virtual environments below the target
//! folder: one for each set of requirements.
//!
//! Invariants:
//! - What is installed is what the requirements say: another set is another
//!   environment.
//! - Where there is no Python with pip and venv, the answer is `None`.

#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

static MADE: Mutex<Option<HashMap<PathBuf, Option<PathBuf>>>> = Mutex::new(None);

/// The interpreter with `requirements` (a pip file) installed; its environment
/// is `target/<name>-<digest>`.
pub fn interpreter(name: &str, requirements: &Path) -> Option<PathBuf> {
    // Tests run side by side: one installs, the others wait for it.
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let made = made.get_or_insert_default();
    let install = || install(name, requirements);
    made.entry(requirements.to_owned()).or_insert_with(install).clone()
}

fn install(name: &str, requirements: &Path) -> Option<PathBuf> {
    let digest = hex::encode(Sha256::digest(fs::read(requirements).unwrap()));
    let dir = target().join(format!("{name}-{}", &digest[..12]));
    let python = dir.join("bin/python");
    let done = dir.join("installed");
    if !done.exists() {
        let run = |command: &mut Command| command.status().is_ok_and(|status| status.success());
        let _ = fs::remove_dir_all(&dir);
        if !run(Command::new("python3").args(["-m", "venv"]).arg(&dir)) {
            return None;
        }
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
        if !run(Command::new(&python).args(pip).arg(requirements)) {
            return None;
        }
        fs::write(&done, "").unwrap();
    }
    Some(python)
}

/// Cargo's target folder: this program is in `<target>/<profile>[/deps]`.
fn target() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let folder = own.parent().unwrap();
    let profile = if folder.ends_with("deps") { folder.parent().unwrap() } else { folder };
    profile.parent().unwrap().to_owned()
}

/// Gives the stdout of `command`; shows everything it wrote when it fails.
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?} failed:\n{out}\n{err}");
    out
}

/// Says why a test did nothing. Past `println!`, which cargo hides when the test
/// passes.
pub fn skip() {
    let _ = writeln!(std::io::stderr(), "SKIPPED: no Python with pip and venv");
}
