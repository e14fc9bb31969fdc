//! Checks of the numbers in a configuration, each with the sentence that refuses it.
//!
//! What the device is given as f32 is checked as the f32 that it becomes: 1e-46 is 0 there, and 0.99999999 is 1.

use std::fmt::Display;
use std::ops::RangeInclusive;

use crate::error::{Error, Result};

/// The largest f32 below 1.
const BELOW_ONE: f32 = 1.0 - f32::EPSILON / 2.0;

/// The sentence, unless `holds`.
pub(crate) fn ensure(holds: bool, sentence: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Config(sentence())) }
}

/// A whole number within a range.
pub(crate) fn count<T: PartialOrd + Display>(key: &str, value: T, range: RangeInclusive<T>) -> Result<()> {
    ensure(range.contains(&value), || {
        format!("{key} is {value}; it must be between {} and {}", range.start(), range.end())
    })
}

/// A share: at least 0 and below 1, as f32 too.
pub(crate) fn share(key: &str, value: f64) -> Result<()> {
    ensure((0.0..1.0).contains(&value), || format!("{key} is {value}; it must be at least 0 and below 1"))?;
    ensure(value as f32 <= BELOW_ONE, || {
        format!("{key} is {value}; it must be at most {BELOW_ONE}, since the kernels' f32 takes it for 1")
    })
}

/// A number above 0, as f32 too.
pub(crate) fn above_zero(key: &str, value: f64) -> Result<()> {
    ensure(value.is_finite() && value > 0.0, || format!("{key} is {value}; it must be above 0"))?;
    in_range_of_f32(key, value)
}

/// 0 or a number above it, as f32 too.
pub(crate) fn zero_or_above(key: &str, value: f64) -> Result<()> {
    ensure(value.is_finite() && value >= 0.0, || format!("{key} is {value}; it must be 0 or more"))?;
    if value == 0.0 { Ok(()) } else { in_range_of_f32(key, value) }
}

/// What an f32 holds in full precision, and no GPU takes for 0 or infinity.
fn in_range_of_f32(key: &str, value: f64) -> Result<()> {
    let size = value.abs();
    ensure(size >= f64::from(f32::MIN_POSITIVE) && size <= f64::from(f32::MAX), || {
        format!(
            "{key} is {value:e}; the kernels' f32 holds numbers from {:e} to {:e} only",
            f32::MIN_POSITIVE,
            f32::MAX
        )
    })
}

/// What images are shifted by: finite numbers, as f32 too.
pub(crate) fn shifts(key: &str, values: &[f64]) -> Result<()> {
    ensure(values.iter().all(|value| value.is_finite()), || format!("{key} = {values:?} must hold finite numbers"))?;
    values.iter().filter(|value| value.abs() > 1.0).try_for_each(|&value| in_range_of_f32(key, value))
}

/// What images are divided by: finite numbers above 0, as f32 too.
pub(crate) fn divisors(key: &str, values: &[f64]) -> Result<()> {
    ensure(values.iter().all(|value| value.is_finite() && *value > 0.0), || {
        format!("{key} = {values:?} must hold finite numbers, and only such above 0")
    })?;
    values.iter().try_for_each(|&value| in_range_of_f32(key, value))
}

/// Sizes of a tensor whose product a program of any width can count. `what` begins the sentence, `lower` ends it.
pub(crate) fn tensor(what: &str, sizes: &[u64], most: u64, lower: &str) -> Result<()> {
    let product = sizes.iter().try_fold(1u64, |product, &size| product.checked_mul(size));
    ensure(product.is_some_and(|product| product <= most), || {
        let numbers = product.map_or_else(|| "more than 2^64".to_owned(), |product| product.to_string());
        format!("{what} {sizes:?} would have {numbers} numbers; a tensor holds at most {most}: lower {lower}")
    })
}
