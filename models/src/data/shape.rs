//! How large images are.

use std::fmt;

/// The shape of every image of a data set, printed as channels x height x width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageShape {
    /// 1 for grey, 3 for RGB.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl ImageShape {
    /// Number of values in an image.
    #[expect(clippy::len_without_is_empty, reason = "an image shape is not a collection")]
    pub fn len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// The shape of `count` images: [count, channels, height, width].
    pub fn batch(&self, count: usize) -> [usize; 4] {
        [count, self.channels, self.height, self.width]
    }
}

impl fmt::Display for ImageShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
}
