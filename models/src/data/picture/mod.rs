//! Pictures: from files to bytes, resized and cropped as Pillow, torchvision and timm do it, to a model's numbers.

mod decode;
mod preprocess;
mod published;
mod resample;

use std::path::Path;

use super::ImageShape;
use crate::error::{Error, Result};

pub use decode::{EXTENSIONS, from_bytes, is_called_picture, load, load_over};
pub use preprocess::{CropMode, Middle, Preprocess, Scale};
pub use resample::{Interpolation, Resize};

/// A picture of bytes, upright, grey or RGB, of at least one pixel.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    channels: usize,
    pixels: Vec<u8>,
}

impl Picture {
    /// Of pixels [height, width, channels] with one channel (grey) or three (RGB).
    ///
    /// # Errors
    /// Numbers that do not go together.
    pub fn new(width: u32, height: u32, channels: usize, pixels: Vec<u8>) -> Result<Self> {
        let wanted = u64::from(width) * u64::from(height) * channels as u64;
        if wanted == 0 || !matches!(channels, 1 | 3) || pixels.len() as u64 != wanted {
            return Err(Error::Failed(format!(
                "{} bytes are no picture of {width}x{height} pixels with {channels} channels: there must be pixels, of 1 \
                 or 3 bytes each",
                pixels.len()
            )));
        }
        Ok(Self::of(width, height, channels, pixels))
    }

    /// [`Picture::new`] where the numbers go together.
    pub(crate) fn of(width: u32, height: u32, channels: usize, pixels: Vec<u8>) -> Self {
        Self { width, height, channels, pixels }
    }

    /// Columns.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// 1 for grey, 3 for RGB.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// [height, width, channels].
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// [height, width, channels].
    pub fn pixels_mut(&mut self) -> &mut [u8] {
        &mut self.pixels
    }

    /// As grey, for one channel, or as RGB: Pillow's `convert("L")` and `convert("RGB")`.
    pub fn with_channels(mut self, channels: usize) -> Self {
        match (self.channels, channels) {
            (3, 1) => {
                // In place: a large picture is held once.
                for i in 0..self.pixels.len() / 3 {
                    self.pixels[i] = grey_of([0, 1, 2].map(|c| self.pixels[3 * i + c]));
                }
                self.pixels.truncate(self.pixels.len() / 3);
                Self { channels: 1, ..self }
            }
            (1, 3) => Self { channels: 3, pixels: self.pixels.iter().flat_map(|&value| [value; 3]).collect(), ..self },
            _ => self,
        }
    }

    /// [channels, height, width], values in 0..1.
    pub fn planes(&self) -> Vec<f32> {
        let channel = |c| self.pixels.iter().skip(c).step_by(self.channels).map(|&value| f32::from(value) / 255.0);
        (0..self.channels).flat_map(channel).collect()
    }
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture {}x{}x{}", self.channels, self.height, self.width)
    }
}

/// Pillow's integer weights (ITU-R 601): a grey pixel keeps its exact value.
#[inline(always)]
pub(crate) fn grey_of([red, green, blue]: [u8; 3]) -> u8 {
    ((19_595 * u32::from(red) + 38_470 * u32::from(green) + 7_471 * u32::from(blue) + 0x8000) >> 16) as u8
}

/// Writes [C, H, W] values in 0..1 (1 or 3 channels; clamped) as a PNG file.
pub fn save_png(path: impl AsRef<Path>, pixels: &[f32], shape: ImageShape) -> Result<()> {
    let path = path.as_ref();
    if pixels.len() != shape.len() || !matches!(shape.channels, 1 | 3) {
        return Err(Error::Failed(format!("{} values are not a grey or RGB picture of {shape}", pixels.len())));
    }
    let plane = shape.height * shape.width;
    let byte = |value: f32| (value.clamp(0.0, 1.0) * 255.0).round() as u8;
    let interleaved: Vec<u8> =
        (0..plane).flat_map(|i| (0..shape.channels).map(move |c| byte(pixels[c * plane + i]))).collect();
    let color = if shape.channels == 1 { image::ExtendedColorType::L8 } else { image::ExtendedColorType::Rgb8 };
    image::save_buffer_with_format(
        path,
        &interleaved,
        shape.width as u32,
        shape.height as u32,
        color,
        image::ImageFormat::Png,
    )
    .map_err(|error| match error {
        image::ImageError::IoError(source) => Error::Io { action: "write", path: path.to_path_buf(), source },
        other => Error::Failed(format!("cannot write {}: {other}", path.display())),
    })
}
