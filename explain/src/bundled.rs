//! The model that comes with the program.

use lara_models::Model;

use crate::error::Result;

/// Its checkpoint; explain/data/README.md says how it was trained.
static BUNDLED: &[u8] = include_bytes!("../data/digits.safetensors");

/// A model to look at at once: digits, LARA.
///
/// # Errors
/// Never for an unbroken build.
pub fn bundled() -> Result<Model> {
    Ok(Model::from_bytes("the bundled digits model", BUNDLED.to_vec())?)
}
