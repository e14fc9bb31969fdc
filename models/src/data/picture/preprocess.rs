//! What is done to a picture before a model looks at it: resized, cropped, normalised.

use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Interpolation, Picture, Resize};
use crate::check::{divisors, ensure, shifts};
use crate::data::ImageShape;
use crate::error::{Error, Result};

/// What becomes of a picture that has other proportions than the model's images; names are timm's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CropMode {
    /// It keeps them, and what sticks out is cut off.
    #[default]
    Center,
    /// It is squashed.
    Squash,
    /// It keeps them, and what is missing is filled with the mean colour.
    Border,
}

/// The size that a picture gets before it is cropped; sizes are [rows, columns].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// The one that it has.
    Keep,
    /// The shorter side becomes this, the longer keeps the proportions, rounded down (torchvision, Hugging Face).
    Shorter(u64),
    /// It just covers this size, rounded (timm's `ResizeKeepRatio`).
    Cover([u64; 2]),
    /// It just fits into this size, rounded (timm's `ResizeKeepRatio` with `longest`).
    Inside([u64; 2]),
    /// This one, whatever it had.
    Exactly([u64; 2]),
}

/// Where the middle is if it lies between two pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Middle {
    /// At the even one of the two; the wider border comes last (torchvision, timm).
    #[default]
    Even,
    /// At the first; the wider border comes first (Hugging Face).
    First,
}

/// From pictures to the input of a model, as timm, torchvision and Hugging Face evaluate theirs: made grey or RGB,
/// resized, the centre cut out (or padded), bytes divided by 255, less the mean, divided by the deviation.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    /// What the model takes.
    pub shape: ImageShape,
    /// The size before the crop.
    pub scale: Scale,
    /// How it is resized.
    pub interpolation: Interpolation,
    /// Where the crop lies.
    pub middle: Middle,
    /// What is around a picture that is smaller than the crop, for each channel.
    pub fill: Vec<u8>,
    /// Subtracted from values in 0..1: one number, or one a channel.
    pub mean: Vec<f64>,
    /// Divides them then: one number, or one a channel.
    pub std: Vec<f64>,
}

impl Preprocess {
    /// Everything resized, cropped and filled as timm's evaluation does: the crop has the share `crop_pct` (above 0, at
    /// most 1) of the resized picture.
    pub fn timm(shape: ImageShape, crop_pct: f64, mode: CropMode, interpolation: Interpolation) -> Self {
        // Casts cut off what no picture can have.
        let before = [shape.height, shape.width].map(|side| ((side as f64 / crop_pct) as u64).max(1));
        let scale = match mode {
            CropMode::Center if before[0] == before[1] => Scale::Shorter(before[0]),
            CropMode::Center => Scale::Cover(before),
            CropMode::Squash => Scale::Exactly(before),
            CropMode::Border => Scale::Inside(before),
        };
        Self {
            shape,
            scale,
            interpolation,
            middle: Middle::Even,
            fill: vec![0; shape.channels],
            mean: vec![0.0],
            std: vec![1.0],
        }
        .filled(mode == CropMode::Border)
    }

    /// With these means and deviations of values in 0..1, one number or one a channel. A border gets the mean's colour.
    ///
    /// # Errors
    /// Numbers that do not fit the channels, or that nothing can be divided by.
    pub fn normalised(self, mean: &[f64], std: &[f64]) -> Result<Self> {
        let border = matches!(self.scale, Scale::Inside(_));
        let channels = self.shape.channels;
        for (key, values) in [("mean", mean), ("std", std)] {
            ensure(values.len() == 1 || values.len() == channels, || {
                format!(
                    "data.{key} has {} values for images of {channels} channels; give one value, or one for each channel",
                    values.len()
                )
            })?;
        }
        shifts("data.mean", mean)?;
        divisors("data.std", std)?;
        Ok(Self { mean: mean.to_vec(), std: std.to_vec(), ..self }.filled(border))
    }

    fn filled(mut self, with_mean: bool) -> Self {
        if with_mean {
            let level = |c: usize| (each(&self.mean, c) * 255.0).round_ties_even() as u8;
            self.fill = (0..self.shape.channels).map(level).collect();
        }
        self
    }

