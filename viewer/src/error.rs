//! What can go wrong in the viewer. Every message is a sentence with names, numbers and what to do.

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the viewer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Looking at a model, reading a file, or the adapter failed.
    #[error(transparent)]
    Explain(#[from] lara_explain::Error),
    /// No window could be opened.
    #[error("{0}")]
    Window(String),
}

impl Error {
    /// Numbers or settings that do not go together.
    pub(crate) fn bad_input(sentence: impl Into<String>) -> Self {
        Error::Explain(lara_explain::Error::BadInput(sentence.into()))
    }

    /// True if the user can mend it (exit code 2), false if something failed underneath (exit code 1).
    pub fn is_bad_input(&self) -> bool {
        match self {
            Error::Window(_) => false,
            Error::Explain(error) => error.is_bad_input(),
        }
    }
}

impl From<lara_models::Error> for Error {
    fn from(error: lara_models::Error) -> Self {
        Error::Explain(error.into())
    }
}

impl From<lara_runtime::Error> for Error {
    fn from(error: lara_runtime::Error) -> Self {
        Error::Explain(error.into())
    }
}
