//! Pictures pixel by pixel.

use crate::data::ImageShape;
use crate::data::picture::Picture;
use crate::error::Result;

impl Picture {
    /// From planes of `shape` in 0..1, each value rounded to one of 256.
    ///
    /// # Errors
    /// As [`Picture::new`].
    pub fn from_planes(planes: &[f32], shape: ImageShape) -> Result<Self> {
        let ImageShape { channels, height, width } = shape;
        let plane = height * width;
        let byte = |value: f32| (value.clamp(0.0, 1.0) * 255.0).round() as u8;
        let values = (0..planes.len()).map(|i| byte(planes[i % channels.max(1) * plane + i / channels.max(1)]));
        Self::new(width as u32, height as u32, channels, values.collect())
    }

    /// A picture of the same size, made pixel by pixel: `pixel` is given row and column and writes the channels.
    pub(crate) fn map_pixels(&self, mut pixel: impl FnMut(usize, usize, &mut [u8])) -> Self {
        let (channels, width) = (self.channels(), self.width() as usize);
        let mut out = self.clone();
        for (y, row) in out.pixels_mut().chunks_exact_mut(width * channels).enumerate() {
            row.chunks_exact_mut(channels).enumerate().for_each(|(x, to)| pixel(y, x, to));
        }
        out
    }

    /// The channels of the pixel in row `y` and column `x`.
    pub(crate) fn pixel(&self, y: usize, x: usize) -> &[u8] {
        let channels = self.channels();
        &self.pixels()[(y * self.width() as usize + x) * channels..][..channels]
    }

    /// A part as large as the picture, from row `top` and column `left` of the picture with `padding` black pixels on every
    /// side.
    pub(crate) fn crop_padded(&self, top: usize, left: usize, padding: usize) -> Self {
        let inside = |at: usize, size: u32| at.checked_sub(padding).filter(|&at| at < size as usize);
        self.map_pixels(|y, x, to| match (inside(y + top, self.height()), inside(x + left, self.width())) {
            (Some(y), Some(x)) => to.copy_from_slice(self.pixel(y, x)),
            _ => to.fill(0),
        })
    }

    /// Left to right.
    #[must_use]
    pub fn flip_horizontally(&self) -> Self {
        let mut out = self.clone();
        for row in out.pixels_mut().chunks_exact_mut(self.width() as usize * self.channels()) {
            match self.channels() {
                1 => row.reverse(),
                _ => row.as_chunks_mut::<3>().0.reverse(),
            }
        }
        out
    }

    /// Top to bottom.
    #[must_use]
    pub fn flip_vertically(&self) -> Self {
        let mut out = self.clone();
        let stride = self.width() as usize * self.channels();
        let rows = self.pixels().chunks_exact(stride).rev();
        out.pixels_mut().chunks_exact_mut(stride).zip(rows).for_each(|(to, row)| to.copy_from_slice(row));
        out
    }
}