    /// The part of `picture` that the model sees, in the model's size and colours.
    ///
    /// Only that part is resized, so a picture of any shape takes no more than its pixels and the part.
    ///
    /// # Errors
    /// A model that takes neither grey nor RGB images.
    pub fn fit(&self, picture: Picture) -> Result<Picture> {
        let ImageShape { channels, height, width } = self.shape;
        ensure(matches!(channels, 1 | 3), || {
            format!("pictures are read as grey or RGB: model.in_chans must be 1 or 3, not {channels}")
        })?;
        let picture = picture.with_channels(channels);
        let size = self.resized([picture.width(), picture.height()]);
        let [columns, rows] = [(size[0], width), (size[1], height)].map(|(from, to)| self.crop(from, to as u64));
        let part = Some([columns.seen.clone(), rows.seen.clone()]);
        let seen = Resize { part, ..Resize::to(size, self.interpolation) }.apply(&picture);
        if [seen.width() as usize, seen.height() as usize] == [width, height] {
            return Ok(seen);
        }
        let mut framed: Vec<u8> = (0..height * width).flat_map(|_| self.fill.iter().copied()).collect();
        let row = seen.width() as usize * channels;
        for (y, pixels) in seen.pixels().chunks_exact(row).enumerate() {
            let begin = ((rows.before + y) * width + columns.before) * channels;
            framed[begin..begin + row].copy_from_slice(pixels);
        }
        Picture::new(width as u32, height as u32, channels, framed)
    }

    /// The pixels of a file that the model sees, [channels, rows, columns] in 0..1.
    ///
    /// # Errors
    /// A file that is not there or no picture; as [`Preprocess::fit`].
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Vec<f32>> {
        Ok(self.fit(super::load(path)?)?.planes())
    }

    /// As [`Preprocess::read`], from the bytes of a file; `name` stands for it in messages.
    ///
    /// # Errors
    /// As there.
    pub fn read_bytes(&self, name: impl AsRef<Path>, bytes: &[u8]) -> Result<Vec<f32>> {
        Ok(self.fit(super::from_bytes(name, bytes)?)?.planes())
    }

    /// The model's input for `picture`: [channels, rows, columns], normalised.
    ///
    /// # Errors
    /// As [`Preprocess::fit`].
    pub fn apply(&self, picture: Picture) -> Result<Vec<f32>> {
        let seen = self.fit(picture)?;
        let mut input = Vec::with_capacity(self.shape.len());
        for c in 0..self.shape.channels {
            let table: Vec<f32> = (0..=255u8).map(|level| self.value(f32::from(level) / 255.0, c)).collect();
            let plane = seen.pixels().iter().skip(c).step_by(self.shape.channels);
            input.extend(plane.map(|&level| table[usize::from(level)]));
        }
        Ok(input)
    }

    /// Pixels in 0..1, [channels, rows, columns], as the model's input: normalised.
    ///
    /// # Errors
    /// Pixels of another size.
    pub fn normalise(&self, pixels: &[f32]) -> Result<Vec<f32>> {
        let (shape, wanted, given) = (self.shape, self.shape.len(), pixels.len());
        if given != wanted {
            return Err(Error::BadInput(format!("the model takes images of {shape}, {wanted} numbers, not {given}")));
        }
        let plane = shape.height * shape.width;
        Ok(pixels.iter().enumerate().map(|(i, &value)| self.value(value, i / plane)).collect())
    }

    fn value(&self, value: f32, channel: usize) -> f32 {
        (value - each(&self.mean, channel) as f32) / each(&self.std, channel) as f32
    }

    /// The size that a picture of [width, height] gets before it is cropped, [width, height].
    pub fn resized(&self, [width, height]: [u32; 2]) -> [u64; 2] {
        let ratios = |[rows, columns]: [u64; 2]| [f64::from(width) / columns as f64, f64::from(height) / rows as f64];
        let by = |ratio: f64| [width, height].map(|side| ((f64::from(side) / ratio).round_ties_even() as u64).max(1));
        match self.scale {
            Scale::Keep => [width, height].map(u64::from),
            Scale::Exactly([rows, columns]) => [columns, rows],
            Scale::Cover(size) => {
                let [across, down] = ratios(size);
                by(across.min(down))
            }
            Scale::Inside(size) => {
                let [across, down] = ratios(size);
                by(across.max(down))
            }
            Scale::Shorter(shorter) => {
                // Whole numbers: in f64 one size in thousands would come out smaller by a pixel.
                let longer = u128::from(shorter) * u128::from(width.max(height)) / u128::from(width.min(height));
                let longer = u64::try_from(longer).unwrap_or(u64::MAX);
                if width <= height { [shorter, longer] } else { [longer, shorter] }
            }
        }
    }

