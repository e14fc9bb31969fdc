//! What can go wrong in this crate. Every message is a sentence that names the thing, the numbers and what to do.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for makes no sense as it is.
    #[error("{0}")]
    BadInput(String),
    /// A model, a picture or a data set.
    #[error(transparent)]
    Model(#[from] lara_models::Error),
    /// The device.
    #[error(transparent)]
    Gpu(#[from] lara_runtime::Error),
    /// The operating system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// No window could be opened.
    #[error("{0}")]
    Window(String),
}
