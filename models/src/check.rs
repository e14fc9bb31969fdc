//! Checks of the numbers in a configuration, each with the sentence that refuses it.

use crate::error::{Error, Result};

/// The sentence, unless `holds`.
pub(crate) fn ensure(holds: bool, sentence: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Config(sentence())) }
}

/// `low <= value < high`.
pub(crate) fn within(key: &str, value: f64, low: f64, high: f64) -> Result<()> {
    ensure(value >= low && value < high, || format!("{key} is {value}; it must be at least {low} and below {high}"))
}
