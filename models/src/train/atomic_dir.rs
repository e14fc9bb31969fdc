//! Folders that appear whole or not at all: filled beside their place, synced, renamed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A folder being filled. No one sees it under its own name yet.
pub(super) struct NewFolder {
    path: PathBuf,
}

impl NewFolder {
    /// Adds a file and waits until the disk has it.
    pub(super) fn file(&self, name: &str, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let mut out = BufWriter::new(File::create_new(self.path.join(name))?);
        fill(&mut out)?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }

    /// Adds a file that is the same as `source`, which must not change any more.
    pub(super) fn link(&self, name: &str, source: &Path) -> io::Result<()> {
        let target = self.path.join(name);
        if fs::hard_link(source, &target).is_ok() {
            return Ok(());
        }
        fs::copy(source, &target)?;
        File::options().append(true).open(&target)?.sync_all()
    }
}

/// Makes `parent/name` the folder that `fill` fills, in place of what was there. If anything fails, what was there
/// stays.
pub(super) fn write(parent: &Path, name: &str, fill: impl FnOnce(&NewFolder) -> io::Result<()>) -> io::Result<()> {
    let folder = NewFolder { path: parent.join(format!(".{name}.new.tmp")) };
    remove_if_there(&folder.path)?;
    let filled = fs::create_dir(&folder.path)
        .and_then(|()| fill(&folder))
        .and_then(|()| sync_folder(&folder.path))
        .and_then(|()| replace(parent, name, &folder.path));
    if filled.is_err() {
        // The first error is the one to report; a leftover is removed by the next try.
        let _ = fs::remove_dir_all(&folder.path);
    }
    filled
}

/// A folder cannot be renamed over one that is not empty, so the old one steps aside; [`recover`] knows its name if the
/// program dies here.
fn replace(parent: &Path, name: &str, new: &Path) -> io::Result<()> {
    let target = parent.join(name);
    let aside = parent.join(format!(".{name}.old.tmp"));
    if !target.exists() {
        fs::rename(new, &target)?;
        return sync_folder(parent);
    }
    remove_if_there(&aside)?;
    fs::rename(&target, &aside)?;
    if let Err(error) = fs::rename(new, &target) {
        fs::rename(&aside, &target)?;
        return Err(error);
    }
    sync_folder(parent)?;
    // It is replaced already: a leftover does no harm and goes with the next `recover`.
    let _ = fs::remove_dir_all(&aside);
    Ok(())
}

/// Puts right what a crash left in `parent`: brings back a folder that had stepped aside, removes what is half written.
pub(super) fn recover(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some(name) = file_name.to_str().and_then(|name| name.strip_prefix('.')) else { continue };
        if let Some(name) = name.strip_suffix(".old.tmp")
            && !parent.join(name).exists()
        {
            fs::rename(entry.path(), parent.join(name))?;
        } else if name.ends_with(".old.tmp") || name.ends_with(".new.tmp") {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Makes the names in a folder durable. Windows has no such call and does not need it.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}
