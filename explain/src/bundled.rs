//! What comes with the program: two models, and drawings to look at.

use lara_models::Model;

use crate::error::Result;

/// The checkpoints; explain/data/README.md says how they were trained.
static EMOJI: &[u8] = include_bytes!("../data/emoji.safetensors");
static DIGITS: &[u8] = include_bytes!("../data/digits.safetensors");

/// A model to look at at once: emoji in colour, LARA.
///
/// # Errors
/// Never for an unbroken build.
pub fn bundled() -> Result<Model> {
    Ok(Model::from_bytes("the bundled emoji model", EMOJI.to_vec())?)
}

/// A smaller one: handwritten digits, pixel by pixel, LARA.
///
/// # Errors
/// Never for an unbroken build.
pub fn bundled_digits() -> Result<Model> {
    Ok(Model::from_bytes("the bundled digits model", DIGITS.to_vec())?)
}

/// A drawing that a person recognises.
#[derive(Clone, Copy, Debug)]
pub struct Drawing {
    /// What it shows.
    pub name: &'static str,
    /// What the emoji model is to say.
    pub class: &'static str,
    /// 64x64 RGB, as a PNG file.
    pub png: &'static [u8],
}

macro_rules! drawings {
    ($($name:literal: $class:literal,)*) => {
        &[$(Drawing { name: $name, class: $class, png: include_bytes!(concat!("../data/pictures/", $name, ".png")) }),*]
    };
}

/// Emoji that were held out when the bundled model was trained, from Google's Noto Emoji (explain/data/pictures/NOTICE): first
/// what it knows.
pub const DRAWINGS: &[Drawing] = drawings! {
    "nerd": "Smileys & Emotion",
    "sweat-smile": "Smileys & Emotion",
    "wave": "People & Body",
    "octopus": "Animals & Nature",
    "cactus": "Animals & Nature",
    "bus": "Travel & Places",
    "flag-ca": "Flags",
    "yin-yang": "Symbols",
    "magnifier": "Objects",
    "dog": "Animals & Nature",
    "cat": "Animals & Nature",
    "car": "Travel & Places",
    "pizza": "Food & Drink",
    "strawberry": "Food & Drink",
    "basketball": "Activities",
};
