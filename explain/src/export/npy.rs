//! NumPy's array format, version 1.0: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use crate::error::{Error, Result};
use crate::map::Map;

/// Magic number and version.
const START: &[u8; 8] = b"\x93NUMPY\x01\x00";

/// The maps as one array of little-endian f32, [maps, tokens], tokens before the patches included.
///
/// # Errors
/// If there is no map, or the maps differ in their number of tokens.
pub fn encode(maps: &[Map]) -> Result<Vec<u8>> {
    let Some(first) = maps.first() else {
        return Err(Error::BadInput("there is no map to put into an array".into()));
    };
    let tokens = first.values.len();
    if let Some(other) = maps.iter().find(|map| map.values.len() != tokens) {
        return Err(Error::BadInput(format!(
            "{} has {tokens} tokens and {} has {}: they are no rows of one NumPy array; export them as safetensors",
            first.title(),
            other.title(),
            other.values.len()
        )));
    }
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {tokens}), }}", maps.len()).into_bytes();
    // Data begins at a multiple of 64; two bytes hold the header's length, and a line feed ends it.
    let before = START.len() + 2;
    header.resize((before + header.len() + 1).next_multiple_of(64) - before - 1, b' ');
    header.push(b'\n');
    let mut bytes = START.to_vec();
    // Two numbers of 20 digits at most: it always fits.
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header);
    bytes.extend(maps.iter().flat_map(|map| &map.values).flat_map(|value| value.to_le_bytes()));
    Ok(bytes)
}
