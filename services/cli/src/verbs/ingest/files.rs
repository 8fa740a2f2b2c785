//! Which files a path stands for, and by which ids.
//!
//! Invariants:
//! - An id is the path below the folder given, with forward slashes; that of a
//!   file given by itself is its name.
//! - In folders, hidden entries, `node_modules` and `target` are skipped; what
//!   is named on the command line is always read.
//! - Symbolic links are followed, and no folder is entered twice.
//! - The order is that of the names, so that two calls do the same.

use super::records::{self, Read};
use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

pub(super) const KINDS: [&str; 6] = [".md", ".markdown", ".txt", ".html", ".htm", ".jsonl"];
const SKIPPED: [&str; 2] = ["node_modules", "target"];

/// A file that will be read.
pub(super) struct Entry {
    path: PathBuf,
    id: String,
    /// Lines that hold a document; none for a file that is one.
    lines: Option<u64>,
}

/// Files in order, and what could not be looked at.
#[derive(Default)]
pub(super) struct Found {
    pub(super) entries: Vec<Entry>,
    pub(super) failed: Vec<(String, String)>,
}

impl Entry {
    /// The document's id, where the file is one document.
    pub(super) fn id(&self) -> Option<&str> {
        self.lines.is_none().then_some(self.id.as_str())
    }

    pub(super) fn documents(&self) -> u64 {
        self.lines.unwrap_or(1)
    }

    /// The documents of the file, read as they are asked for.
    pub(super) fn read(&self) -> Box<dyn Iterator<Item = Read> + '_> {
        match self.lines {
            Some(_) => records::lines(&self.path),
            None => Box::new(std::iter::once_with(|| records::whole(&self.path, &self.id))),
        }
    }
}

pub(super) fn find(paths: &[PathBuf]) -> Found {
    let mut found = Found::default();
    for path in paths {
        let mut entered = HashSet::new();
        let outcome = match fs::metadata(path) {
            Ok(kind) if kind.is_dir() => found.enter(path, "", &mut entered),
            Ok(_) => found.add(path.clone(), name(path)),
            Err(error) => Err(error),
        };
        found.note(path, outcome);
    }
    found
}

impl Found {
    fn note(&mut self, path: &Path, outcome: io::Result<()>) {
        if let Err(error) = outcome {
            self.failed.push((path.display().to_string(), error.to_string()));
        }
    }

    fn add(&mut self, path: PathBuf, id: String) -> io::Result<()> {
        let lines = if is_kind(&path, &["jsonl"]) { Some(records::count(&path)?) } else { None };
        self.entries.push(Entry { path, id, lines });
        Ok(())
    }

    fn enter(&mut self, folder: &Path, id: &str, entered: &mut HashSet<PathBuf>) -> io::Result<()> {
        if !entered.insert(folder.canonicalize()?) {
            return Ok(());
        }
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder)? {
            paths.push(entry?.path());
        }
        paths.sort();
        for path in paths {
            let name = name(&path);
            if name.starts_with('.') || SKIPPED.contains(&name.as_str()) {
                continue;
            }
            let id = if id.is_empty() { name } else { format!("{id}/{name}") };
            let outcome = match fs::metadata(&path) {
                Ok(kind) if kind.is_dir() => self.enter(&path, &id, entered),
                Ok(kind) if kind.is_file() && is_document(&path) => self.add(path.clone(), id),
                Ok(_) => Ok(()),
                // a link that leads nowhere holds no document
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(_) if !is_document(&path) => Ok(()),
                Err(error) => Err(error),
            };
            self.note(&path, outcome);
        }
        Ok(())
    }
}

fn name(path: &Path) -> String {
    // `..` and `/` have no name of their own; they are never files
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_document(path: &Path) -> bool {
    is_kind(path, &KINDS.map(|kind| kind.trim_start_matches('.')))
}

pub(super) fn is_kind(path: &Path, kinds: &[&str]) -> bool {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    kinds.iter().any(|kind| extension == *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(found: &Found) -> Vec<&str> {
        found.entries.iter().map(|entry| entry.id.as_str()).collect()
    }

    #[test]
    fn a_folder_gives_its_documents_by_their_place_in_it() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["b/c", ".git", "node_modules/x", "target"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        for file in [
            "a.md",
            "b/c/d.TXT",
            "b/e.rs",
            ".git/f.md",
            "node_modules/x/g.md",
            "target/h.md",
            ".i.md",
        ] {
            fs::write(root.path().join(file), "text").unwrap();
        }
        let found = find(&[root.path().to_owned()]);
        assert_eq!(ids(&found), ["a.md", "b/c/d.TXT"]);
        assert_eq!(found.failed, []);
        let found = find(&[root.path().join("b/e.rs"), root.path().join("missing")]);
        assert_eq!(ids(&found), ["e.rs"]);
        assert!(found.failed[0].0.ends_with("missing"));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_loops_end() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("a")).unwrap();
        fs::write(root.path().join("a/x.md"), "text").unwrap();
        symlink(root.path(), root.path().join("a/loop")).unwrap();
        symlink(root.path().join("a/x.md"), root.path().join("y.md")).unwrap();
        symlink(root.path().join("nowhere.md"), root.path().join("z.md")).unwrap();
        let found = find(&[root.path().to_owned()]);
        assert_eq!(ids(&found), ["a/x.md", "y.md"]);
        assert_eq!(found.failed, []);
    }
}
