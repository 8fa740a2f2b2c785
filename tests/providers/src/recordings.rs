//! Recorded streams of the real providers, where they lie beside the project.
//!
//! Invariants:
//! - Where there are none, a test says that it skips them.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

/// The recordings of `folder` whose names end so, in order; none where there
/// are no recordings.
pub fn recordings(folder: &str, ending: &str) -> Vec<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let recorded = project.join("../shared/data/provider-recordings").join(folder);
    let Ok(files) = fs::read_dir(recorded) else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: no recordings beside the project ({folder})");
        return Vec::new();
    };
    let mut files: Vec<_> = files
        .filter_map(|file| Some(file.ok()?.path()))
        .filter(|file| file.to_string_lossy().ends_with(ending))
        .collect();
    files.sort();
    files
}
