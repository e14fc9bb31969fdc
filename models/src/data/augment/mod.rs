//! What happens to an image between the data set and the model: crop, flip, normalise; and DeiT's augmentations, each a
//! function of the picture and of what is drawn for it.

pub mod affine;
pub mod color_jitter;
pub mod config;
pub mod enhance;
pub mod erasing;
pub mod levels;
pub mod mixup;
mod pixels;
pub mod rand_augment;
pub mod random_crop;
pub mod recipe;

use super::{DataConfig, ImageShape};
use crate::error::{Error, Result};
use crate::random::Draws;

pub use affine::Filter;
pub use color_jitter::ColorJitter;
pub use config::{AugmentConfig, JitterStrength, TrainInterpolation};
pub use erasing::{ErasingMode, RandomErasing};
pub use mixup::{Mixup, MixupMode};
pub use rand_augment::RandAugment;
pub use random_crop::{Crop, RandomResizedCrop};
pub use recipe::{PictureRecipe, Recipe};

/// Random crop with padding, random horizontal flip, normalisation.
#[derive(Clone, Debug, PartialEq)]
pub struct Augment {
    /// Subtracted from each channel; one value serves all channels.
    pub mean: Vec<f32>,
    /// Each channel is divided by it; one value serves all channels.
    pub std: Vec<f32>,
    /// Black pixels added on every side before a crop of the original size is taken at random; 0 for no crop.
    pub crop_padding: usize,
    /// Probability of a horizontal flip.
    pub hflip: f32,
}

impl Augment {
    /// For training, as the configuration says.
    pub fn train(data: &DataConfig) -> Self {
        Self { crop_padding: data.crop_padding, hflip: data.hflip as f32, ..Self::eval(data) }
    }

    /// For evaluation: normalisation alone.
    pub fn eval(data: &DataConfig) -> Self {
        let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect();
        Self { mean: narrow(&data.mean), std: narrow(&data.std), crop_padding: 0, hflip: 0.0 }
    }

    /// Checks the numbers against images of `channels` channels.
    pub fn check(&self, channels: usize) -> Result<()> {
        for (name, values) in [("mean", &self.mean), ("std", &self.std)] {
            if values.len() != 1 && values.len() != channels {
                return Err(Error::Config(format!(
                    "data.{name} has {} values for images of {channels} channels; give one value, or one for each channel",
                    values.len()
                )));
            }
        }
        if let Some(std) = self.std.iter().find(|std| !(std.is_finite() && **std > 0.0)) {
            return Err(Error::Config(format!(
                "data.std holds {std}; images are divided by it, so it must be above 0"
            )));
        }
        Ok(())
    }

    /// A value in 0..1 of a channel, normalised.
    pub(crate) fn value(&self, value: f32, channel: usize) -> f32 {
        (value - self.mean[channel.min(self.mean.len() - 1)]) / self.std[channel.min(self.std.len() - 1)]
    }

    /// Writes the image [C, H, W] into `out` of the same size. Always takes the same number of draws, so a run with the
    /// flip off sees the same crops as one with the flip on. Needs [`check`](Self::check) to have passed.
    pub fn apply(&self, pixels: &[f32], shape: ImageShape, draws: &mut Draws, out: &mut [f32]) {
        let ImageShape { channels, height, width } = shape;
        let padding = self.crop_padding;
        let top = draws.below((2 * padding + 1) as u32) as usize;
        let left = draws.below((2 * padding + 1) as u32) as usize;
        let flip = draws.uniform() < self.hflip;
        for channel in 0..channels {
            let plane = &pixels[channel * height * width..][..height * width];
            for y in 0..height {
                for x in 0..width {
                    let column = if flip { width - 1 - x } else { x };
                    // Positions in the padded image, moved back by the padding; None where they fall into it.
                    let source_y = (y + top).checked_sub(padding).filter(|&source| source < height);
                    let source_x = (column + left).checked_sub(padding).filter(|&source| source < width);
                    let value = match (source_y, source_x) {
                        (Some(source_y), Some(source_x)) => plane[source_y * width + source_x],
                        _ => 0.0,
                    };
                    out[(channel * height + y) * width + x] = self.value(value, channel);
                }
            }
        }
    }
}
