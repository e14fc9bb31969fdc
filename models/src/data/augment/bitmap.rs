//! A picture as augmentation works on it: 8 bits a channel, grey or RGB.

use image::DynamicImage;

use crate::data::ImageShape;
use crate::error::{Error, Result};

/// Pixels of 1 or 3 channels, row by row, the channels of a pixel side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    channels: usize,
    width: usize,
    height: usize,
    bytes: Vec<u8>,
}

impl Bitmap {
    /// From `bytes` [height, width, channels].
    ///
    /// # Errors
    /// A picture without pixels, with other than 1 or 3 channels, or with another number of bytes.
    pub fn new(channels: usize, width: usize, height: usize, bytes: Vec<u8>) -> Result<Self> {
        if !matches!(channels, 1 | 3) || width * height == 0 || bytes.len() != channels * width * height {
            return Err(Error::BadInput(format!(
                "{} bytes are no grey or RGB picture of {width}x{height} pixels with {channels} channels",
                bytes.len()
            )));
        }
        Ok(Self { channels, width, height, bytes })
    }

    /// From planes of `shape` in 0..1, each value rounded to one of 256.
    ///
    /// # Errors
    /// As [`Bitmap::new`].
    pub fn from_planes(pixels: &[f32], shape: ImageShape) -> Result<Self> {
        let ImageShape { channels, height, width } = shape;
        let plane = height * width;
        let byte = |value: f32| (value.clamp(0.0, 1.0) * 255.0).round() as u8;
        if pixels.len() != shape.len() {
            return Err(Error::BadInput(format!("{} values are no picture of {shape}", pixels.len())));
        }
        let bytes = (0..plane).flat_map(|i| (0..channels).map(move |c| byte(pixels[c * plane + i]))).collect();
        Self::new(channels, width, height, bytes)
    }

    /// From a decoded picture, as `channels` channels: what is transparent is laid over black, grey is ITU-R 601.
    ///
    /// # Errors
    /// As [`Bitmap::new`].
    pub fn from_picture(picture: &DynamicImage, channels: usize) -> Result<Self> {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let rgb = if picture.color().has_alpha() {
            let lay = |value: u8, alpha: u8| ((u16::from(value) * u16::from(alpha) + 127) / 255) as u8;
            picture.to_rgba8().pixels().flat_map(|&image::Rgba([r, g, b, a])| [r, g, b].map(|v| lay(v, a))).collect()
        } else {
            picture.to_rgb8().into_raw()
        };
        let rgb = Self::new(3, width, height, rgb)?;
        if channels == 3 { Ok(rgb) } else { Self::new(channels, width, height, rgb.luma().collect()) }
    }

    /// 1 for grey, 3 for RGB.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// [height, width, channels].
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same, to be changed.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Each pixel's grey value, with Pillow's integer weights of ITU-R 601.
    pub(crate) fn luma(&self) -> impl Iterator<Item = u8> {
        self.bytes.chunks_exact(self.channels).map(|pixel| match *pixel {
            [red, green, blue] => {
                ((19_595 * u32::from(red) + 38_470 * u32::from(green) + 7_471 * u32::from(blue) + 0x8000) >> 16) as u8
            }
            ref grey => grey[0],
        })
    }

    /// A picture of the same size, made pixel by pixel: `pixel` is given row and column and writes the channels.
    pub(crate) fn map_pixels(&self, mut pixel: impl FnMut(usize, usize, &mut [u8])) -> Self {
        let mut out = self.clone();
        for (y, row) in out.bytes.chunks_exact_mut(self.width * self.channels).enumerate() {
            row.chunks_exact_mut(self.channels).enumerate().for_each(|(x, to)| pixel(y, x, to));
        }
        out
    }

    /// The channels of the pixel in row `y` and column `x`.
    pub(crate) fn pixel(&self, y: usize, x: usize) -> &[u8] {
        &self.bytes[(y * self.width + x) * self.channels..][..self.channels]
    }

    /// The part of `height` rows from `top` and `width` columns from `left`, which lies inside.
    pub fn crop(&self, top: usize, left: usize, height: usize, width: usize) -> Self {
        let (stride, c) = (self.width * self.channels, self.channels);
        let rows = self.bytes.chunks_exact(stride).skip(top).take(height);
        let bytes = rows.flat_map(|row| &row[left * c..(left + width) * c]).copied().collect();
        Self { channels: c, width, height, bytes }
    }

    /// Left to right.
    #[must_use]
    pub fn flip_horizontally(&self) -> Self {
        self.map_pixels(|y, x, to| to.copy_from_slice(self.pixel(y, self.width - 1 - x)))
    }

    /// Top to bottom.
    #[must_use]
    pub fn flip_vertically(&self) -> Self {
        self.map_pixels(|y, x, to| to.copy_from_slice(self.pixel(self.height - 1 - y, x)))
    }

    /// Planes [channels, height, width] in 0..1, written to `out` of as many values.
    pub fn to_planes(&self, out: &mut [f32]) {
        let plane = self.width * self.height;
        for (i, pixel) in self.bytes.chunks_exact(self.channels).enumerate() {
            pixel.iter().enumerate().for_each(|(c, &value)| out[c * plane + i] = f32::from(value) / 255.0);
        }
    }
}
