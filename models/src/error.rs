//! What can go wrong in this crate. Every message is a sentence that names the thing, the numbers and what to do.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate. [`Error::is_bad_input`] tells what the user can mend from what failed underneath.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration that does not parse, has an unknown key or a value out of range. Bad input.
    #[error("{}", plain(.0))]
    Config(String),

    /// A file or folder that the user named and that cannot be used as it is. Bad input.
    #[error("{}: {}", plain(&path.display().to_string()), plain(problem))]
    Input {
        /// The file or folder at fault.
        path: PathBuf,
        /// What is wrong with it and what to do.
        problem: String,
    },

    /// Settings or data that do not go together (a batch larger than the data set, say). Bad input.
    #[error("{}", plain(.0))]
    BadInput(String),

    /// The operating system refused. Bad input where the user named a path that is not there or not allowed.
    #[error("cannot {action} {}: {source}", plain(&path.display().to_string()))]
    Io {
        /// What was tried, as a verb: "read", "create".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },

    /// A checkpoint could not be written; what was there before is as it was.
    #[error("cannot save {}: {problem}; {survives}", path.display())]
    Save {
        /// The checkpoint that was being written.
        path: PathBuf,
        /// Why not.
        problem: String,
        /// What is still there, and what to do.
        survives: String,
    },

    /// The runtime failed: the adapter, a shader, memory. The message is the runtime's own sentence.
    #[error(transparent)]
    Runtime(lara_runtime::Error),

    /// A trained model gives numbers that are not finite: its weights or the image are at fault. Bad input.
    #[error("{0}")]
    NotFinite(String),

    /// Numbers ran away in training: a loss or a weight that is not finite.
    #[error("{0}")]
    Diverged(String),

    /// A run ended before its time, with what is left of it.
    #[error("{source}; {left}")]
    Stopped {
        /// Why.
        source: Box<Error>,
        /// What was saved and how to go on.
        left: String,
    },

    /// Anything else that failed while it should not have (a worker that panicked).
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// True if the user's input is at fault (exit code 2), false if something failed (exit code 1).
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Config(_) | Self::Input { .. } | Self::BadInput(_) | Self::NotFinite(_) => true,
            Self::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::IsADirectory
            ),
            Self::Stopped { source, .. } => source.is_bad_input(),
            // What the adapter cannot hold, adapters that are not there, settings and shapes that do not go together.
            Self::Runtime(error) => matches!(
                error,
                lara_runtime::Error::TooLarge { .. }
                    | lara_runtime::Error::NoAdapter { .. }
                    | lara_runtime::Error::Setting(_)
                    | lara_runtime::Error::Shape(_)
            ),
            Self::Save { .. } | Self::Diverged(_) | Self::Failed(_) => false,
        }
    }

    /// The same error with what a caller's user can lower, where the device does not suffice; for `map_err`.
    pub fn lowering(lower: &str) -> impl FnOnce(Self) -> Self {
        move |error| match error {
            Self::Runtime(error) => Self::Runtime(error.lowering(lower)),
            other => other,
        }
    }

    /// An [`Error::Input`].
    pub(crate) fn input(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Input { path: path.as_ref().to_path_buf(), problem: problem.into() }
    }

    /// Turns an [`io::Error`] into one that says what was tried on what; for `map_err`.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

impl From<lara_runtime::Error> for Error {
    fn from(error: lara_runtime::Error) -> Self {
        Self::Runtime(error)
    }
}

/// What a file or a command line brought into a sentence, fit for a terminal: what would break the line, move the cursor
/// or turn the direction of writing is shown and not done, and of a very long text there is the beginning and the end.
fn plain(text: &str) -> Cow<'_, str> {
    const BEGINNING: usize = 1000;
    const END: usize = 300;
    let text = text.trim_end();
    let acts = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.len() <= BEGINNING + END && !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let shown: Vec<String> =
        text.chars().map(|c| if acts(c) { c.escape_default().to_string() } else { c.to_string() }).collect();
    if shown.len() <= BEGINNING + END {
        return Cow::Owned(shown.concat());
    }
    Cow::Owned(format!("{} [..] {}", shown[..BEGINNING].concat(), shown[shown.len() - END..].concat()))
}

/// The name in `names` that looks most like `name`, if one comes near enough to be meant.
pub(crate) fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(score, _)| *score > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
