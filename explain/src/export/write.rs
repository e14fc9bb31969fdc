//! Files of a sheet on disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::export::{File, Format, Sheet, each_file};

/// Writes the files of a sheet into `dir`, which is created if need be, and returns their paths. Each is written under
/// another name and renamed, so that it is there whole or not at all; one of the same name is replaced.
///
/// # Errors
/// If the sheet's parts do not go together or a file cannot be written; files before it are left.
pub fn write(sheet: &Sheet, formats: &[Format], dir: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let dir = dir.as_ref();
    sheet.check()?;
    create(dir)?;
    let mut paths = Vec::new();
    each_file(sheet, formats, &mut |file| {
        paths.push(write_file(&file, dir)?);
        Ok(())
    })?;
    Ok(paths)
}

/// Writes files that were made before, in the same way.
///
/// # Errors
/// If a file cannot be written; files before it are left.
pub fn write_files(files: &[File], dir: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let dir = dir.as_ref();
    create(dir)?;
    files.iter().map(|file| write_file(file, dir)).collect()
}

fn create(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|source| Error::Io { what: "create the folder", path: dir.into(), source })
}

fn write_file(file: &File, dir: &Path) -> Result<PathBuf> {
    let path = dir.join(&file.name);
    match replace(&path, &file.bytes) {
        Ok(()) => Ok(path),
        Err(source) => Err(Error::Io { what: "write", path, source }),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // No two writers share a name, be they threads or processes.
    let own = format!("{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let temporary = path.with_file_name(format!(".{own}"));
    let done = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if done.is_err() {
        // What was begun is of no use; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    done
}
