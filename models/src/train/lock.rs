//! One process a run: a lock on the run's folder, which dies with the process that holds it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// The file that is locked. It stays when the lock goes: removing it would race with whoever takes it next.
const LOCK_FILE: &str = ".lock";

/// Held as long as this process writes into a run's folder.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// Takes the lock of the run in `dir`, which must exist.
    ///
    /// # Errors
    /// Another process (or another trainer of this one) holds it: the sentence names it. A folder that cannot be
    /// written to.
    pub fn take(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let path = dir.join(LOCK_FILE);
        // Not truncated: until it is locked, it is another's.
        let mut file = match OpenOptions::new().create(true).truncate(false).write(true).open(&path) {
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
                let advice = "a run writes its checkpoints there; copy it to a folder that can be written to, or choose another output.dir";
                return Err(Error::input(dir, format!("cannot be written to ({error}): {advice}")));
            }
            result => result.map_err(Error::io("create", &path))?,
        };
        match file.try_lock() {
            Ok(()) => {
                // Only for the sentence that another process gets.
                let owner =
                    format!("process {}{}\n", std::process::id(), host().map_or(String::new(), |h| format!(" on {h}")));
                let _ = file.set_len(0).and_then(|()| file.write_all(owner.as_bytes()));
            }
            Err(TryLockError::WouldBlock) => {
                let owner = std::fs::read_to_string(&path).unwrap_or_default();
                let owner = if owner.trim().is_empty() { "another process" } else { owner.trim() };
                return Err(Error::input(
                    dir,
                    format!(
                        "is being written by {owner}; wait until that run ends or stop it, or choose another output.dir"
                    ),
                ));
            }
            Err(TryLockError::Error(error)) => {
                tracing::warn!(
                    "{} cannot be locked ({error}); see to it that only one process writes there",
                    dir.display()
                );
            }
        }
        Ok(RunLock { _file: file })
    }
}

fn host() -> Option<String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = kernel.or_else(|| std::env::var("HOSTNAME").ok()).or_else(|| std::env::var("COMPUTERNAME").ok())?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}
