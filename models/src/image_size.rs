//! Height and width of what a model takes: `224`, or `[224, 336]`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Height and width in pixels. In a configuration one number stands for a square.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Sides", into = "Sides")]
pub struct ImageSize {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Sides {
    Square(usize),
    Rectangle([usize; 2]),
}

impl ImageSize {
    /// As many rows as columns.
    pub const fn square(side: usize) -> Self {
        ImageSize { height: side, width: side }
    }

    /// Rows and columns of patches of `patch` x `patch` pixels.
    pub fn grid(self, patch: usize) -> [usize; 2] {
        [self.height / patch, self.width / patch]
    }
}

impl From<Sides> for ImageSize {
    fn from(sides: Sides) -> Self {
        match sides {
            Sides::Square(side) => Self::square(side),
            Sides::Rectangle([height, width]) => ImageSize { height, width },
        }
    }
}

impl From<ImageSize> for Sides {
    fn from(size: ImageSize) -> Self {
        if size.height == size.width { Sides::Square(size.height) } else { Sides::Rectangle([size.height, size.width]) }
    }
}

impl fmt::Display for ImageSize {
    /// As it is written in a configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Sides::from(*self) {
            Sides::Square(side) => write!(f, "{side}"),
            Sides::Rectangle(sides) => write!(f, "{sides:?}"),
        }
    }
}
