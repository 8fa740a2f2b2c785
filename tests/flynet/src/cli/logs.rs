//! `flynet logs`: the files below `<root>/logs`, also of a network that is down.

use super::{Failure, say};
use clap::Args;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

const EVERY: Duration = Duration::from_millis(100);

#[derive(Args)]
pub(crate) struct Logs {
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// A machine id, an app or a role; all machines when absent
    #[arg(value_name = "APP|ID")]
    target: Option<String>,
}

impl Logs {
    pub(crate) async fn run(&self, root: &Path) -> Result<(), Failure> {
        let logs = root.join("logs");
        let mut seen = BTreeMap::new();
        loop {
            let files = self.files(&logs)?;
            if files.is_empty() && !self.follow {
                let whose = self.target.as_deref().unwrap_or("any machine");
                let text = format!("no log of {whose} in {}", logs.display());
                return Err(Failure::new(text));
            }
            for file in files {
                print_new(&file, seen.entry(file.clone()).or_insert(0))?;
            }
            if !self.follow {
                return Ok(());
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    fn files(&self, logs: &Path) -> Result<Vec<PathBuf>, Failure> {
        let missing = |error| {
            Failure::new(format!("cannot read {}: {error}; has `flynet up` run?", logs.display()))
        };
        let entries = fs::read_dir(logs).map_err(missing)?;
        let mut files: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| self.wants(path))
            .collect();
        files.sort();
        Ok(files)
    }

    /// A file is called `<app>-<id>.log`.
    fn wants(&self, path: &Path) -> bool {
        let Some((app, id)) =
            label(path).rsplit_once('-').map(|(a, i)| (a.to_owned(), i.to_owned()))
        else {
            return false;
        };
        self.target.as_ref().is_none_or(|target| {
            *target == app || *target == id || app.ends_with(&format!("-{target}"))
        })
    }
}

fn label(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Whole lines only; a shorter file is a new one.
fn print_new(path: &Path, from: &mut u64) -> Result<(), Failure> {
    let failed = |error| Failure::new(format!("cannot read {}: {error}", path.display()));
    let text = read(path, from).map_err(failed)?;
    let Some(end) = text.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
    for line in String::from_utf8_lossy(&text[..end]).split('\n') {
        say(format_args!("{} | {line}", label(path)))?;
    }
    *from += u64::try_from(end).unwrap_or(u64::MAX).saturating_add(1);
    Ok(())
}

fn read(path: &Path, from: &mut u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() < *from {
        *from = 0;
    }
    file.seek(SeekFrom::Start(*from))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(text)
}
