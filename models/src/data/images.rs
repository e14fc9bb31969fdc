//! Sets of labelled images, and batches of them.

use super::loader::Position;
use super::picture::Picture;
use super::{Dataset, ImageShape};
use crate::error::Result;

/// One labelled image.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// [C, H, W], values in 0..1, not normalised.
    pub pixels: Vec<f32>,
    /// Index into [`ImageDataset::classes`].
    pub label: u32,
}

/// A split of a labelled set of equally sized images.
pub trait ImageDataset: Dataset<Item = Sample> {
    /// Names of the classes; a label is an index into them.
    fn classes(&self) -> &[String];

    /// The shape of every sample's pixels.
    fn image_shape(&self) -> ImageShape;

    /// Sample number `index` as the picture that it was before it got that shape, and its label; where samples come in it,
    /// the sample rounded to 8 bits.
    ///
    /// # Errors
    /// As [`Dataset::get`].
    fn picture(&self, index: usize) -> Result<(Picture, u32)> {
        let sample = self.get(index)?;
        Ok((Picture::from_planes(&sample.pixels, self.image_shape())?, sample.label))
    }
}

/// What an image is to be taken for besides its label: the other half of a mixture of two (mixup, CutMix).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mixed {
    /// The other image's label.
    pub label: u32,
    /// Its share of the target, 0 to 1; the rest is the image's own label's.
    pub share: f32,
}

/// Some labelled images, ready for a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// `[B, C, H, W]`, normalised.
    pub images: Vec<f32>,
    /// `[B]`.
    pub labels: Vec<u32>,
    /// `[B]` where images are mixtures of two, else empty.
    pub mixed: Vec<Mixed>,
    /// `[B]`, the samples' numbers in the data set.
    pub indices: Vec<u32>,
    /// Where this batch stands.
    pub position: Position,
}

impl Batch {
    /// Number of samples B.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True for no samples; a loader never delivers that.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}
