//! Folders that appear whole or not at all and go the same way: filled beside their place, synced, renamed; renamed,
//! then removed. What a kill between any two of these steps leaves, [`recover`] puts right.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A folder that is being filled.
const NEW: &str = ".new.tmp";
/// A folder that stepped aside for a new one of its name.
const OLD: &str = ".old.tmp";
/// A folder that is being removed.
const GONE: &str = ".gone.tmp";

/// A folder being filled. No one sees it under its own name yet.
pub(super) struct NewDir {
    path: PathBuf,
}

/// What tells a file from a damaged copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Checksum {
    bytes: u64,
    crc32: u32,
}

impl Checksum {
    /// The checksum of a file's bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Checksum { bytes: bytes.len() as u64, crc32: crc32fast::hash(bytes) }
    }
}

/// Sums up what passes through.
struct Summing<W> {
    out: W,
    bytes: u64,
    crc32: crc32fast::Hasher,
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        mortal();
        let written = self.out.write(buffer)?;
        self.bytes += written as u64;
        self.crc32.update(&buffer[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl NewDir {
    /// Adds a file and waits until the disk has it.
    pub(super) fn file(&self, name: &str, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<Checksum> {
        mortal();
        let file = File::create_new(self.path.join(name))?;
        let mut out = BufWriter::new(Summing { out: file, bytes: 0, crc32: crc32fast::Hasher::new() });
        fill(&mut out)?;
        let Summing { out, bytes, crc32 } = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        mortal();
        out.sync_all()?;
        Ok(Checksum { bytes, crc32: crc32.finalize() })
    }

    /// Adds a file that is the same as `source`, which must not change any more.
    pub(super) fn link(&self, name: &str, source: &Path) -> io::Result<()> {
        let target = self.path.join(name);
        mortal();
        if fs::hard_link(source, &target).is_ok() {
            return Ok(());
        }
        fs::copy(source, &target)?;
        File::options().append(true).open(&target)?.sync_all()
    }
}

/// Makes `parent/name` the folder that `fill` fills, in place of what was there. If anything fails, what was there
/// stays.
pub(super) fn write(parent: &Path, name: &str, fill: impl FnOnce(&NewDir) -> io::Result<()>) -> io::Result<()> {
    let folder = NewDir { path: hidden(parent, name, NEW) };
    remove_if_there(&folder.path)?;
    mortal();
    let filled = fs::create_dir(&folder.path)
        .and_then(|()| fill(&folder))
        .and_then(|()| sync_dir(&folder.path))
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
    let aside = hidden(parent, name, OLD);
    if !target.exists() {
        rename(new, &target)?;
        return sync_dir(parent);
    }
    remove_if_there(&aside)?;
    rename(&target, &aside)?;
    if let Err(error) = rename(new, &target) {
        rename(&aside, &target)?;
        return Err(error);
    }
    sync_dir(parent)?;
    // It is replaced already: a leftover does no harm and goes with the next `recover`.
    let _ = remove_if_there(&aside);
    Ok(())
}

/// Removes `parent/name`. It loses its name first: who dies half-way through leaves nothing that looks like a folder of
/// that name.
pub(super) fn remove(parent: &Path, name: &str) -> io::Result<()> {
    let gone = hidden(parent, name, GONE);
    remove_if_there(&gone)?;
    rename(&parent.join(name), &gone)?;
    sync_dir(parent)?;
    remove_if_there(&gone)
}

/// Puts right what a crash left in `parent`: brings back a folder that had stepped aside, removes what is half written
/// or half removed. What cannot be removed is in nobody's way and is only said.
pub(super) fn recover(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        let Some(hidden) = path.file_name().and_then(|name| name.to_str()?.strip_prefix('.')) else { continue };
        let result = match hidden.strip_suffix(OLD).map(|name| parent.join(name)) {
            Some(target) if !target.exists() => rename(&path, &target),
            None if !hidden.ends_with(NEW) && !hidden.ends_with(GONE) => continue,
            _ => remove_if_there(&path),
        };
        if let Err(error) = result {
            tracing::warn!("{} is left of a run that was killed and cannot be put right: {error}", path.display());
        }
    }
    Ok(())
}

fn hidden(parent: &Path, name: &str, suffix: &str) -> PathBuf {
    parent.join(format!(".{name}{suffix}"))
}

/// Removes a folder, file by file, or a file.
fn remove_if_there(path: &Path) -> io::Result<()> {
    mortal();
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::read_dir(path)
            .and_then(|mut entries| entries.try_for_each(|entry| remove_if_there(&entry?.path())))
            .and_then(|()| fs::remove_dir(path)),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    mortal();
    fs::rename(from, to)
}

/// Makes the names in a folder durable. Windows has no such call and does not need it.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// A place at which the process may be killed: before every change of the disk. The tests kill it at each.
#[cfg(not(test))]
fn mortal() {}

#[cfg(test)]
use killed::mortal;

#[cfg(test)]
pub(super) mod killed {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    thread_local! {
        static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    struct Killed;

    pub(super) fn mortal() {
        let left = LEFT.get();
        if left == 0 {
            resume_unwind(Box::new(Killed));
        }
        LEFT.set(left - 1);
    }

    /// Runs `work` and kills it before its change number `after` of the disk. Whether it lived to its end. Nothing tidies
    /// up after a kill: unwinding only drops, and what [`atomic_dir`](super) drops are open files.
    pub(in super::super) fn kill_after(after: usize, work: impl FnOnce()) -> bool {
        LEFT.set(after);
        let lived = catch_unwind(AssertUnwindSafe(work));
        LEFT.set(usize::MAX);
        match lived {
            Ok(()) => true,
            Err(other) => match other.downcast::<Killed>() {
                Ok(_) => false,
                Err(panic) => resume_unwind(panic),
            },
        }
    }
}
