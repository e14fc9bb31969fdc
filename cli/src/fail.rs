//! How a command ends: a sentence and an exit code.

use std::fmt;
use std::process::ExitCode;

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    bad_input: bool,
}

/// Result of a command.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// The user's input is at fault: exit code 2.
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Failure { message: message.into(), bad_input: true }
    }

    /// Something failed underneath: exit code 1.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Failure { message: message.into(), bad_input: false }
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(if self.bad_input { 2 } else { 1 })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<lara_models::Error> for Failure {
    fn from(error: lara_models::Error) -> Self {
        Failure { bad_input: error.is_bad_input(), message: error.to_string() }
    }
}

impl From<lara_runtime::Error> for Failure {
    fn from(error: lara_runtime::Error) -> Self {
        lara_models::Error::from(error).into()
    }
}

impl From<lara_explain::Error> for Failure {
    fn from(error: lara_explain::Error) -> Self {
        Failure { bad_input: error.is_bad_input(), message: error.to_string() }
    }
}

#[cfg(feature = "view")]
impl From<lara_viewer::Error> for Failure {
    fn from(error: lara_viewer::Error) -> Self {
        Failure { bad_input: error.is_bad_input(), message: error.to_string() }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Failure::failed(error.to_string())
    }
}

/// Writes to standard output; a reader that went away (`| head`) ends the output quietly.
pub(crate) fn print(text: impl fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints a result as one JSON document.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Outcome {
    print(serde_json::to_string_pretty(value)?);
    Ok(())
}