    /// Where the model's image lies in a picture of [width, height]: its edges [left, right] and [top, bottom], as shares of the
    /// picture's width and height. What lies below 0 or above 1 is border.
    pub fn frame(&self, size: [u32; 2]) -> [[f64; 2]; 2] {
        let (resized, shape) = (self.resized(size), self.shape);
        [(resized[0], shape.width), (resized[1], shape.height)].map(|(from, to)| {
            let Crop { before, seen } = self.crop(from, to as u64);
            let first = seen.start as f64 - before as f64;
            [first, first + to as f64].map(|edge| edge / from as f64)
        })
    }

    /// The same part of a picture for a model of so many times the height and width: what the model sees, in more detail.
    /// Where pictures keep their size there is none.
    #[must_use]
    pub fn enlarged(&self, times: usize) -> Self {
        let by = |sides: [u64; 2]| sides.map(|side| side.saturating_mul(times as u64));
        let scale = match self.scale {
            Scale::Keep => return self.clone(),
            Scale::Shorter(shorter) => Scale::Shorter(shorter.saturating_mul(times as u64)),
            Scale::Cover(size) => Scale::Cover(by(size)),
            Scale::Inside(size) => Scale::Inside(by(size)),
            Scale::Exactly(size) => Scale::Exactly(by(size)),
        };
        let ImageShape { channels, height, width } = self.shape;
        let shape = ImageShape { channels, height: height * times, width: width * times };
        Self { shape, scale, ..self.clone() }
    }

    fn crop(&self, from: u64, to: u64) -> Crop {
        if from < to {
            let border = to - from;
            let before = if self.middle == Middle::Even { border / 2 } else { border.div_ceil(2) };
            return Crop { before: before as usize, seen: 0..from };
        }
        let beyond = from - to;
        let offset = match self.middle {
            Middle::Even => (beyond as f64 / 2.0).round_ties_even() as u64,
            Middle::First => beyond / 2,
        };
        // Beyond 2^53 the half is rounded, and no picture shows it.
        let offset = offset.min(beyond);
        Crop { before: 0, seen: offset..offset + to }
    }
}

/// What is seen of a resized side, and how much border comes before it.
struct Crop {
    before: usize,
    seen: Range<u64>,
}

/// The value for a channel where one serves all.
fn each(values: &[f64], channel: usize) -> f64 {
    values[channel.min(values.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ImageShape = ImageShape { channels: 3, height: 224, width: 224 };

    fn frame(crop_pct: f64, mode: CropMode, size: [u32; 2]) -> [[f64; 2]; 2] {
        Preprocess::timm(SHAPE, crop_pct, mode, Interpolation::Bicubic).frame(size)
    }

    #[test]
    fn the_frame_is_the_part_that_is_cut_out() {
        // 640 x 427 becomes 383 x 256, of which 224 x 224 in the middle are seen.
        let [across, down] = frame(0.875, CropMode::Center, [640, 427]);
        assert_eq!((across, down), ([80.0 / 383.0, 304.0 / 383.0], [16.0 / 256.0, 240.0 / 256.0]));
        assert_eq!(frame(1.0, CropMode::Squash, [640, 427]), [[0.0, 1.0]; 2]);
        // 640 x 427 becomes 224 x 149 with 37 rows above and 38 below.
        assert_eq!(frame(1.0, CropMode::Border, [640, 427]), [[0.0, 1.0], [-37.0 / 149.0, 187.0 / 149.0]]);
    }

    #[test]
    fn an_enlarged_image_shows_the_same_part() {
        for mode in [CropMode::Center, CropMode::Squash, CropMode::Border] {
            for size in [[640, 427], [300, 1000], [64, 64]] {
                let plain = Preprocess::timm(SHAPE, 0.9, mode, Interpolation::Bicubic);
                let (part, larger) = (plain.frame(size), plain.enlarged(3).frame(size));
                // A rounded pixel more or less.
                let near = |a: f64, b: f64| (a - b).abs() < 0.02;
                let mut pairs = part.iter().flatten().zip(larger.iter().flatten());
                assert!(pairs.all(|(&a, &b)| near(a, b)), "{mode:?} {size:?}: {part:?} and {larger:?}");
                let picture = Picture::new(size[0], size[1], 3, vec![7; (size[0] * size[1] * 3) as usize]).unwrap();
                let seen = plain.enlarged(3).fit(picture).unwrap();
                assert_eq!([seen.width(), seen.height()], [672, 672]);
            }
        }
    }
}
