//! What can go wrong here. Every message is a sentence with names, numbers and what to do.

use std::io;
use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error in looking at a model or in writing what was seen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {what} {}: {source}; choose a folder that can be written to and has room", path.display())]
    Io {
        /// What was tried, as a verb: `write`, `create the folder`.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Numbers or settings that do not go together.
    #[error("{0}")]
    BadInput(String),
    /// The model could not be read or does not fit.
    #[error(transparent)]
    Model(#[from] lara_models::Error),
    /// The adapter failed or allows too little.
    #[error(transparent)]
    Gpu(#[from] lara_runtime::Error),
}

impl Error {
    /// True if the user can mend it (exit code 2), false if something failed underneath (exit code 1).
    pub fn is_bad_input(&self) -> bool {
        match self {
            Error::BadInput(_) => true,
            // The folder is the user's choice; a full disk is not.
            Error::Io { source, .. } => source.kind() != io::ErrorKind::StorageFull,
            Error::Model(error) => error.is_bad_input(),
            Error::Gpu(error) => error.is_bad_input(),
        }
    }
}
