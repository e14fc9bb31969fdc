//! One case while it runs, and what a reader may answer.

use crate::source::Source;

/// A case while it runs.
pub(crate) struct Case<'a> {
    /// Its choices.
    pub(crate) source: Source<'a>,
    /// What was given to the reader, so that a failure can be looked at.
    pub(crate) input: Vec<(String, Vec<u8>)>,
    /// Memory that the reader may take, bytes.
    pub(crate) allowance: usize,
}

impl Case<'_> {
    /// Keeps what the reader is about to be given.
    pub(crate) fn keep(&mut self, name: &str, bytes: &[u8]) {
        self.allowance += 16 * bytes.len();
        self.input.push((name.to_owned(), bytes.to_vec()));
    }

    /// Allows the reader this much more memory, bytes.
    pub(crate) fn allow(&mut self, bytes: usize) {
        self.allowance += bytes;
    }
}

/// What a reader answered: all was well, or a sentence and whether the user's input is at fault.
pub(crate) type Answer = Result<(), (String, bool)>;

/// Puts an error of the models into an [`Answer`].
pub(crate) fn answer<T>(result: lara_models::Result<T>) -> Answer {
    result.map(|_| ()).map_err(|error| (error.to_string(), error.is_bad_input()))
}

/// One line that a person can read: some words, nothing that moves the cursor, no more than a screen.
pub(crate) fn is_sentence(text: &str) -> bool {
    let is_clean = text.chars().all(|c| !c.is_control() && !('\u{202a}'..='\u{202e}').contains(&c));
    is_clean && text.split_whitespace().count() >= 3 && text.chars().count() <= 3000 && !text.contains("panicked")
}
